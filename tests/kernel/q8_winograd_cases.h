/* Convolution by Winograd's algorithm: the bytes of loops over the windows in 64 bits, transformed
 * inputs equal to the reference's, and nothing written beside outputs. */
#ifndef QN_TESTS_KERNEL_Q8_WINOGRAD_CASES_H
#define QN_TESTS_KERNEL_Q8_WINOGRAD_CASES_H

enum { WINO_MAX_TILES = 26, WINO_MAX_CHANNELS = 256, WINO_MAX_N = 48 };

/* Weights of kind 0 to 2: any, of one sign and the largest, and such that sums of windows of 255
 * come as near to 2^25 as they may. */
static void wino_weights(int8_t *w, size_t n, size_t k, int kind)
{
    int32_t left = 0;
    for (size_t i = 0; i < n * k; i++) {
        if (i % k == 0)
            left = ((1 << 25) - 1) / 255;
        const int8_t sign = kind == 2 && i / k % 2 ? -1 : 1;
        w[i] = (int8_t)rng();
        if (kind == 1)
            w[i] = i / k % 2 ? -128 : 127;
        if (kind != 0 && (kind == 2 || k * 128 * 255 >= 1 << 25)) {
            w[i] = (int8_t)(sign * (left < 127 ? left : 127));
            left -= left < 127 ? left : 127;
        }
    }
}

typedef struct wino_problem {
    size_t tiles, channels, n, stride;
    qn_q8_winograd_tile tile[WINO_MAX_TILES];
    uint8_t *zeros;
    int8_t *w;
    int32_t *base;
    float *scale;
    int32_t zero;
    qn_q8_out out;
    void *packed;
} wino_problem;

static void wino_run(const qn_q8_winograd *kernel, const wino_problem *p, int16_t *v,
                     uint8_t *memory, size_t bytes)
{
    qn_q8_winograd_tile tile[WINO_MAX_TILES];
    for (size_t t = 0; t < p->tiles; t++) {
        tile[t] = p->tile[t];
        tile[t].out = memory + 16 + t * QN_WINOGRAD_OUT * p->stride;
    }
    memset(memory, 0xA5, bytes);
    const qn_q8_winograd_args args = {.tiles = p->tiles,
                                      .channels = p->channels,
                                      .n = p->n,
                                      .tile = tile,
                                      .zeros = p->zeros,
                                      .out_row = 4 * p->stride,
                                      .out_step = p->stride,
                                      .w = p->packed,
                                      .v = v,
                                      .v_step = qn_q8_winograd_step(p->tiles, p->channels),
                                      .format = &p->out};
    kernel->inputs(&args);
    kernel->fn(&args);
    n_checks++;
}

/* Channels of pixel j of row i of a tile. */
static const uint8_t *wino_pixel(const wino_problem *p, size_t t, size_t i, size_t j)
{
    const qn_q8_winograd_tile *const tile = p->tile + t;
    return j >= tile->left && j < tile->right ? tile->in[i] + (j - tile->left) * p->channels
                                              : p->zeros;
}

static void wino_check(const qn_q8_winograd *kernel, const wino_problem *p, const char *what,
                       const uint8_t *memory, size_t bytes)
{
    uint8_t *const expected = need(malloc(bytes));
    memset(expected, 0xA5, bytes);
    const size_t c = p->channels;
    for (size_t t = 0; t < p->tiles; t++)
        for (size_t o = 0; o < QN_WINOGRAD_OUT; o++)
            for (size_t n = 0; n < p->n; n++) {
                if (o / 4 >= p->tile[t].rows || o % 4 >= p->tile[t].columns)
                    continue;
                int64_t sum = 0;
                for (size_t i = 0; i < 3; i++)
                    for (size_t j = 0; j < 3; j++) {
                        const uint8_t *const u = wino_pixel(p, t, o / 4 + i, o % 4 + j);
                        for (size_t k = 0; k < c; k++)
                            sum += (u[k] - p->zero) * p->w[(n * c + k) * 9 + i * 3 + j];
                    }
                const double value = q8_expected(sum + p->base[n], p->scale[n], &p->out);
                expected[16 + (t * QN_WINOGRAD_OUT + o) * p->stride + n] = (uint8_t)(int)value;
            }
    if (memcmp(expected, memory, bytes) != 0) {
        printf("FAILED %s: %zu tiles, %zu channels, %zu columns, %s\n", kernel->name, p->tiles, c,
               p->n, what);
        exit(1);
    }
    free(expected);
}

static void wino_case(const qn_q8_winograd *kernel, const qn_q8_winograd *reference, size_t tiles,
                      size_t channels, size_t n, int kind)
{
    static const char *const kinds[] = {"any", "largest weights", "largest sums"};
    guard_used = 0;
    const size_t k = channels * 9, rows = 40;
    const q8_class inputs = kind == 0 ? Q8_RANDOM : Q8_WORST;
    wino_problem p = {.tiles = tiles,
                      .channels = channels,
                      .n = n,
                      .stride = n + rng() % 3,
                      .base = q8_bases(n, Q8_RANDOM),
                      .scale = q8_scales(n, k, Q8_RANDOM),
                      .zero = (int32_t[]){0, 128, 255}[rng() % 3],
                      .out = q8_out(Q8_TIES),
                      .w = need(malloc(n * k))};
    const uint8_t *slots[40];
    for (size_t i = 0; i < rows; i++) {
        uint8_t *const bytes = q8_activations(6 * channels, inputs);
        if (kind == 2 && i != 0)
            memset(bytes, 255, 6 * channels);
        slots[i] = bytes;
    }
    p.zeros = q8_activations(6 * channels, inputs);
    memset(p.zeros, p.zero, 6 * channels);
    for (size_t t = 0; t < tiles; t++) {
        qn_q8_winograd_tile *const tile = p.tile + t;
        const bool whole = rng() % 2 != 0;
        tile->left = (uint8_t)(whole ? 0 : rng() % 7);
        tile->right = (uint8_t)(whole ? 6 : tile->left + rng() % (7u - tile->left));
        tile->rows = (uint8_t)(whole ? 4 : 1 + rng() % 4);
        tile->columns = (uint8_t)(whole ? 4 : 1 + rng() % 4);
        for (size_t i = 0; i < 6; i++) /* up to the end of what may be read */
            tile->in[i] = slots[kind == 2 && rng() % 16 != 0 ? 1 : rng() % rows] +
                          (size_t)(6 - tile->right + tile->left) * channels;
    }
    wino_weights(p.w, n, k, kind);
    const size_t panels = n / QN_WINOGRAD_CHANNELS * qn_q8_winograd_panel_bytes(channels);
    const size_t values = QN_WINOGRAD_IN * qn_q8_winograd_step(tiles, channels);
    const size_t bytes = 32 + tiles * QN_WINOGRAD_OUT * p.stride;
    p.packed = need(aligned_alloc(64, panels));
    int16_t *const v = need(aligned_alloc(64, values * 2));
    int16_t *const v_reference = need(aligned_alloc(64, values * 2));
    uint8_t *const memory = need(malloc(bytes));
    if (!qn__q8_winograd_pack(p.packed, p.w, n, channels, p.base, p.zero, p.scale)) {
        printf("FAILED packing for Winograd: %zu channels, %s\n", channels, kinds[kind]);
        exit(1);
    }
    memset(v, 0x3C, values * 2);
    memset(v_reference, 0x3C, values * 2);
    wino_run(kernel, &p, v, memory, bytes);
    wino_check(kernel, &p, kinds[kind], memory, bytes);
    wino_run(reference, &p, v_reference, memory, bytes);
    wino_check(reference, &p, kinds[kind], memory, bytes);
    if (memcmp(v, v_reference, values * 2) != 0) {
        printf("FAILED %s: transformed inputs differ\n", kernel->name);
        exit(1);
    }
    free(p.w), free(p.packed), free(v), free(v_reference), free(memory);
}

/* Sums just below 2^25 are packed, above it or below the negative bound not. */
static void wino_bounds(void)
{
    enum { CHANNELS = 128, COLUMNS = 16, K = CHANNELS * 9 };
    static int8_t w[COLUMNS * K];
    static const float scale[COLUMNS];
    void *const packed = need(aligned_alloc(64, qn_q8_winograd_panel_bytes(CHANNELS)));
    for (int sign = -1; sign <= 1; sign += 2)
        for (int over = 0; over < 2; over++) {
            int32_t left = ((1 << 25) - 1) / 255 + over;
            memset(w, 0, sizeof(w));
            for (size_t i = 0; i < K; i++) {
                w[5 * K + i] = (int8_t)(sign * (left < 127 ? left : 127));
                left -= left < 127 ? left : 127;
            }
            n_checks++;
            if (qn__q8_winograd_pack(packed, w, COLUMNS, CHANNELS, NULL, 3, scale) != !over) {
                printf("FAILED packing for Winograd at its bound: %d, %d over\n", sign, over);
                exit(1);
            }
        }
    free(packed);
}

static void test_q8_winograd(const qn_q8_winograd *kernel, const qn_q8_winograd *reference)
{
    wino_bounds();
    for (size_t tiles = 1; tiles <= WINO_MAX_TILES; tiles++)
        for (size_t channels = 16; channels <= 48; channels += 16)
            for (int kind = 0; kind < 3; kind++)
                wino_case(kernel, reference, tiles, channels, 16 + rng() % 3 * 16, kind);
    for (int kind = 0; kind < 3; kind++) {
        wino_case(kernel, reference, 7, 128, 16, kind);
        wino_case(kernel, reference, 2, WINO_MAX_CHANNELS, WINO_MAX_N, kind);
    }
}

#endif
