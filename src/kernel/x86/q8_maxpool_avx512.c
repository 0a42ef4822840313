/* Largest bytes for AVX-512. */
#define VBYTES 64
#define MAXPOOL qn__q8_maxpool_avx512
#include "kernel/q8_maxpool_tmpl.h"
