// Preload that makes a CPU look smaller than it is, for programs which choose kernels by CPUID.
//
// With arch_prctl(ARCH_SET_CPUID, 0) Linux makes every CPUID instruction of the thread fault, on
// CPUs that can ("cpuid_fault" in /proc/cpuinfo). The SIGSEGV handler below executes the
// instruction on the program's behalf and clears the feature bits above the level that
// QN_MASK_ISA names:
//
//     vnni     no AMX
//     avx512   no VNNI, no AMX: AVX-512 F/CD/BW/DQ/VL stay
//     avx2     no AVX-512, VNNI or AMX in any form: AVX2, FMA and F16C stay
//     sse4     no AVX at all
//
// The work itself runs at native speed; only CPUID is slow. Nothing prevents a program from
// executing a hidden instruction: this hides features, it does not remove them.
//
// The mode is inherited by threads and fork, ends at exec (where the preload sets it again), and
// does not reach static programs. A program that cannot be masked does not run: it exits with 126,
// because a measurement under the wrong name is worse than none.

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#if !defined(__x86_64__) || !defined(__GLIBC__)
#error "cpuid_mask needs x86-64 Linux with glibc"
#endif

#define ARCH_SET_CPUID 0x1012
#define BIT(n) (UINT32_C(1) << (n))

enum { EAX, EBX, ECX, EDX, N_REGS };

typedef struct {
    uint32_t leaf, subleaf;
    uint32_t clear[N_REGS];
} cpuid_rule;

// Intel SDM volume 2, CPUID; leaf 7 unless noted.
#define AVX512_BASE_B (BIT(16) | BIT(17) | BIT(28) | BIT(30) | BIT(31)) // F DQ CD BW VL
#define AVX512_MORE_B (BIT(21) | BIT(26) | BIT(27))                     // IFMA PF ER
#define AVX512_MORE_C (BIT(1) | BIT(6) | BIT(12) | BIT(14))             // VBMI VBMI2 BITALG POPCNT
#define AVX512_VNNI_C BIT(11)
#define AVX512_MORE_D (BIT(2) | BIT(3) | BIT(8) | BIT(23)) // 4VNNIW 4FMAPS VP2INTERSECT FP16
#define AMX_D (BIT(22) | BIT(24) | BIT(25))                // BF16 TILE INT8
#define VNNI_1A (BIT(4) | BIT(23))                         // 7.1: AVX-VNNI AVX-IFMA
#define AVX512_1A BIT(5)                                   // 7.1: AVX512-BF16
#define AMX_1A BIT(21)                                     // 7.1: AMX-FP16
#define VNNI_1D (BIT(4) | BIT(5) | BIT(10))                // 7.1: VNNI-INT8 NE-CONVERT VNNI-INT16
#define AMX_1D BIT(8)                                      // 7.1: AMX-COMPLEX
#define AVX10_1D BIT(19)                                   // 7.1: AVX10
#define AVX_1C (BIT(12) | BIT(28) | BIT(29))               // leaf 1: FMA AVX F16C
#define VEX_7C (BIT(9) | BIT(10))                          // VAES VPCLMULQDQ
#define FMA4_XOP_C (BIT(11) | BIT(16))                     // 80000001h, AMD

#define ALL_LEAF7                                                                                  \
    {                                                                                              \
        7, 0,                                                                                      \
        {                                                                                          \
            0, AVX512_BASE_B | AVX512_MORE_B, AVX512_MORE_C | AVX512_VNNI_C, AVX512_MORE_D | AMX_D \
        }                                                                                          \
    }
#define ALL_LEAF7_1                                                                                \
    {                                                                                              \
        7, 1,                                                                                      \
        {                                                                                          \
            VNNI_1A | AVX512_1A | AMX_1A, 0, 0, VNNI_1D | AMX_1D | AVX10_1D                        \
        }                                                                                          \
    }

static const cpuid_rule rules_vnni[] = {
    {7, 0, {0, 0, 0, AMX_D}},
    {7, 1, {AMX_1A, 0, 0, AMX_1D | AVX10_1D}},
    {0},
};
static const cpuid_rule rules_avx512[] = {
    {7, 0, {0, 0, AVX512_VNNI_C, AMX_D}},
    {7, 1, {VNNI_1A | AMX_1A, 0, 0, VNNI_1D | AMX_1D | AVX10_1D}},
    {0},
};
static const cpuid_rule rules_avx2[] = {ALL_LEAF7, ALL_LEAF7_1, {0}};
static const cpuid_rule rules_sse4[] = {
    ALL_LEAF7,
    ALL_LEAF7_1,
    {1, 0, {0, 0, AVX_1C, 0}},
    {7, 0, {0, BIT(5), VEX_7C, 0}}, // AVX2
    {0x80000001, 0, {0, 0, FMA4_XOP_C, 0}},
    {0},
};

static const struct {
    const char *name;
    const cpuid_rule *rules;
} levels[] = {
    {"vnni", rules_vnni}, {"avx512", rules_avx512}, {"avx2", rules_avx2}, {"sse4", rules_sse4}};

// Leaves that only describe what is hidden: AMX tiles and tile multiplication, AVX10.
static const uint32_t empty_leaves[] = {0x1d, 0x1e, 0x24};

static const cpuid_rule *active_rules;
static struct sigaction program_action; // what the program asked for SIGSEGV; starts as SIG_DFL

// glibc's own entry, so that neither interposer below needs dlsym before start-up is complete.
extern int __sigaction(int signo, const struct sigaction *action, struct sigaction *old);

static long set_cpuid_enabled(unsigned long enabled)
{
    return syscall(SYS_arch_prctl, ARCH_SET_CPUID, enabled);
}

static void masked_cpuid(uint32_t leaf, uint32_t subleaf, uint32_t reg[N_REGS])
{
    set_cpuid_enabled(1); // this thread only
    __asm__ volatile("cpuid"
                     : "=a"(reg[EAX]), "=b"(reg[EBX]), "=c"(reg[ECX]), "=d"(reg[EDX])
                     : "a"(leaf), "c"(subleaf));
    set_cpuid_enabled(0);
    for (size_t i = 0; i < sizeof empty_leaves / sizeof *empty_leaves; i++)
        if (leaf == empty_leaves[i])
            memset(reg, 0, N_REGS * sizeof *reg);
    for (const cpuid_rule *r = active_rules; r->leaf; r++)
        if (r->leaf == leaf && (leaf != 7 || r->subleaf == subleaf))
            for (int i = 0; i < N_REGS; i++)
                reg[i] &= ~r->clear[i];
}

static bool emulate_cpuid(greg_t *gregs)
{
    const unsigned char *const ip = (const unsigned char *)gregs[REG_RIP];
    if (ip[0] != 0x0f || ip[1] != 0xa2)
        return false;
    uint32_t reg[N_REGS];
    masked_cpuid((uint32_t)gregs[REG_RAX], (uint32_t)gregs[REG_RCX], reg);
    gregs[REG_RAX] = reg[EAX];
    gregs[REG_RBX] = reg[EBX];
    gregs[REG_RCX] = reg[ECX];
    gregs[REG_RDX] = reg[EDX];
    gregs[REG_RIP] += 2;
    return true;
}

static void forward_to_program(int signo, siginfo_t *info, void *context)
{
    if (program_action.sa_flags & SA_SIGINFO) {
        program_action.sa_sigaction(signo, info, context);
    } else if (program_action.sa_handler == SIG_DFL || program_action.sa_handler == SIG_IGN) {
        // Blocked while we are here, so it ends the program on return, with the right status.
        struct sigaction fatal = {.sa_handler = SIG_DFL};
        __sigaction(signo, &fatal, NULL);
        raise(signo);
    } else {
        program_action.sa_handler(signo);
    }
}

static void on_segv(int signo, siginfo_t *info, void *context)
{
    const int saved_errno = errno;
    // CPUID faulting is a general protection fault: SI_KERNEL. A bad address is SEGV_*, and then
    // the bytes at RIP need not even be readable.
    const bool done =
        info->si_code == SI_KERNEL && emulate_cpuid(((ucontext_t *)context)->uc_mcontext.gregs);
    errno = saved_errno;
    if (!done)
        forward_to_program(signo, info, context);
}

// Programs that install a SIGSEGV handler (Python's faulthandler, sanitizers) must not take ours
// away: theirs is remembered and called for every fault that is not a CPUID.
int sigaction(int signo, const struct sigaction *restrict action, struct sigaction *restrict old)
{
    if (signo != SIGSEGV || !active_rules)
        return __sigaction(signo, action, old);
    const struct sigaction previous = program_action;
    if (action)
        program_action = *action;
    if (old)
        *old = previous;
    return 0;
}

sighandler_t signal(int signo, sighandler_t handler)
{
    const struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
    struct sigaction old;
    return sigaction(signo, &action, &old) ? SIG_ERR : old.sa_handler;
}

static void refuse(const char *why)
{
    const char *const parts[] = {"error: cpuid_mask: ", why, "\n"};
    for (size_t i = 0; i < 3; i++)
        if (write(STDERR_FILENO, parts[i], strlen(parts[i])) < 0)
            break;
    _exit(126);
}

static const char *wanted_level(char **envp)
{
    static const char key[] = "QN_MASK_ISA=";
    for (; *envp; envp++)
        if (!strncmp(*envp, key, sizeof key - 1))
            return *envp + sizeof key - 1;
    return NULL;
}

// Linked with -z initfirst: later constructors (libgcc's CPU model, for one) see the mask. libc's
// own have not run either, so getenv knows nothing yet; the loader hands over the environment.
__attribute__((constructor)) static void start(int argc, char **argv, char **envp)
{
    (void)argc, (void)argv;
    const char *const wanted = wanted_level(envp);
    if (!wanted || !*wanted)
        return;
    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++)
        if (!strcmp(wanted, levels[i].name))
            active_rules = levels[i].rules;
    if (!active_rules)
        refuse("QN_MASK_ISA must be vnni, avx512, avx2 or sse4");
    struct sigaction ours = {.sa_sigaction = on_segv, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    if (__sigaction(SIGSEGV, &ours, NULL))
        refuse("SIGSEGV cannot be handled");
    if (set_cpuid_enabled(0))
        refuse("this CPU or kernel has no CPUID faulting");
}
