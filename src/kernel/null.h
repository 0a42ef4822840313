/* Kernels that return at once: what a run then takes is all that it does beyond its kernels. To
 * measure; not in the runtime library. */
#ifndef QN_KERNEL_NULL_H
#define QN_KERNEL_NULL_H

#include "kernel/kernel.h"

/* Every kernel that running calls is replaced; sizes of tiles, packing and names stay. */
void qn__kernels_null(qn_kernels *kernels);

#endif
