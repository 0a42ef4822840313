/* Depthwise convolution and pooling over a vector type, included once per instruction set. The
 * includer defines:
 *   VEC, LANES           vector type and its floats
 *   LOAD(p, c), STORE(p, v, c)   c: channels left; only the first min(c, LANES) are touched
 *   ZERO(), SET1(x), ADD(a, b), MUL(a, b), MAX(a, b) (a > b ? a : b), FMA(a, b, c) (a * b + c)
 *   CLAMP(v, lo, hi)     NaN stays NaN
 *   DWCONV, MAXPOOL, AVGPOOL     names of the functions
 *
 * Channels are the outer loop so that weights stay in registers along a row; four outputs are made
 * at once to hide the latency of the multiply-add. */
#define RUN 4

/* 3 columns of taps whose neighbours are `step` columns apart: four outputs share their inputs.
 * kh and step are constants after inlining; left is one where all lanes are used. */
static inline __attribute__((always_inline)) size_t dwconv_shared(const qn_f32_dwconv_args *args,
                                                                  const size_t kh,
                                                                  const size_t step, size_t c,
                                                                  const size_t left)
{
    const VEC lo = SET1(args->clamp.lo), hi = SET1(args->clamp.hi);
    const VEC bias = LOAD(args->bias + c, left);
    const size_t in_row = args->in_row, in_col = args->in_col, in_step = args->in_step;
    const size_t w_row = args->w_row, channels = args->channels, out_step = args->out_step;
    const size_t end = args->n / RUN * RUN;
    const float *in = args->in + c, *const weights = args->w + c;
    float *out = args->out + c;
    for (size_t x = 0; x < end; x += RUN, in += RUN * in_step, out += RUN * out_step) {
        VEC s0 = bias, s1 = bias, s2 = bias, s3 = bias;
#pragma GCC unroll 3
        for (size_t i = 0; i < kh; i++) {
            const float *const w = weights + i * w_row;
            const VEC w0 = LOAD(w, left), w1 = LOAD(w + channels, left);
            const VEC w2 = LOAD(w + 2 * channels, left);
            VEC v[3 * 2 + 3];
#pragma GCC unroll 9
            for (size_t j = 0; j < 3 * step + 3; j++)
                v[j] = LOAD(in + i * in_row + j * in_col, left);
            s0 = FMA(v[0], w0, s0);
            s1 = FMA(v[step], w0, s1);
            s2 = FMA(v[2 * step], w0, s2);
            s3 = FMA(v[3 * step], w0, s3);
            s0 = FMA(v[1], w1, s0);
            s1 = FMA(v[step + 1], w1, s1);
            s2 = FMA(v[2 * step + 1], w1, s2);
            s3 = FMA(v[3 * step + 1], w1, s3);
            s0 = FMA(v[2], w2, s0);
            s1 = FMA(v[step + 2], w2, s1);
            s2 = FMA(v[2 * step + 2], w2, s2);
            s3 = FMA(v[3 * step + 2], w2, s3);
        }
        STORE(out, CLAMP(s0, lo, hi), left);
        STORE(out + out_step, CLAMP(s1, lo, hi), left);
        STORE(out + 2 * out_step, CLAMP(s2, lo, hi), left);
        STORE(out + 3 * out_step, CLAMP(s3, lo, hi), left);
    }
    return end;
}

/* Outputs from x on, any window. */
static inline __attribute__((always_inline)) void dwconv_window(const qn_f32_dwconv_args *args,
                                                                const size_t kh, const size_t kw,
                                                                size_t c, const size_t left,
                                                                size_t x)
{
    const VEC lo = SET1(args->clamp.lo), hi = SET1(args->clamp.hi);
    const VEC bias = LOAD(args->bias + c, left);
    const size_t in_row = args->in_row, in_col = args->in_col, in_step = args->in_step;
    const size_t w_row = args->w_row, channels = args->channels, out_step = args->out_step;
    const float *in = args->in + x * in_step + c, *const weights = args->w + c;
    float *out = args->out + x * out_step + c;
    for (; x + RUN <= args->n; x += RUN, in += RUN * in_step, out += RUN * out_step) {
        const float *const in1 = in + in_step, *const in2 = in1 + in_step;
        const float *const in3 = in2 + in_step;
        VEC s0 = bias, s1 = bias, s2 = bias, s3 = bias;
        for (size_t i = 0; i < kh; i++) {
            for (size_t j = 0; j < kw; j++) {
                const VEC w = LOAD(weights + i * w_row + j * channels, left);
                const size_t at = i * in_row + j * in_col;
                s0 = FMA(LOAD(in + at, left), w, s0);
                s1 = FMA(LOAD(in1 + at, left), w, s1);
                s2 = FMA(LOAD(in2 + at, left), w, s2);
                s3 = FMA(LOAD(in3 + at, left), w, s3);
            }
        }
        STORE(out, CLAMP(s0, lo, hi), left);
        STORE(out + out_step, CLAMP(s1, lo, hi), left);
        STORE(out + 2 * out_step, CLAMP(s2, lo, hi), left);
        STORE(out + 3 * out_step, CLAMP(s3, lo, hi), left);
    }
    for (; x < args->n; x++, in += in_step, out += out_step) {
        VEC s = bias;
        for (size_t i = 0; i < kh; i++)
            for (size_t j = 0; j < kw; j++)
                s = FMA(LOAD(in + i * in_row + j * in_col, left),
                        LOAD(weights + i * w_row + j * channels, left), s);
        STORE(out, CLAMP(s, lo, hi), left);
    }
}

static void dwconv_channels(const qn_f32_dwconv_args *args, size_t c)
{
    const size_t kh = args->kh, kw = args->kw;
    size_t done = 0;
    if (kw == 3) {
        if (kh == 3 && args->in_step == args->in_col)
            done = dwconv_shared(args, 3, 1, c, LANES);
        else if (kh == 3 && args->in_step == 2 * args->in_col)
            done = dwconv_shared(args, 3, 2, c, LANES);
        else if (kh == 2 && args->in_step == args->in_col)
            done = dwconv_shared(args, 2, 1, c, LANES);
        dwconv_window(args, kh, 3, c, LANES, done);
    } else if (kw == 5) {
        dwconv_window(args, kh, 5, c, LANES, 0);
    } else {
        dwconv_window(args, kh, kw, c, LANES, 0);
    }
}

/* The last channels overlap the ones before: only fewer than a vector are masked. */
void DWCONV(const qn_f32_dwconv_args *args)
{
    const size_t channels = args->channels;
    if (channels < LANES)
        dwconv_window(args, args->kh, args->kw, 0, channels, 0);
    else
        for (size_t c = 0; c < channels; c += LANES)
            dwconv_channels(args, channels - c < LANES ? channels - LANES : c);
}

static inline __attribute__((always_inline)) void maxpool_channels(const qn_f32_pool_args *args,
                                                                   size_t c, const size_t left)
{
    const size_t in_row = args->in_row, in_col = args->in_col, in_step = args->in_step;
    const size_t kh = args->kh, kw = args->kw, out_step = args->out_step;
    const float *in = args->in + c;
    float *out = args->out + c;
    size_t x = 0;
    for (; x + RUN <= args->n; x += RUN, in += RUN * in_step, out += RUN * out_step) {
        const float *const in1 = in + in_step, *const in2 = in1 + in_step;
        const float *const in3 = in2 + in_step;
        VEC b0 = LOAD(in, left), b1 = LOAD(in1, left), b2 = LOAD(in2, left), b3 = LOAD(in3, left);
        for (size_t i = 0; i < kh; i++) {
            for (size_t j = 0; j < kw; j++) {
                const size_t at = i * in_row + j * in_col;
                b0 = MAX(LOAD(in + at, left), b0);
                b1 = MAX(LOAD(in1 + at, left), b1);
                b2 = MAX(LOAD(in2 + at, left), b2);
                b3 = MAX(LOAD(in3 + at, left), b3);
            }
        }
        STORE(out, b0, left);
        STORE(out + out_step, b1, left);
        STORE(out + 2 * out_step, b2, left);
        STORE(out + 3 * out_step, b3, left);
    }
    for (; x < args->n; x++, in += in_step, out += out_step) {
        VEC best = LOAD(in, left);
        for (size_t i = 0; i < kh; i++)
            for (size_t j = 0; j < kw; j++)
                best = MAX(LOAD(in + i * in_row + j * in_col, left), best);
        STORE(out, best, left);
    }
}

void MAXPOOL(const qn_f32_pool_args *args)
{
    const size_t channels = args->channels;
    if (channels < LANES)
        maxpool_channels(args, 0, channels);
    else
        for (size_t c = 0; c < channels; c += LANES)
            maxpool_channels(args, channels - c < LANES ? channels - LANES : c, LANES);
}

/* Taps are added one by one as in the reference; four vectors of channels hide the latency. */
void AVGPOOL(const qn_f32_pool_args *args)
{
    const VEC scale = SET1(args->scale);
    size_t c = 0;
    for (; c + 4 * LANES <= args->channels; c += 4 * LANES) {
        for (size_t x = 0; x < args->n; x++) {
            const float *const in = args->in + x * args->in_step + c;
            VEC s0 = ZERO(), s1 = ZERO(), s2 = ZERO(), s3 = ZERO();
            for (size_t i = 0; i < args->kh; i++) {
                for (size_t j = 0; j < args->kw; j++) {
                    const float *const tap = in + i * args->in_row + j * args->in_col;
                    s0 = ADD(s0, LOAD(tap, LANES));
                    s1 = ADD(s1, LOAD(tap + LANES, LANES));
                    s2 = ADD(s2, LOAD(tap + 2 * LANES, LANES));
                    s3 = ADD(s3, LOAD(tap + 3 * LANES, LANES));
                }
            }
            float *const out = args->out + x * args->out_step + c;
            STORE(out, MUL(s0, scale), LANES);
            STORE(out + LANES, MUL(s1, scale), LANES);
            STORE(out + 2 * LANES, MUL(s2, scale), LANES);
            STORE(out + 3 * LANES, MUL(s3, scale), LANES);
        }
    }
    for (; c < args->channels; c += LANES) {
        const size_t left = args->channels - c;
        for (size_t x = 0; x < args->n; x++) {
            const float *const in = args->in + x * args->in_step + c;
            VEC sum = ZERO();
            for (size_t i = 0; i < args->kh; i++)
                for (size_t j = 0; j < args->kw; j++)
                    sum = ADD(sum, LOAD(in + i * args->in_row + j * args->in_col, left));
            STORE(args->out + x * args->out_step + c, MUL(sum, scale), left);
        }
    }
}

#undef RUN
