/* Convolutions by Winograd's algorithm in whole networks: the bytes of the simulation for all
 * paddings, sizes that leave tiles incomplete, several pictures and threads; and what is left to
 * the GEMM. */
#include "plan_fault.h"
#include "q8_net.h"

typedef struct layer {
    int64_t c, oc, h, w, n;
    int64_t pads[4]; /* top, left, bottom, right */
    bool by_gemm;    /* whatever the machine */
    int8_t weight;   /* all of them; 0: any */
} layer;

static bool has_avx2(void)
{
    return (qn__cpu_detect() & QN_CPU_AVX2) != 0;
}

/* The machine's, no more than so much. */
static uint32_t flags_of(const char *mask)
{
    uint32_t flags = qn__cpu_detect();
    assert_true(qn__cpu_mask(&flags, mask));
    return flags;
}

static sample *sample_of(const layer *l, uint64_t seed, qn_requantize kind, bool is_signed)
{
    sample *const s = sample_start(seed);
    s->kind = kind;
    net *const n = s->n;
    const int64_t x[4] = {l->n, l->c, l->h, l->w}, w[4] = {l->oc, l->c, 3, 3};
    const int32_t zeros[] = {0, 128, 255, (int32_t)between(0, 255)};
    const int32_t zero = zeros[seed % 4] - (is_signed ? 128 : 0);
    size_t count = 0;
    assert_true(qn_shape_count(&count, x, 4) && count <= MAX_IN);
    /* Most bytes are at an end. */
    for (size_t i = 0; i < count; i++) {
        const int64_t at = net_random(3) == 0 ? between(0, 255) : net_random(3) == 0 ? 0 : 255;
        s->x[i] = (float)(at - (is_signed ? 128 : 0) - zero) * 0.02f;
    }
    qn_tensor *const q =
        NODE(&n->b, QUANTIZE_LINEAR, "q", net_input(n, s->x, net_random(2) != 0, 4, x));
    q->type = net_quant(n, is_signed ? QN_DTYPE_I8 : QN_DTYPE_U8, 0.02f, zero);
    qn_tensor *in[3] = {q, NULL, NULL};
    assert_true(qn_shape_count(&count, w, 4) && count <= MAX_W);
    for (size_t i = 0; i < count; i++)
        s->w[i] = l->weight != 0 ? l->weight : (int8_t)between(-128, 127);
    in[1] = build_const(&n->b, "w", QN_DTYPE_I8, s->w, 4, w);
    in[1]->type = net_quant(n, QN_DTYPE_I8, 0.006f, 0);
    const bool has_bias = net_random(4) != 0;
    if (has_bias)
        in[2] = int_bias(s, (size_t)l->oc);
    qn_tensor *const y = build_node(&n->b, QN_OP_CONV, "y", has_bias ? 3 : 2, in);
    set_ints(&n->b, y, "pads", 4, l->pads);
    finish(s, y, (size_t)l->c * 9, l->weight != 0 ? 0.3f : 0.02f);
    return s;
}

/* Expects the simulation's bytes with one to seven threads; with AVX2 by Winograd's algorithm or
 * not, with VNNI however it likes. */
static void check(sample *s, size_t index, bool by_winograd)
{
    static const uint32_t threads[] = {1, 2, 3, 7};
    static const char *const names[] = {"avx2", "avxvnni"};
    size_t bytes = 0, got_bytes = 0;
    char kernel[64];
    uint8_t *const expected = q8_reference(s, false, &bytes, kernel);
    qn_plan_options options;
    qn__plan_options_init(&options, s->n->b.ctx);
    options.requantize = s->kind;
    for (size_t t = 0; t < 2 * sizeof(threads) / sizeof(threads[0]); t++) {
        options.cpu_flags = flags_of(names[t % 2]);
        uint8_t *const got = run_sample(s, &options, threads[t / 2], &got_bytes, kernel);
        if (t % 2 == 0 && (strstr(kernel, "winograd") != NULL) != by_winograd)
            fail_msg("case %zu ran by %s", index, kernel);
        expect_same(got, got_bytes, expected, bytes, index, kernel, threads[t / 2]);
        free(got);
    }
    free(expected);
}

static void bytes_are_the_simulation(void **state)
{
    (void)state;
    static const layer layers[] = {
        {16, 16, 8, 8, 1, {1, 1, 1, 1}, false, 0},
        {16, 32, 32, 29, 1, {1, 1, 1, 1}, false, 0},
        {32, 16, 17, 16, 3, {1, 1, 1, 1}, false, 0},
        {32, 64, 7, 7, 2, {1, 1, 1, 1}, false, 0},
        {48, 48, 10, 11, 1, {0, 0, 0, 0}, false, 0},
        {64, 48, 9, 30, 1, {0, 1, 2, 0}, false, 0},
        {16, 16, 5, 6, 1, {2, 2, 2, 2}, false, 0},
        {16, 80, 21, 4, 1, {5, 0, 1, 7}, false, 0},
        {80, 16, 14, 14, 1, {1, 1, 1, 1}, false, 0},
        {112, 32, 13, 9, 2, {1, 1, 1, 1}, false, 0},
        {128, 16, 14, 14, 1, {1, 1, 1, 1}, false, 0},
        {16, 128, 23, 25, 2, {1, 0, 1, 2}, false, 0},
        {96, 16, 4, 4, 1, {1, 1, 1, 1}, false, 0},
        {16, 16, 3, 40, 1, {1, 1, 1, 1}, false, 0},
        /* The largest weights that may be, and larger ones. */
        {112, 16, 8, 8, 1, {1, 1, 1, 1}, false, 127},
        {112, 16, 8, 8, 1, {1, 1, 1, 1}, false, -128},
        {128, 16, 8, 8, 1, {1, 1, 1, 1}, true, 127},
        {128, 16, 8, 8, 1, {1, 1, 1, 1}, true, -128},
        /* Too few outputs in a tile; too many channels, and numbers of them that are no
         * multiples of 16. */
        {16, 16, 5, 5, 1, {1, 1, 1, 1}, true, 0},
        {16, 16, 1, 40, 1, {1, 1, 1, 1}, true, 0},
        {24, 16, 8, 8, 1, {1, 1, 1, 1}, true, 0},
        {16, 20, 8, 8, 1, {1, 1, 1, 1}, true, 0},
        {144, 16, 8, 8, 1, {1, 1, 1, 1}, true, 0},
    };
    for (size_t i = 0; i < sizeof(layers) / sizeof(layers[0]) * 4; i++) {
        const layer *const l = &layers[i / 4];
        sample *const s = sample_of(l, 100 + i, QN_REQUANTIZE_DEFAULT, false);
        const bool floats = s->y->type.kind != QN_TYPE_QUANT;
        check(s, i, has_avx2() && !l->by_gemm && !floats);
        sample_free(s);
    }
}

static void other_formats_are_the_gemm(void **state)
{
    (void)state;
    static const layer l = {16, 32, 9, 12, 1, {1, 1, 1, 1}, false, 0};
    for (size_t k = 0; k < N_KINDS; k++)
        for (size_t i = 0; i < 8; i++) {
            const bool is_signed = i % 2 != 0;
            sample *const s = sample_of(&l, 40 + i, KINDS[k], is_signed);
            const bool floats = s->y->type.kind != QN_TYPE_QUANT;
            check(s, i, has_avx2() && !is_signed && k == 0 && !floats);
            sample_free(s);
        }
}

/* Parts of a Concat are written where they belong: rows of channels with a pitch. */
static void outputs_are_joined(void **state)
{
    (void)state;
    for (int with = 0; with < 2; with++) {
        sample *const s = sample_start(77);
        builder *const b = &s->n->b;
        const int64_t x[4] = {1, 16, 9, 10}, w[4] = {16, 16, 3, 3}, pads[4] = {1, 1, 1, 1};
        for (size_t i = 0; i < 16 * 9 * 10; i++)
            s->x[i] = (float)between(0, 255) * 0.02f;
        qn_tensor *const q = NODE(b, QUANTIZE_LINEAR, "q", net_input(s->n, s->x, true, 4, x));
        q->type = net_quant(s->n, QN_DTYPE_U8, 0.02f, 0);
        for (size_t i = 0; i < 16 * 16 * 9; i++)
            s->w[i] = (int8_t)between(-128, 127);
        qn_tensor *parts[2];
        for (size_t i = 0; i < 2; i++) {
            qn_tensor *const weight = build_const(b, i == 0 ? "w0" : "w1", QN_DTYPE_I8, s->w, 4, w);
            weight->type = net_quant(s->n, QN_DTYPE_I8, 0.006f, 0);
            parts[i] = NODE(b, CONV, i == 0 ? "y0" : "y1", q, weight);
            set_ints(b, parts[i], "pads", 4, pads);
            parts[i]->type = net_quant(s->n, QN_DTYPE_U8, 0.5f, 100);
        }
        s->y = build_node(b, QN_OP_CONCAT, "y", 2, parts);
        set_int(b, s->y, "axis", 1);
        s->y->type = parts[0]->type;
        build_output(b, s->y);
        size_t bytes = 0, got_bytes = 0;
        char kernel[64];
        uint8_t *const expected = q8_reference(s, false, &bytes, kernel);
        qn_plan_options options;
        qn__plan_options_init(&options, b->ctx);
        options.cpu_flags = flags_of("avx2");
        options.keep_all = with != 0;
        uint8_t *const got = run_sample(s, &options, 2, &got_bytes, kernel);
        expect_same(got, got_bytes, expected, bytes, (size_t)with, kernel, 2);
        free(expected), free(got);
        sample_free(s);
    }
}

/* Every allocation of planning fails once, running allocates nothing. */
static void planning_survives_lack_of_memory(void **state)
{
    (void)state;
    for (int deep = 0; deep < 2; deep++) {
        fault f = {0};
        sample *const s = sample_on(plan_fault_net(&f));
        builder *const b = &s->n->b;
        const int64_t c = deep ? 128 : 16, x[4] = {1, c, 6, 6}, w[4] = {16, c, 3, 3};
        const int64_t pads[4] = {1, 1, 1, 1};
        qn_tensor *const q = NODE(b, QUANTIZE_LINEAR, "q", net_input(s->n, s->x, false, 4, x));
        q->type = net_quant(s->n, QN_DTYPE_U8, 0.02f, 3);
        for (int64_t i = 0; i < 16 * c * 9; i++)
            s->w[i] = (int8_t)between(-128, 127);
        qn_tensor *const weight = build_const(b, "w", QN_DTYPE_I8, s->w, 4, w);
        weight->type = net_quant(s->n, QN_DTYPE_I8, 0.005f, 0);
        qn_tensor *const y = NODE(b, CONV, "y", q, weight);
        set_ints(b, y, "pads", 4, pads);
        y->type = net_quant(s->n, QN_DTYPE_U8, 0.3f, 7);
        build_output(b, y);
        qn_plan_options options;
        qn__plan_options_init(&options, b->ctx);
        options.cpu_flags = flags_of("avx2");
        const void *const inputs[1] = {s->x};
        plan_fault_sweep_as(&f, b, &options, inputs, 12);
        free(s->n);
        free(s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_are_the_simulation),
        cmocka_unit_test(other_formats_are_the_gemm),
        cmocka_unit_test(outputs_are_joined),
        cmocka_unit_test(planning_survives_lack_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
