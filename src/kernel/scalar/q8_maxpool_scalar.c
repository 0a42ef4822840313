/* Largest bytes for what every machine of this kind has. */
#define VBYTES 16
#define MAXPOOL qn__q8_maxpool_scalar
#include "kernel/q8_maxpool_tmpl.h"
