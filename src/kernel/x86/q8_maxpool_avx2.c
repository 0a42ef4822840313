/* Largest bytes for AVX2. */
#define VBYTES 32
#define MAXPOOL qn__q8_maxpool_avx2
#include "kernel/q8_maxpool_tmpl.h"
