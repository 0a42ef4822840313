/* What the examples in the public headers take as given. */
#include <quench/quantize.h>
#include <quench/runtime.h>
#include <stdio.h>
