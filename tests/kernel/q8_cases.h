/* Cases of the 8-bit kernels, included by test_kernels.c. Results must have equal bits. Inputs end
 * where a page without access begins, so that every over-read stops the program. */
#include <sys/mman.h>
#include <unistd.h>

typedef enum q8_class { Q8_RANDOM, Q8_WORST, Q8_SAFE, Q8_TIES, Q8_WRAP, N_Q8_CLASSES } q8_class;
static const char *const q8_class_names[] = {"random", "worst", "safe", "ties", "wrapping"};

/* --- inputs ----------------------------------------------------------------------------------- */
enum { GUARD_SLOTS = 128, GUARD_ROOM = 1 << 18 };
static uint8_t *guard_arena;
static size_t guard_used;

/* `count` bytes at the end of the next slot; `align`: of the element. All are given back at once by
 * guard_used = 0. */
static void *guarded(size_t count)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), slot = GUARD_ROOM + page;
    if (guard_arena == NULL) {
        guard_arena = mmap(NULL, GUARD_SLOTS * slot, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        bool fine = guard_arena != MAP_FAILED;
        for (size_t i = 0; fine && i < GUARD_SLOTS; i++)
            fine = mprotect(guard_arena + i * slot + GUARD_ROOM, page, PROT_NONE) == 0;
        need(fine ? guard_arena : NULL);
    }
    if (guard_used == GUARD_SLOTS || count > GUARD_ROOM) {
        fprintf(stderr, "the harness needs more guarded memory\n");
        exit(1);
    }
    return guard_arena + guard_used++ * slot + GUARD_ROOM - count;
}

static uint8_t *q8_activations(size_t count, q8_class kind)
{
    uint8_t *const bytes = guarded(count);
    for (size_t i = 0; i < count; i++) {
        bytes[i] = (uint8_t)rng();
        if (kind == Q8_WORST) /* both ends of both signednesses */
            bytes[i] = (uint8_t[]){0, 255, 127, 128}[rng() % 8 < 5 ? 1 : rng() % 4];
    }
    return bytes;
}

/* Worst: runs of equal extremes, so that pairs leave int16 and sums grow. */
static int8_t *q8_weights(size_t count, q8_class kind)
{
    int8_t *const w = guarded(count);
    int8_t extreme = 127;
    for (size_t i = 0; i < count; i++) {
        if (rng() % 16 == 0)
            extreme = (int8_t[]){127, -127, -128}[rng() % 3];
        w[i] = (int8_t)rng();
        if (kind == Q8_WORST)
            w[i] = extreme;
        else if (kind == Q8_SAFE)
            w[i] = (int8_t)((int)(rng() % 129) - 64);
    }
    return w;
}

static int32_t *q8_bases(size_t count, q8_class kind)
{
    int32_t *const base = guarded(count * sizeof *base);
    for (size_t i = 0; i < count; i++) {
        base[i] = (int32_t)(rng() % 20001) - 10000;
        if (kind == Q8_WRAP)
            base[i] =
                rng() % 2 ? INT32_MAX - (int32_t)(rng() % 3) : INT32_MIN + (int32_t)(rng() % 3);
    }
    return base;
}

/* terms: products per output. Ties: a power of two of which half of a step is often hit. */
static float *q8_scales(size_t count, size_t terms, q8_class kind)
{
    static const float odd[] = {0.0f, 1e-30f, 1e30f, INFINITY, NAN, -0.001f};
    float *const scale = guarded(count * sizeof *scale);
    for (size_t i = 0; i < count; i++) {
        const float spread = 10000.0f * sqrtf((float)terms + 1.0f);
        scale[i] = 300.0f / spread * (0.5f + (float)(rng() % 1024) / 1024.0f);
        if (kind == Q8_TIES)
            scale[i] = ldexpf(1.0f, (int)floorf(log2f(scale[i])));
        else if (rng() % 32 == 0)
            scale[i] = odd[rng() % (sizeof odd / sizeof odd[0])];
    }
    return scale;
}

static qn_q8_out q8_out(q8_class kind)
{
    static const qn_q8_out outs[] = {
        {.zero = 0, .lo = -128, .hi = 127},   {.zero = 0, .lo = 0, .hi = 255},
        {.zero = 3, .lo = -127, .hi = 127},   {.zero = 255, .lo = 0, .hi = 255},
        {.zero = 128, .lo = 128, .hi = 200},  {.zero = -128, .lo = -128, .hi = 127},
        {.zero = -128, .lo = -20, .hi = 100}, {.zero = 7, .lo = 7, .hi = 7},
    };
    qn_q8_out out = outs[rng() % (sizeof outs / sizeof outs[0])];
    out.is_float = kind != Q8_TIES && rng() % 4 == 0;
    out.is_sums = out.is_float && rng() % 2 == 0;
    out.clamp = clamp_of(rng());
    return out;
}

/* What qn_q8_out.short_sums says of n columns of `terms` weights. */
static bool q8_short_sums(const int8_t *w, const int32_t *base, const float *scale, size_t n,
                          size_t stride_n, size_t terms, size_t stride_terms)
{
    const int64_t most = 1 << 23;
    bool fine = true;
    for (size_t i = 0; i < n; i++) {
        int64_t low = base[i], high = base[i];
        for (size_t t = 0; t < terms; t++) {
            const int64_t product = UINT8_MAX * (int64_t)w[i * stride_n + t * stride_terms];
            low += product < 0 ? product : 0;
            high += product > 0 ? product : 0;
        }
        fine = fine && low > -most && high < most && scale[i] > 0.0f;
    }
    return fine;
}

/* --- outputs ---------------------------------------------------------------------------------- */
/* Rows of columns elements, stride apart, with a guard row before and after. */
typedef struct q8_outputs {
    uint8_t *memory;
    size_t rows, columns, stride, elem;
    bool is_float, is_sums;
} q8_outputs;

static q8_outputs q8_outputs_make(size_t rows, size_t columns, size_t stride, const qn_q8_out *out)
{
    q8_outputs o = {.rows = rows,
                    .columns = columns,
                    .stride = stride,
                    .elem = out->is_float ? sizeof(float) : 1,

                    .is_sums = out->is_sums,
                    .is_float = out->is_float && !out->is_sums};
    const size_t bytes = (rows + 2 + QN_Q8_SUMS_OVER) * stride * o.elem;
    o.memory = need(aligned_alloc(64, (bytes + 63) / 64 * 64));
    for (size_t i = 0; i < bytes; i++)
        o.memory[i] = (uint8_t)(0xa5 + i * 7);
    return o;
}
static void *q8_outputs_begin(const q8_outputs *o)
{
    return o->memory + o->stride * o->elem;
}

static void q8_fail(const char *kernel, q8_class kind, const char *shape, const char *why)
{
    printf("FAILED %s, %s inputs, %s: %s\n", kernel, q8_class_names[kind], shape, why);
    exit(1);
}

static void q8_compare(const char *kernel, q8_class kind, const char *shape,
                       const q8_outputs *expected, const q8_outputs *got)
{
    n_checks++;
    const size_t elem = got->elem;
    const size_t over = got->is_sums ? QN_Q8_SUMS_OVER : 0;
    for (size_t i = 0; i < (got->rows + over + 2) * got->stride; i++) {
        const uint8_t *const e = expected->memory + i * elem, *const g = got->memory + i * elem;
        const bool inside =
            i >= got->stride && i < (got->rows + 1) * got->stride && i % got->stride < got->columns;
        const bool behind =
            got->is_sums && i >= got->stride && i < (got->rows + over + 1) * got->stride;
        const bool may_write = inside || behind;
        float ef = 0, gf = 0;
        if (inside && got->is_float) {
            memcpy(&ef, e, sizeof ef);
            memcpy(&gf, g, sizeof gf);
            if (isnan(ef) && isnan(gf))
                continue;
        }
        for (size_t b = 0; b < elem; b++) {
            if (!may_write && g[b] != (uint8_t)(0xa5 + (i * elem + b) * 7))
                q8_fail(kernel, kind, shape, "wrote outside its output");
        }
        if (inside && memcmp(e, g, elem) != 0) {
            char text[128];
            snprintf(text, sizeof text, "[%zu][%zu] is %d (%g), not %d (%g)", i / got->stride - 1,
                     i % got->stride, g[0], (double)gf, e[0], (double)ef);
            q8_fail(kernel, kind, shape, text);
        }
    }
}

static uint64_t q8_hash(const void *data, size_t bytes)
{
    const uint8_t *const p = data;
    uint64_t h = 1469598103934665603u;
    for (size_t i = 0; i < bytes; i++)
        h = (h ^ p[i]) * 1099511628211u;
    return h;
}

/* What short_sums promises, of sums that come as near to 2^23 as they may, and outputs for which
 * kernels take another way. */
static void q8_make_short(qn_q8_out *out, int32_t *bias, float *scale, size_t channels, size_t taps)
{
    const int32_t most = (1 << 23) - (int32_t)(taps * 255 * 128);
    for (size_t i = 0; i < channels; i++) {
        if (rng() % 2)
            bias[i] = rng() % 2 ? most : -most;
        scale[i] = fabsf(scale[i]);
        if (!(scale[i] > 0.0f && scale[i] < 1.0f))
            scale[i] = 3e-5f;
    }
    if (rng() % 4 != 0)
        *out = (qn_q8_out){.zero = 0, .lo = 0, .hi = 255};
    out->short_sums = true;
}

/* --- indirect GEMM ---------------------------------------------------------------------------- */
/* Rows; numbers of k whose sums are short whatever is multiplied. */
enum { Q8_MAX_ROWS = 64, Q8_SHORT_K = 256 };
typedef struct q8_igemm_problem {
    size_t m, n, kc, ks, n_rows;
    size_t row_step, tap_step;
    const uint8_t *rows[Q8_MAX_ROWS]; /* each exactly kc bytes */
    int8_t *w;
    int32_t *base;
    float *scale;
    uint8_t flip;
    qn_q8_out out;
} q8_igemm_problem;

static q8_igemm_problem q8_igemm_problem_make(size_t m, size_t n, size_t kc, size_t ks,
                                              q8_class kind)
{
    guard_used = 0;
    q8_igemm_problem p = {.m = m, .n = n, .kc = kc, .ks = ks, .n_rows = m + ks};
    p.n_rows = p.n_rows > Q8_MAX_ROWS ? Q8_MAX_ROWS : p.n_rows;
    for (size_t i = 0; i < p.n_rows; i++)
        p.rows[i] = q8_activations(kc, kind);
    p.w = q8_weights(n * kc * ks, kind);
    p.base = q8_bases(n, kind);
    p.scale = q8_scales(n, kc * ks, kind);
    p.flip = rng() % 2 ? 0x80 : 0;
    p.out = q8_out(kind);
    p.out.short_sums = q8_short_sums(p.w, p.base, p.scale, n, kc * ks, kc * ks, 1);
    if (kind != Q8_WRAP && kc * ks <= Q8_SHORT_K && rng() % 3 == 0)
        q8_make_short(&p.out, p.base, p.scale, n, kc * ks);
    p.out.small_scales = true;
    for (size_t i = 0; i < n; i++)
        p.out.small_scales &= p.scale[i] > -1.0f && p.scale[i] < 1.0f;
    /* Rows evenly spaced, as guarded memory is, or in no regular order. */
    const bool even = rng() % 2 == 0;
    p.row_step = even ? 1 : 7;
    p.tap_step = even ? 1 : 3;
    return p;
}
static const uint8_t *q8_igemm_row(const q8_igemm_problem *p, size_t m, size_t t)
{
    return p->rows[(m * p->row_step + t * p->tap_step) % p->n_rows];
}

static void q8_igemm_run(const qn_q8_igemm *kernel, const q8_igemm_problem *p, void *c,
                         size_t c_stride)
{
    size_t bytes;
    if (!qn__q8_gemm_packed_bytes(&bytes, p->n, p->kc, p->ks, kernel))
        exit(1);
    /* What is packed is not read beyond its end either, as far as it fits. */
    const bool fits = bytes <= GUARD_ROOM && bytes % 64 == 0 && guard_used < GUARD_SLOTS;
    uint8_t *const packed = fits ? guarded(bytes) : need(malloc(bytes + (bytes == 0)));
    const uint8_t **const rows = need(malloc(kernel->mr * p->ks * sizeof *rows + 8));
    const bool safe = qn__q8_gemm_safe(p->w, p->n, p->kc, p->ks, p->kc * p->ks, p->kc, 1);
    qn__q8_gemm_pack(packed, p->w, p->base, p->scale, p->n, p->kc, p->ks, p->kc * p->ks, p->kc, 1,
                     kernel, safe);
    const size_t elem = p->out.is_float ? sizeof(float) : 1;
    for (size_t m0 = 0; m0 < p->m; m0 += kernel->mr) {
        const size_t mr = p->m - m0 < kernel->mr ? p->m - m0 : kernel->mr;
        for (size_t t = 0; t < p->ks; t++)
            for (size_t i = 0; i < kernel->mr; i++)
                rows[t * kernel->mr + i] = q8_igemm_row(p, m0 + (i < mr ? i : mr - 1), t);
        kernel->fn(mr, p->n, p->kc, p->ks, rows, p->flip, safe, packed,
                   (uint8_t *)c + m0 * c_stride * elem, c_stride, &p->out);
    }
    if (!fits)
        free(packed);
    free(rows);
}

/* Rows of sums end with a step. */
static size_t q8_sums_stride(size_t n)
{
    return (n + QN_Q8_SUMS_STEP - 1 + rng() % 2 * QN_Q8_SUMS_STEP) / QN_Q8_SUMS_STEP *
           QN_Q8_SUMS_STEP;
}

static void q8_igemm_case(const qn_q8_igemm *kernel, const qn_q8_igemm *reference, size_t m,
                          size_t n, size_t kc, size_t ks, q8_class kind)
{
    const q8_igemm_problem p = q8_igemm_problem_make(m, n, kc, ks, kind);
    uint64_t before = 0;
    for (size_t i = 0; i < p.n_rows; i++)
        before += q8_hash(p.rows[i], kc);
    const size_t stride = p.out.is_sums ? q8_sums_stride(n) : n + rng() % 3;
    char shape[128];
    snprintf(shape, sizeof shape, "m %zu n %zu kc %zu ks %zu stride %zu flip %d%s", m, n, kc, ks,
             stride, p.flip,
             p.out.is_sums    ? " sums"
             : p.out.is_float ? " to float"
                              : "");
    const q8_outputs expected = q8_outputs_make(m, n, stride, &p.out);
    const q8_outputs got = q8_outputs_make(m, n, stride, &p.out);
    q8_igemm_run(reference, &p, q8_outputs_begin(&expected), stride);
    q8_igemm_run(kernel, &p, q8_outputs_begin(&got), stride);
    q8_compare(kernel->name, kind, shape, &expected, &got);
    for (size_t i = 0; i < p.n_rows; i++)
        before -= q8_hash(p.rows[i], kc);
    if (before != 0)
        q8_fail(kernel->name, kind, shape, "changed its inputs");
    free(expected.memory), free(got.memory);
}

/* Groups of k that lie anywhere behind a row, as tables say that are changed: the same outputs. */
static void q8_distances_case(const qn_q8_igemm *kernel, const qn_q8_igemm *reference, size_t m,
                              size_t n, size_t kc, size_t ks, q8_class kind)
{
    q8_igemm_problem p = q8_igemm_problem_make(m, n, kc, ks, kind);
    const size_t groups = kc / kernel->kr, stride = p.out.is_sums ? q8_sums_stride(n) : n;
    const size_t head = kernel->nr * (sizeof(int32_t) + sizeof(float) + ks * kc);
    size_t bytes, panel_bytes, at[128];
    p.flip = 0;
    if (!qn__q8_gemm_packed_bytes(&bytes, n, kc, ks, kernel) ||
        !qn__q8_gemm_packed_bytes(&panel_bytes, kernel->nr, kc, ks, kernel) || groups > 128)
        exit(1);
    /* Every other place of a row twice as long, in some order; no byte is read behind it. */
    for (size_t g = 0, j; g < groups; g++) {
        j = rng() % (g + 1);
        at[g] = at[j];
        at[j] = 2 * kernel->kr * g + kernel->kr;
    }
    uint8_t *spread[Q8_MAX_ROWS];
    for (size_t i = 0; i < p.n_rows; i++) {
        spread[i] = guarded(2 * kc);
        for (size_t k = 0; k < 2 * kc; k++)
            spread[i][k] = (uint8_t)rng();
        for (size_t k = 0; k < kc; k++)
            spread[i][at[k / kernel->kr] + k % kernel->kr] = p.rows[i][k];
    }
    uint8_t *const packed = need(malloc(bytes));
    const bool safe = qn__q8_gemm_safe(p.w, n, kc, ks, kc * ks, kc, 1);
    qn__q8_gemm_pack(packed, p.w, p.base, p.scale, n, kc, ks, kc * ks, kc, 1, kernel, safe);
    for (size_t panel = 0; panel < bytes; panel += panel_bytes)
        for (size_t t = 0; t < ks; t++)
            for (size_t g = 0; g < groups; g++) {
                uint8_t *const entry = packed + panel + head + 2 * (t * (1 + groups) + 1 + g);
                uint16_t distance;
                memcpy(&distance, entry, sizeof distance);
                distance = (uint16_t)at[distance / kernel->kr];
                memcpy(entry, &distance, sizeof distance);
            }
    const uint8_t **const rows = need(malloc(kernel->mr * ks * sizeof *rows));
    const q8_outputs expected = q8_outputs_make(m, n, stride, &p.out);
    const q8_outputs got = q8_outputs_make(m, n, stride, &p.out);
    const size_t elem = p.out.is_float ? sizeof(float) : 1;
    q8_igemm_run(reference, &p, q8_outputs_begin(&expected), stride);
    for (size_t m0 = 0; m0 < m; m0 += kernel->mr) {
        const size_t mr = m - m0 < kernel->mr ? m - m0 : kernel->mr;
        for (size_t t = 0; t < ks; t++)
            for (size_t i = 0; i < kernel->mr; i++)
                rows[t * kernel->mr + i] =
                    spread[((m0 + (i < mr ? i : mr - 1)) * p.row_step + t * p.tap_step) % p.n_rows];
        kernel->fn(mr, n, kc, ks, rows, 0, safe, packed,
                   (uint8_t *)q8_outputs_begin(&got) + m0 * stride * elem, stride, &p.out);
    }
    char shape[128];
    snprintf(shape, sizeof shape, "m %zu n %zu kc %zu ks %zu, groups apart", m, n, kc, ks);
    q8_compare(kernel->name, kind, shape, &expected, &got);
    free(expected.memory), free(got.memory), free(packed), free(rows);
}

/* Taps at distances from one group of pointers: the same bytes as from a group for each. */
static void q8_offsets_case(const qn_q8_igemm *kernel)
{
    enum { MOST = 192, ROOM = 8192, TAPS = 7, COLUMNS = 80, K = 24 };
    static int8_t weights[COLUMNS * TAPS * K];
    static uint8_t in[ROOM], one[MOST * COLUMNS], other[MOST * COLUMNS];
    const size_t mr = 1 + rng() % kernel->mr, n = 1 + rng() % COLUMNS, ks = 1 + rng() % TAPS;
    const size_t kc = kernel->kr * (1 + rng() % (K / kernel->kr)), step = rng() % 20;
    const uint8_t *rows[TAPS * MOST];
    ptrdiff_t offsets[TAPS];
    int32_t base[COLUMNS];
    float scale[COLUMNS];
    size_t bytes;
    if (kernel->mr > MOST)
        fail(kernel->name, RANDOM, "offsets", "more rows than the test has");
    for (size_t i = 0; i < ROOM; i++)
        in[i] = (uint8_t)rng();
    for (size_t i = 0; i < sizeof weights; i++)
        weights[i] = (int8_t)rng();
    for (size_t i = 0; i < n; i++) {
        base[i] = (int32_t)(rng() % 20000) - 10000;
        scale[i] = 0.001f;
    }
    for (size_t p = 0; p < ks; p++) {
        offsets[p] = (ptrdiff_t)(rng() % 400) - (p > 0 ? 0 : 20);
        for (size_t m = 0; m < kernel->mr; m++)
            rows[p * kernel->mr + m] = in + 20 + offsets[p] + (m < mr ? m : mr - 1) * step;
    }
    if (!qn__q8_gemm_packed_bytes(&bytes, n, kc, ks, kernel))
        return;
    uint8_t *const packed = need(aligned_alloc(64, (bytes + 63) / 64 * 64));
    qn__q8_gemm_pack(packed, weights, base, scale, n, kc, ks, ks * kc, kc, 1, kernel, false);
    qn_q8_out out = {.zero = (int32_t)(rng() % 2) * 9, .hi = 255, .small_scales = rng() % 2 != 0};
    memset(one, 0, sizeof one);
    memset(other, 0, sizeof other);
    kernel->fn(mr, n, kc, ks, rows, 0, false, packed, one, n, &out);
    for (size_t m = 0; m < kernel->mr; m++)
        rows[m] -= offsets[0];
    out.offsets = offsets;
    kernel->fn(mr, n, kc, ks, rows, 0, false, packed, other, n, &out);
    n_checks++;
    if (memcmp(one, other, sizeof one) != 0)
        fail(kernel->name, RANDOM, "offsets", "differ from pointers");
    free(packed);
}

static void q8_join_case(const qn_q8_igemm *kernel, size_t n)
{
    enum { ROOM = 384, ROWS = 3 };
    const size_t up = (n + QN_Q8_JOINED - 1) / QN_Q8_JOINED * QN_Q8_JOINED;
    uint8_t rows[ROWS][ROOM + 20], masks[ROWS][QN_Q8_JOINED], to[ROOM];
    const uint8_t *from[ROWS];
    memset(to, 0x5A, sizeof to);
    for (size_t y = 0; y < ROWS; y++) {
        from[y] = rows[y] + rng() % 20;
        for (size_t i = 0; i < ROOM + 20; i++)
            rows[y][i] = (uint8_t)rng();
        for (size_t i = 0; i < QN_Q8_JOINED; i++)
            masks[y][i] = rng() % 2 != 0 ? 0xff : 0;
    }
    kernel->join(to, from, masks[0], n);
    n_checks++;
    for (size_t i = 0; i < ROOM; i++) {
        uint8_t expected = 0x5A;
        if (i < up)
            expected = (uint8_t)((from[0][i] & masks[0][i % QN_Q8_JOINED]) |
                                 (from[1][i] & masks[1][i % QN_Q8_JOINED]) |
                                 (from[2][i] & masks[2][i % QN_Q8_JOINED]));
        if (to[i] != expected)
            fail(kernel->name, RANDOM, "join", "differs");
    }
}

/* Tables of pairs: those that are packed are fine; numbers that lead out of a row are not. */
static void test_q8_tables(const qn_q8_igemm *kernel)
{
    enum { N = 9, KC = 2100, KS = 2 };
    size_t bytes;
    if (!kernel->pairs || !qn__q8_gemm_packed_bytes(&bytes, N, KC, KS, kernel))
        return;
    static int8_t w[N * KC * KS];
    static const int32_t base[N];
    static const float scale[N];
    uint8_t *const packed = need(malloc(bytes));
    qn__q8_gemm_pack(packed, w, base, scale, N, KC, KS, KC * KS, KC, 1, kernel, true);
    const size_t panel = bytes / ((N + kernel->nr - 1) / kernel->nr);
    const size_t table = kernel->nr * (8 + KS * (size_t)KC);
    static const struct {
        size_t at; /* numbers from the table's beginning: 513 of the first part, 14 of the second */
        uint16_t value;
        bool ok;
    } cases[] = {{0, 256, true}, {0, 257, false}, {1, 2048, false}, {2, 2, false},
                 {1, 0, true},   {513, 7, false}, {514, 52, false}, {527, 300, false}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        n_checks++;
        uint8_t *const at = packed + panel * (i % 2) + table + 2 * cases[i].at;
        uint8_t before[2];
        memcpy(before, at, 2);
        memcpy(at, &cases[i].value, 2);
        if (qn__q8_gemm_packed_ok(packed, N, KC, KS, kernel) != cases[i].ok) {
            printf("FAILED %s: table case %zu\n", kernel->name, i);
            exit(1);
        }
        memcpy(at, before, 2);
    }
    free(packed);
}

/* Weights of n columns that lie in rows or columns: the same bytes whichever function pairs groups,
 * sums and safety as they are counted one by one. */
static void q8_packing_case(const qn_q8_igemm *kernel, size_t n, size_t kc, size_t ks, int32_t most,
                            bool in_rows)
{
    const size_t count = n * kc * ks, stride_n = in_rows ? 1 : kc * ks, stride_k = in_rows ? n : 1;
    const size_t stride_p = in_rows ? kc * n : kc;
    qn_q8_igemm other = *kernel;
    other.pairs = kernel->pairs != NULL ? qn__q8_pairs_scalar : NULL;
    size_t bytes;
    if (!qn__q8_gemm_packed_bytes(&bytes, n, kc, ks, kernel))
        exit(1);
    int8_t *const w = need(malloc(count));
    for (size_t i = 0; i < count; i++)
        w[i] = (int8_t)((int32_t)(rng() % (uint32_t)(2 * most + 1)) - most);
    uint8_t *const packed = need(calloc(bytes, 1)), *const again = need(calloc(bytes, 1));
    uint32_t *const sums = need(malloc(n * sizeof *sums));
    const bool expected = qn__q8_gemm_safe(w, n, kc, ks, stride_n, stride_p, stride_k);
    const bool safe = qn__q8_gemm_pack_weights(packed, w, n, kc, ks, stride_n, stride_p, stride_k,
                                               kernel, true, sums);
    bool fine = safe == expected;
    for (size_t i = 0; i < n && (safe || kernel->pairs == NULL); i++) {
        uint32_t sum = 0;
        for (size_t p = 0; p < ks; p++)
            for (size_t k = 0; k < kc; k++)
                sum += (uint32_t)w[i * stride_n + p * stride_p + k * stride_k];
        fine &= sum == sums[i];
    }
    qn__q8_gemm_pack_weights(packed, w, n, kc, ks, stride_n, stride_p, stride_k, kernel, safe,
                             NULL);
    qn__q8_gemm_pack_weights(again, w, n, kc, ks, stride_n, stride_p, stride_k, &other, safe, NULL);
    fine &= memcmp(packed, again, bytes) == 0 && qn__q8_gemm_packed_ok(packed, n, kc, ks, kernel);
    n_checks++;
    if (!fine) {
        printf("FAILED %s: packing n %zu kc %zu ks %zu most %d rows %d\n", kernel->name, n, kc, ks,
               most, in_rows);
        exit(1);
    }
    free(w), free(packed), free(again), free(sums);
}

static void test_q8_packing(const qn_q8_igemm *kernel)
{
    static const int32_t mosts[] = {7, 40, 64, 90, 127};
    static const size_t kcs[] = {1, 6, 27, 32, 33, 64, 100, 513, 1024, 2050};
    const uint64_t state = rng_state; /* other slots go on with the numbers they had */
    for (size_t i = 0; i < sizeof kcs / sizeof kcs[0]; i++)
        for (size_t j = 0; j < sizeof mosts / sizeof mosts[0]; j++)
            for (size_t in_rows = 0; in_rows < 2; in_rows++)
                q8_packing_case(kernel, 1 + rng() % 40, kcs[i], 1 + rng() % 2, mosts[j],
                                in_rows != 0);
    rng_state = state;
}

/* Pointers to rows, of which seven more may be written. */
static void test_spaced(const qn_q8_igemm *kernel)
{
    enum { ROWS = 300, MORE = 7 };
    const uint8_t *rows[ROWS + MORE + 1];
    for (size_t n = 0; n < ROWS; n++) {
        const uint8_t *const first = (const uint8_t *)rows + rng() % 1000;
        const size_t step = n % 3 == 0 ? rng() % 9 : rng() % 100000;
        rows[n + MORE] = (const uint8_t *)rows;
        kernel->spaced(rows, first, step, n);
        bool same = rows[n + MORE] == (const uint8_t *)rows;
        for (size_t i = 0; i < n; i++)
            same &= (uintptr_t)rows[i] == (uintptr_t)first + i * step;
        n_checks++;
        if (!same)
            q8_fail(kernel->name, Q8_SAFE, "row pointers", "differ");
    }
}

static void test_q8_igemm(const qn_q8_igemm *kernel, const qn_q8_igemm *reference)
{
    const size_t mr = kernel->mr, nr = kernel->nr;
    if (kernel->spaced != NULL)
        test_spaced(kernel);
    const size_t ms[] = {1, mr - 1, mr, mr + 1, 13},
                 ns[] = {1, nr - 1, nr, nr + 1, 47, 3 * nr, 4 * nr, 5 * nr + 2};
    const size_t kcs[] = {0, 1, 2, 3, 4, 5, 7, 16, 31, 64}, kss[] = {0, 1, 2, 9};
    for (size_t i = 0; i < sizeof ms / sizeof ms[0]; i++)
        for (size_t j = 0; j < sizeof ns / sizeof ns[0]; j++)
            for (size_t k = 0; k < sizeof kcs / sizeof kcs[0]; k++)
                for (size_t t = 0; t < sizeof kss / sizeof kss[0]; t++)
                    if (ms[i] > 0 && ns[j] > 0)
                        q8_igemm_case(kernel, reference, ms[i], ns[j], kcs[k], kss[t],
                                      (q8_class)(rng() % N_Q8_CLASSES));
    for (int kind = 0; kind < N_Q8_CLASSES; kind++) {
        for (int times = 0; times < 8; times++) {
            q8_igemm_case(kernel, reference, 20, 100, 64, 9, (q8_class)kind);
            q8_igemm_case(kernel, reference, 41, 70, 128, 2, (q8_class)kind);
            q8_igemm_case(kernel, reference, 37, 40, 96, 3, (q8_class)kind);
            q8_igemm_case(kernel, reference, 33, 24, 24, 7, (q8_class)kind);
            q8_igemm_case(kernel, reference, 19, 20, 212, 1, (q8_class)kind);
            q8_igemm_case(kernel, reference, 20, 64, 21, 7, (q8_class)kind);
            q8_igemm_case(kernel, reference, 3, 130, 257, 1, (q8_class)kind);
            q8_igemm_case(kernel, reference, 5, 33, 1027, 1, (q8_class)kind);
        }
        for (size_t m = 1; m <= 8; m++)
            q8_igemm_case(kernel, reference, m, 97, 1 + rng() % 100, 1 + rng() % 3, (q8_class)kind);
        for (size_t m = 1; m <= 26; m++)
            for (size_t n = 1; n <= 8; n++)
                q8_igemm_case(kernel, reference, m, rng() % 3 * nr + nr + n, 8 * (1 + rng() % 12),
                              1 + rng() % 2, (q8_class)kind);
        for (size_t m = 1; m <= mr; m++)
            for (size_t n = 1; n <= 4 * nr; n += 1 + n / 5)
                q8_igemm_case(kernel, reference, m, n, 11, 3, (q8_class)kind);
    }
    for (int times = 0; kernel->pairs != NULL && times < 300; times++)
        q8_distances_case(kernel, reference, 1 + rng() % 30, 1 + rng() % 40,
                          kernel->kr * (1 + rng() % 60), 1 + rng() % 3,
                          (q8_class)(rng() % N_Q8_CLASSES));
    for (int times = 0; kernel->takes_offsets && times < 300; times++)
        q8_offsets_case(kernel);
    for (int times = 0; kernel->join != NULL && times < 40; times++)
        q8_join_case(kernel, rng() % 300);
    test_q8_tables(kernel);
    test_q8_packing(kernel);
    /* Sums beyond 2^24, rows too long for any copy of them. */
    for (int times = 0; times < 6; times++) {
        q8_igemm_case(kernel, reference, 3, 3, 40000, 1, times % 2 ? Q8_SAFE : Q8_WORST);
        q8_igemm_case(kernel, reference, mr, 2, 601, 70, times % 2 ? Q8_SAFE : Q8_WORST);
        q8_igemm_case(kernel, reference, 2, 1, 601, 300, times % 2 ? Q8_SAFE : Q8_WORST);
    }
}

/* --- depthwise convolution ---------------------------------------------------------------------
 */
/* How columns of a window lie: evenly, as in a picture, or apart by their remainder. */
static void q8_columns(const window_shape *s, bool even, size_t *in_col, size_t *in_step,
                       size_t *pixels)
{
    const size_t last = (s->kw - 1) * s->dilation, apart = even ? 1 : s->stride;
    const size_t phase = ((s->n == 0 ? 0 : s->n - 1) * s->stride + last) / apart + 1;
    *pixels = phase * apart;
    *in_step = s->stride / apart * s->channels;
    for (size_t j = 0; j < s->kw; j++) {
        const size_t x = j * s->dilation;
        in_col[j] = (x % apart * phase + x / apart) * s->channels;
    }
    if (even) /* nothing behind the last window */
        *pixels = (s->n == 0 ? 0 : s->n - 1) * s->stride + last + 1;
}

static void q8_dwconv_case(const qn_q8_dwconv *kernel, const qn_q8_dwconv *reference,
                           const window_shape *s, q8_class kind)
{
    enum { ROWS = 5, TAPS = 7 };
    guard_used = 0;
    const qn_q8_out format = q8_out(kind);
    const size_t c = s->channels, stride = format.is_sums ? q8_sums_stride(c) : c + rng() % 3,
                 w_step = c + rng() % 2 * c;
    const size_t rows = s->n == 0 ? 1 : 1 + rng() % ROWS;
    const uint8_t *in[ROWS * TAPS];
    size_t in_col[TAPS], in_step, pixels;
    uint64_t before = 0;
    const bool even = rng() % 3 != 0;
    q8_columns(s, even, in_col, &in_step, &pixels);
    const bool edges = kernel->edges && even && c >= kernel->least && s->n > 0 && s->kh == 3 &&
                       s->kw == 3 && s->dilation == 1 && s->stride <= 2;
    const bool left = edges && rng() % 2, right = edges && rng() % 2;
    pixels -= (left ? 1u : 0u) + (right ? 1u : 0u);
    /* Some rows are in several windows: as in a picture, or any. */
    const size_t step = 1 + rng() % 2;
    const bool picture = rng() % 2 && step < s->kh;
    for (size_t i = 0; i < rows * s->kh; i++) {
        if (picture && i >= s->kh && i % s->kh + step < s->kh)
            in[i] = in[i - s->kh + step];
        else
            in[i] =
                !picture && i > 0 && rng() % 2 ? in[rng() % i] : q8_activations(pixels * c, kind);
        before += q8_hash(in[i], pixels * c);
    }
    int32_t *const bias = q8_bases(c, kind);
    float *const scale = q8_scales(c, s->kh * s->kw, kind);
    qn_q8_dwconv_args args = {.rows = rows,
                              .n = s->n,
                              .channels = c,
                              .kh = s->kh,
                              .kw = s->kw,
                              .in = in,
                              .in_col = in_col,
                              .in_step = in_step,
                              .w = q8_weights((s->kh * s->kw - 1) * w_step + c, kind),
                              .w_step = w_step,
                              .bias = bias,
                              .scale = scale,
                              .out_row = (s->n + rng() % 2) * stride,
                              .out_step = stride,
                              .format = format,
                              .left = left,
                              .right = right,
                              .edge = (uint8_t)rng()};
    if (kind != Q8_WRAP && rng() % 2)
        q8_make_short(&args.format, bias, scale, c, s->kh * s->kw);
    args.format.small_scales = true;
    for (size_t i = 0; i < c; i++)
        args.format.small_scales &= args.scale[i] > -1.0f && args.scale[i] < 1.0f;
    const size_t pixels_out = rows * (s->n + 1);
    const q8_outputs expected = q8_outputs_make(pixels_out, c, stride, &args.format);
    const q8_outputs got = q8_outputs_make(pixels_out, c, stride, &args.format);
    args.out = q8_outputs_begin(&expected);
    reference->fn(&args);
    args.out = q8_outputs_begin(&got);
    kernel->fn(&args);
    char shape[128];
    describe(s, shape, sizeof shape);
    q8_compare(kernel->name, kind, shape, &expected, &got);
    for (size_t i = 0; i < rows * s->kh; i++)
        before -= q8_hash(in[i], pixels * c);
    if (before != 0)
        q8_fail(kernel->name, kind, shape, "changed its inputs");
    free(expected.memory), free(got.memory);
}

static void test_q8_dwconv(const qn_q8_dwconv *kernel, const qn_q8_dwconv *reference)
{
    static const size_t ns[] = {0, 1, 2, 3, 4, 5, 8, 13};
    static const size_t more[] = {47, 63, 64, 65, 80, 96, 97, 127, 144};
    static const size_t ks[][2] = {{1, 1}, {1, 2}, {2, 1}, {2, 2}, {2, 3}, {3, 2}, {3, 3},
                                   {1, 3}, {3, 1}, {5, 5}, {3, 5}, {4, 4}, {7, 7}};
    size_t cs[40 + sizeof more / sizeof more[0]];
    for (size_t c = 1; c <= 40; c++)
        cs[c - 1] = c;
    memcpy(cs + 40, more, sizeof more);
    for (size_t i = 0; i < sizeof ns / sizeof ns[0]; i++)
        for (size_t j = 0; j < sizeof cs / sizeof cs[0]; j++)
            for (size_t k = 0; k < sizeof ks / sizeof ks[0]; k++)
                for (int kind = 0; kind < N_Q8_CLASSES; kind++) {
                    const window_shape s = {ns[i],    cs[j],         ks[k][0],
                                            ks[k][1], 1 + rng() % 3, 1 + rng() % 2};
                    q8_dwconv_case(kernel, reference, &s, (q8_class)kind);
                }
}

/* --- the references against 64-bit sums --------------------------------------------------------
 */
static double q8_expected(int64_t acc, float scale, const qn_q8_out *out)
{
    if (out->is_sums)
        return (double)(int32_t)acc;
    const double v = (double)((float)acc * scale);
    if (out->is_float)
        return v < (double)out->clamp.lo   ? (double)out->clamp.lo
               : v > (double)out->clamp.hi ? (double)out->clamp.hi
                                           : v;
    const double q = nearbyint(v) + out->zero;
    return q >= out->lo ? (q <= out->hi ? q : out->hi) : out->lo;
}

static void q8_check_reference(const char *name, int64_t acc, float scale, const qn_q8_out *out,
                               const void *c, size_t at)
{
    const double expected = q8_expected(acc, scale, out);
    double got = 0;
    if (out->is_sums)
        got = (double)((const int32_t *)c)[at];
    else if (out->is_float)
        got = (double)((const float *)c)[at];
    else if (out->lo < 0)
        got = ((const int8_t *)c)[at];
    else
        got = ((const uint8_t *)c)[at];
    n_checks++;
    if (got != expected && !(isnan(got) && isnan(expected))) {
        printf("FAILED %s: sum %lld scale %.9g gives %g, not %g\n", name, (long long)acc,
               (double)scale, got, expected);
        exit(1);
    }
}

static void test_q8_references(const qn_q8_igemm *igemm, const qn_q8_dwconv *dwconv)
{
    for (int times = 0; times < 400; times++) {
        const q8_class kind = (q8_class)(rng() % Q8_WRAP);
        const size_t m = 5, n = 7, kc = 3, ks = 2;
        const q8_igemm_problem p = q8_igemm_problem_make(m, n, kc, ks, kind);
        float c[5 * 7];
        q8_igemm_run(igemm, &p, c, n);
        for (size_t i = 0; i < m; i++)
            for (size_t j = 0; j < n; j++) {
                int64_t sum = p.base[j];
                for (size_t t = 0; t < ks; t++)
                    for (size_t k = 0; k < kc; k++)
                        sum += (int64_t)((q8_igemm_row(&p, i, t)[k] + p.flip) % 256) *
                               p.w[(j * ks + t) * kc + k];
                q8_check_reference(igemm->name, sum, p.scale[j], &p.out, c, i * n + j);
            }
        guard_used = 0;
        const uint8_t *const in[2] = {q8_activations(3, kind), q8_activations(3, kind)};
        const size_t in_col[3] = {0, 1, 2};
        const qn_q8_dwconv_args args = {.rows = 1,
                                        .n = 1,
                                        .channels = 1,
                                        .kh = 2,
                                        .kw = 3,
                                        .in = in,
                                        .in_col = in_col,
                                        .w = q8_weights(6, kind),
                                        .w_step = 1,
                                        .bias = q8_bases(1, kind),
                                        .scale = q8_scales(1, 6, kind),
                                        .out = c,
                                        .format = q8_out(kind)};
        dwconv->fn(&args);
        int64_t sum = args.bias[0];
        for (size_t i = 0; i < 6; i++)
            sum += (int64_t)in[i / 3][i % 3] * args.w[i];
        q8_check_reference(dwconv->name, sum, args.scale[0], &args.format, c, 0);
    }
}

/* Weights whose worst pair is exactly at the bound of int16, and one beyond it. */
static void test_q8_safety(void)
{
    static const struct {
        int8_t w[4];
        bool safe;
    } rows[] = {{{64, 64, -128, 0}, true},     {{127, 1, -64, -64}, true}, {{127, 2, 0, 0}, false},
                {{0, 0, -128, -1}, false},     {{0, 127, 127, 0}, true},   {{0, 0, 64, 65}, false},
                {{127, -127, 127, -128}, true}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        n_checks++;
        if (qn__q8_gemm_safe(rows[i].w, 1, 4, 1, 4, 4, 1) != rows[i].safe) {
            printf("FAILED packing: row %zu is %ssafe\n", i, rows[i].safe ? "" : "not ");
            exit(1);
        }
    }
}
