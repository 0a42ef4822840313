#include "kernel/split.h"

const qn_split_igemm *qn__split_igemm(uint32_t cpu_flags)
{
#ifdef QN_HAVE_X86
    static const qn_split_igemm amx = {.kernel = {.fn = qn__split_igemm_32x32_amx,
                                                  .mr = 32,
                                                  .nr = 16,
                                                  .name = "qn__split_igemm_32x32_amx",
                                                  .repack = qn__split_repack_amx},
                                       .takes = qn__split_takes_amx};
    if ((cpu_flags & QN_ISA_amx) == QN_ISA_amx)
        return &amx;
#endif
    (void)cpu_flags;
    return NULL;
}
