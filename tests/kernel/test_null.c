/* Kernels that do nothing stand in for all that a run calls, and for nothing else. */
#include "kernel/null.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* Slots that running does not call: calibration, pictures, measuring the limit. */
static bool runs(const char *slot)
{
    static const char *const OTHERS[] = {"f32_range",  "f32_round", "f32_sums",
                                         "u8_columns", "u8_pixels", "q8_peak"};
    for (size_t i = 0; i < sizeof(OTHERS) / sizeof(OTHERS[0]); i++)
        if (strcmp(slot, OTHERS[i]) == 0)
            return false;
    return true;
}

static void replaces_what_runs(void **state)
{
    (void)state;
    qn_kernels best, null;
    qn__kernels_init(&best, qn__cpu_detect());
    null = best;
    qn__kernels_null(&null);
#define QN_KERNEL_SLOT(slot, type)                                                                 \
    if ((best.slot.fn != null.slot.fn) != runs(#slot))                                             \
        fail_msg("%s: %s", #slot, runs(#slot) ? "not replaced" : "replaced");                      \
    assert_string_equal(best.slot.name, null.slot.name);
#include "kernel/slots.def"
#undef QN_KERNEL_SLOT
    assert_int_equal(best.q8_igemm.mr, null.q8_igemm.mr);
    assert_int_equal(best.q8_igemm.nr, null.q8_igemm.nr);
    assert_ptr_equal(best.q8_igemm.pairs, null.q8_igemm.pairs);
    assert_ptr_equal(best.q8_igemm.spaced, null.q8_igemm.spaced);
    assert_int_equal(best.f32_ints.expand == NULL, null.f32_ints.expand == NULL);
}

static void writes_nothing(void **state)
{
    (void)state;
    qn_kernels null;
    qn__kernels_init(&null, 0);
    qn__kernels_null(&null);
    uint8_t out[64], expected[64], in[64] = {0};
    const uint8_t table[256] = {0};
    memset(out, 0xA5, sizeof(out));
    memcpy(expected, out, sizeof(out));
    const uint8_t *rows[4] = {in, in, in, in};
    const qn_q8_out format = {.hi = 255};
    null.q8_igemm.fn(4, 4, 4, 1, rows, 0, true, in, out, 4, &format);
    null.q8_table.fn(table, in, out, sizeof(out));
    null.f32_exp.fn((const float *)(const void *)in, (float *)(void *)out, 16);
    const qn_q8_quantize_args quantize = {.n = 16, .channels = 1, .dst = out, .scale = 1.0f};
    null.q8_quantize.fn(&quantize);
    assert_memory_equal(out, expected, sizeof(out));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(replaces_what_runs),
        cmocka_unit_test(writes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
