/* Kernels of libquench: all that were compiled. */
#define QN_LEFT_OUT(slot, isa) false
#include "kernel/kernels_init.h"
