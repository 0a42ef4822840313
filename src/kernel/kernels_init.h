/* Dispatch: the rows of kernels.def in order, each overwriting its slot when the CPU has what it
 * needs. The scalar rows come first and need nothing, so no slot stays empty. Included once per
 * library, by a file that says with QN_LEFT_OUT(slot, isa) which rows it does without. */
#include "kernel/kernel.h"

void qn__kernels_init(qn_kernels *kernels, uint32_t cpu_flags)
{
    *kernels = (qn_kernels){.cpu_flags = cpu_flags};
#define QN_KERNEL(slot_, isa, function, ...)                                                       \
    if (!QN_LEFT_OUT(#slot_, #isa) && (cpu_flags & QN_ISA_##isa) == QN_ISA_##isa)                  \
        kernels->slot_ =                                                                           \
            (__typeof__(kernels->slot_)){.fn = function, .name = #function, __VA_ARGS__};
#include "kernel/kernels.def"
#undef QN_KERNEL
}
