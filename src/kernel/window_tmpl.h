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

/* kh, kw are constants for the common windows: taps unroll and weights stay in registers. */
static inline __attribute__((always_inline)) void
dwconv_window(const qn_f32_dwconv_args *args, const size_t kh, const size_t kw, size_t c)
{
    const VEC lo = SET1(args->clamp.lo), hi = SET1(args->clamp.hi);
    const size_t left = args->channels - c;
    const VEC bias = LOAD(args->bias + c, left);
    const float *in = args->in + c;
    float *out = args->out + c;
    size_t x = 0;
    for (; x + RUN <= args->n; x += RUN, in += RUN * args->in_step, out += RUN * args->out_step) {
        const float *const in1 = in + args->in_step, *const in2 = in1 + args->in_step;
        const float *const in3 = in2 + args->in_step;
        VEC s0 = bias, s1 = bias, s2 = bias, s3 = bias;
        for (size_t i = 0; i < kh; i++) {
            for (size_t j = 0; j < kw; j++) {
                const VEC w = LOAD(args->w + i * args->w_row + j * args->channels + c, left);
                const size_t at = i * args->in_row + j * args->in_col;
                s0 = FMA(LOAD(in + at, left), w, s0);
                s1 = FMA(LOAD(in1 + at, left), w, s1);
                s2 = FMA(LOAD(in2 + at, left), w, s2);
                s3 = FMA(LOAD(in3 + at, left), w, s3);
            }
        }
        STORE(out, CLAMP(s0, lo, hi), left);
        STORE(out + args->out_step, CLAMP(s1, lo, hi), left);
        STORE(out + 2 * args->out_step, CLAMP(s2, lo, hi), left);
        STORE(out + 3 * args->out_step, CLAMP(s3, lo, hi), left);
    }
    for (; x < args->n; x++, in += args->in_step, out += args->out_step) {
        VEC s = bias;
        for (size_t i = 0; i < kh; i++)
            for (size_t j = 0; j < kw; j++)
                s = FMA(LOAD(in + i * args->in_row + j * args->in_col, left),
                        LOAD(args->w + i * args->w_row + j * args->channels + c, left), s);
        STORE(out, CLAMP(s, lo, hi), left);
    }
}

void DWCONV(const qn_f32_dwconv_args *args)
{
    for (size_t c = 0; c < args->channels; c += LANES) {
        if (args->kh == 3 && args->kw == 3)
            dwconv_window(args, 3, 3, c);
        else if (args->kw == 3)
            dwconv_window(args, args->kh, 3, c);
        else if (args->kw == 2)
            dwconv_window(args, args->kh, 2, c);
        else if (args->kw == 5)
            dwconv_window(args, args->kh, 5, c);
        else
            dwconv_window(args, args->kh, args->kw, c);
    }
}

void MAXPOOL(const qn_f32_pool_args *args)
{
    for (size_t c = 0; c < args->channels; c += LANES) {
        const size_t left = args->channels - c;
        for (size_t x = 0; x < args->n; x++) {
            const float *const in = args->in + x * args->in_step + c;
            VEC best = LOAD(in, left);
            for (size_t i = 0; i < args->kh; i++)
                for (size_t j = 0; j < args->kw; j++)
                    best = MAX(LOAD(in + i * args->in_row + j * args->in_col, left), best);
            STORE(args->out + x * args->out_step + c, best, left);
        }
    }
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
