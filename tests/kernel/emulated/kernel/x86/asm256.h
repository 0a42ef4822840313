/* Stands in for src/kernel/x86/asm256.h where kernels are emulated. */
#ifndef QN_KERNEL_X86_ASM256_H
#define QN_KERNEL_X86_ASM256_H

#include "multiply_add.h"

EMULATED_MULTIPLY_ADD(256, __m256i)
#endif
