#define PAIRS_NAME qn__q8_pairs_scalar
#include "kernel/q8_pairs_tmpl.h"
