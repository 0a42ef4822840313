#define PAIRS_NAME qn__q8_pairs_avx2
#include "kernel/q8_pairs_tmpl.h"
