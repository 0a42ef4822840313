/* Element access, dimensions, and types other than int8: packed 4 bit, 16 bit, per channel, per
 * block, codebook. */
#include "ir/graph_build.h"

#include <math.h>

static void packed_elements_keep_their_neighbours(void **state)
{
    (void)state;
    static const qn_dtype TYPES[] = {QN_DTYPE_I4, QN_DTYPE_U4, QN_DTYPE_I2, QN_DTYPE_U2};
    for (size_t t = 0; t < 4; t++) {
        uint8_t data[8];
        memset(data, 0xa5, sizeof(data));
        const uint32_t bits = qn__dtype_bits(TYPES[t]);
        const int64_t low = qn__dtype_is_signed(TYPES[t]) ? -(1 << (bits - 1)) : 0;
        const int64_t n_values = 1 << bits;
        for (size_t i = 0; i < 13; i++)
            qn__store_int(data, TYPES[t], i, low + (int64_t)(i * 5) % n_values);
        for (size_t i = 0; i < 13; i++)
            assert_int_equal(qn__load_int(data, TYPES[t], i), low + (int64_t)(i * 5) % n_values);
        assert_int_equal(data[7], 0xa5); /* past the 13th element */
    }
}

static void low_nibble_is_first(void **state)
{
    (void)state;
    const uint8_t data[2] = {0x8f, 0x07};
    assert_int_equal(qn__load_int(data, QN_DTYPE_I4, 0), -1);
    assert_int_equal(qn__load_int(data, QN_DTYPE_I4, 1), -8);
    assert_int_equal(qn__load_int(data, QN_DTYPE_I4, 2), 7);
    assert_int_equal(qn__load_int(data, QN_DTYPE_U4, 0), 15);
}

static void integers_round_trip_at_odd_addresses(void **state)
{
    (void)state;
    static const struct {
        qn_dtype dtype;
        int64_t value;
    } CASES[] = {{QN_DTYPE_I8, -128},       {QN_DTYPE_U8, 255},        {QN_DTYPE_I16, -32768},
                 {QN_DTYPE_U16, 65535},     {QN_DTYPE_I32, INT32_MIN}, {QN_DTYPE_U32, UINT32_MAX},
                 {QN_DTYPE_I64, INT64_MIN}, {QN_DTYPE_U64, INT64_MAX}, {QN_DTYPE_BOOL, 1}};
    for (size_t i = 0; i < sizeof(CASES) / sizeof(CASES[0]); i++) {
        uint8_t data[33] = {0};
        qn__store_int(data + 1, CASES[i].dtype, 2, CASES[i].value);
        assert_int_equal(qn__load_int(data + 1, CASES[i].dtype, 2), CASES[i].value);
        assert_int_equal(qn__load_int(data + 1, CASES[i].dtype, 1), 0);
        assert_int_equal(qn__load_int(data + 1, CASES[i].dtype, 3), 0);
    }
}

static void half_floats_are_read_exactly(void **state)
{
    (void)state;
    static const struct {
        uint16_t bits;
        double value;
    } HALF[] = {{0x3c00, 1.0},
                {0xc000, -2.0},
                {0x7bff, 65504.0},
                {0x0001, 5.9604644775390625e-8},
                {0x03ff, 6.097555160522461e-05},
                {0x7c00, (double)INFINITY}};
    for (size_t i = 0; i < sizeof(HALF) / sizeof(HALF[0]); i++)
        assert_true(qn__load_real(&HALF[i].bits, QN_DTYPE_F16, 0) == HALF[i].value);
    const uint16_t nan_bits = 0x7e00, bf16 = 0xc049;
    assert_true(isnan(qn__load_real(&nan_bits, QN_DTYPE_F16, 0)));
    assert_true(qn__load_real(&bf16, QN_DTYPE_BF16, 0) == -3.140625);
}

static void bytes_round_up_and_overflow_is_seen(void **state)
{
    (void)state;
    size_t bytes = 7;
    assert_true(qn__dtype_bytes(&bytes, QN_DTYPE_I4, 5));
    assert_int_equal(bytes, 3);
    assert_true(qn__dtype_bytes(&bytes, QN_DTYPE_U2, 5));
    assert_int_equal(bytes, 2);
    assert_true(qn__dtype_bytes(&bytes, QN_DTYPE_I4, SIZE_MAX));
    assert_false(qn__dtype_bytes(&bytes, QN_DTYPE_F32, SIZE_MAX / 2));
    assert_false(qn__dtype_bytes(&bytes, QN_DTYPE_NONE, 1));
}

static void dimensions_compare(void **state)
{
    (void)state;
    const char *n = "N", *m = "M";
    const qn_dim a = {QN_DIM_SYMBOL, 2, n}, b = {QN_DIM_SYMBOL, 2, m}, c = {QN_DIM_SYMBOL, 3, n};
    assert_true(qn__dim_equal(a, a));
    assert_false(qn__dim_equal(a, b));
    assert_false(qn__dim_equal(a, c));
    assert_true(qn__dim_equal(qn_dim_const(4), qn_dim_const(4)));
    assert_false(qn__dim_equal(qn_dim_unknown(), qn_dim_unknown()));
}

/* A [4, 6] weight stored in `dtype` with the given parameters; result of verify. */
static qn_status verify_weight(builder *b, qn_dtype dtype, const qn_quant *quant)
{
    uint8_t data[128] = {0};
    build_start(b);
    qn_tensor *w = build_const(b, "w", dtype, data, DIMS(4, 6));
    w->type = qn_type_quant_make(dtype, qn__graph_quant(b->graph, quant));
    return qn__graph_verify(b->graph, &b->error);
}

static void every_kind_of_parameters_has_its_count(void **state)
{
    (void)state;
    static const float scales[24] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
                                     1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    static const float codebook[16] = {-1.0f, -0.7f, -0.5f, -0.4f, -0.3f, -0.2f, -0.1f, 0.0f,
                                       0.08f, 0.16f, 0.25f, 0.34f, 0.44f, 0.56f, 0.72f, 1.0f};
    const struct {
        qn_dtype dtype;
        uint8_t bits;
        int8_t axis;
        int64_t block;
        int32_t qmin, qmax;
        size_t n_codebook, expected;
    } cases[] = {
        {QN_DTYPE_I4, 4, -1, 0, -8, 7, 0, 1}, /* packed, per tensor */
        {QN_DTYPE_I16, 16, 0, 0, -32767, 32767, 0, 4},
        {QN_DTYPE_I8, 8, 1, 0, -127, 127, 0, 6}, /* per channel */
        {QN_DTYPE_I8, 7, 0, 0, -64, 63, 0, 4},   /* fewer bits than stored */
        {QN_DTYPE_I4, 4, 1, 4, -8, 7, 0, 8},     /* blocks of 4 and 2 in 4 rows */
        {QN_DTYPE_I4, 4, 0, 3, -8, 7, 0, 12},
        {QN_DTYPE_I4, 4, 1, 6, -8, 7, 16, 4}, /* codebook of 16 with a scale per row */
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        for (size_t n = cases[i].expected - 1; n <= cases[i].expected + 1; n++) {
            builder b;
            const qn_quant quant = {.bits = cases[i].bits,
                                    .is_signed = true,
                                    .axis = cases[i].axis,
                                    .block = cases[i].block,
                                    .qmin = cases[i].qmin,
                                    .qmax = cases[i].qmax,
                                    .n_scales = n,
                                    .scales = scales,
                                    .n_codebook = cases[i].n_codebook,
                                    .codebook = cases[i].n_codebook > 0 ? codebook : NULL};
            const qn_status status = verify_weight(&b, cases[i].dtype, &quant);
            assert_int_equal(status, n == cases[i].expected ? QN_OK : QN_CORRUPT);
            if (status != QN_OK)
                assert_non_null(strstr(b.error.message, "\"w\""));
            build_end(&b);
        }
    }
}

static void bad_parameters_are_refused(void **state)
{
    (void)state;
    float scale = 1;
    int32_t zero = 0;
    const qn_quant good = {.bits = 8,
                           .is_signed = true,
                           .axis = -1,
                           .qmin = -128,
                           .qmax = 127,
                           .n_scales = 1,
                           .scales = &scale,
                           .zero_points = &zero};
    builder b;
    assert_int_equal(verify_weight(&b, QN_DTYPE_I8, &good), QN_OK);
    build_end(&b);
    static const float BAD_SCALES[] = {0.0f, -1.0f, NAN, INFINITY};
    for (size_t i = 0; i < 4; i++) {
        scale = BAD_SCALES[i];
        assert_int_equal(verify_weight(&b, QN_DTYPE_I8, &good), QN_CORRUPT);
        build_end(&b);
    }
    scale = 1;
    zero = 128;
    assert_fails(&b, verify_weight(&b, QN_DTYPE_I8, &good), QN_CORRUPT, "zero point 0 of 128");
    build_end(&b);
    zero = 0;
    qn_quant bad = good;
    bad.bits = 1;
    assert_int_equal(verify_weight(&b, QN_DTYPE_I8, &bad), QN_CORRUPT);
    build_end(&b);
    assert_fails(&b, verify_weight(&b, QN_DTYPE_I4, &good), QN_CORRUPT, "stored as int4");
    build_end(&b);
    assert_fails(&b, verify_weight(&b, QN_DTYPE_F32, &good), QN_CORRUPT, "float32");
    build_end(&b);
    bad = good;
    bad.axis = 2;
    assert_fails(&b, verify_weight(&b, QN_DTYPE_I8, &bad), QN_CORRUPT, "axis 2");
    build_end(&b);
    bad = good;
    bad.qmax = 200;
    assert_int_equal(verify_weight(&b, QN_DTYPE_I8, &bad), QN_CORRUPT);
    build_end(&b);
    static const float short_book[3] = {0, 1, 2};
    bad = good;
    bad.codebook = short_book;
    bad.n_codebook = 3;
    assert_fails(&b, verify_weight(&b, QN_DTYPE_I8, &bad), QN_CORRUPT, "codebook of 3");
    build_end(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(packed_elements_keep_their_neighbours),
        cmocka_unit_test(low_nibble_is_first),
        cmocka_unit_test(integers_round_trip_at_odd_addresses),
        cmocka_unit_test(half_floats_are_read_exactly),
        cmocka_unit_test(bytes_round_up_and_overflow_is_seen),
        cmocka_unit_test(dimensions_compare),
        cmocka_unit_test(every_kind_of_parameters_has_its_count),
        cmocka_unit_test(bad_parameters_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
