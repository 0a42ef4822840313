/* One-dimensional Winograd transforms. What they compute are the rows of B^T and A^T; in which
 * order is what MNN's AVX2 kernels do, without fused multiplication and addition. Vectors are
 * channels: the loops over them are the compiler's to vectorize. */
#include "mnntool/winograd.h"

#define ALWAYS static inline __attribute__((always_inline))

typedef const qn_winograd_line *line_ptr;

/* --- inputs ------------------------------------------------------------------------------------*/
ALWAYS void input4(line_ptr l)
{
    const float *restrict in = l->in;
    float *restrict out = l->out;
    const size_t si = l->step_in, so = l->step_out;
    for (size_t c = 0; c < l->n; c++) {
        const float s0 = in[c], s1 = in[si + c], s2 = in[2 * si + c], s3 = in[3 * si + c];
        out[c] = s0 - s2;
        out[so + c] = s1 + s2;
        out[2 * so + c] = s2 - s1;
        out[3 * so + c] = s3 - s1;
    }
}

ALWAYS void input6_first(line_ptr l)
{
    const float *restrict in = l->in;
    float *restrict out = l->out;
    const size_t si = l->step_in, so = l->step_out;
    for (size_t c = 0; c < l->n; c++) {
        const float s0 = in[c], s1 = in[si + c], s2 = in[2 * si + c];
        const float s3 = in[3 * si + c], s4 = in[4 * si + c], s5 = in[5 * si + c];
        const float even = s4 - s2 * 4.0f, odd = s3 - s1 * 4.0f;
        const float far_even = s4 - s2, far_odd = (s3 - s1) * 2.0f;
        out[c] = even - (s2 - s0 * 4.0f);
        out[so + c] = even + odd;
        out[2 * so + c] = even - odd;
        out[3 * so + c] = far_even + far_odd;
        out[4 * so + c] = far_even - far_odd;
        out[5 * so + c] = (s5 - s3 * 4.0f) - odd;
    }
}

ALWAYS void input6_second(line_ptr l)
{
    const float *restrict in = l->in;
    float *restrict out = l->out;
    const size_t si = l->step_in, so = l->step_out;
    for (size_t c = 0; c < l->n; c++) {
        const float s0 = in[c], s1 = in[si + c], s2 = in[2 * si + c];
        const float s3 = in[3 * si + c], s4 = in[4 * si + c], s5 = in[5 * si + c];
        out[c] = s0 * 4.0f - s2 * 5.0f + s4;
        out[so + c] = (s1 + s2) * -4.0f + s3 + s4;
        out[2 * so + c] = (s1 - s2) * 4.0f + s4 - s3;
        out[3 * so + c] = s1 * -2.0f - s2 + s3 * 2.0f + s4;
        out[4 * so + c] = s1 * 2.0f - s2 - s3 * 2.0f + s4;
        out[5 * so + c] = s1 * 4.0f - s3 * 5.0f + s5;
    }
}

ALWAYS void input8_first(line_ptr l)
{
    const float *restrict in = l->in;
    float *restrict out = l->out;
    const size_t si = l->step_in, so = l->step_out;
    for (size_t c = 0; c < l->n; c++) {
        const float s0 = in[c], s1 = in[si + c], s2 = in[2 * si + c], s3 = in[3 * si + c];
        const float s4 = in[4 * si + c], s5 = in[5 * si + c], s6 = in[6 * si + c];
        const float s7 = in[7 * si + c];
        const float even1 = (s6 + s2 * 36.0f) + s4 * -13.0f;
        const float odd1 = (s5 + s1 * 36.0f) + s3 * -13.0f;
        const float even2 = (s6 + s2 * 9.0f) + s4 * -10.0f;
        const float odd2 = (s5 + s1 * 18.0f) + (s5 + s3 * -20.0f);
        const float even3 = (s6 + s2 * 4.0f) + s4 * -5.0f;
        const float odd3 = (s5 * 3.0f + s1 * 12.0f) + s3 * -15.0f;
        out[c] = ((s4 + s0 * 36.0f) + s2 * -13.0f) - even1;
        out[so + c] = even1 + odd1;
        out[2 * so + c] = even1 - odd1;
        out[3 * so + c] = even2 + odd2;
        out[4 * so + c] = even2 - odd2;
        out[5 * so + c] = even3 + odd3;
        out[6 * so + c] = even3 - odd3;
        out[7 * so + c] = ((s7 + s3 * 36.0f) + s5 * -13.0f) - odd1;
    }
}

ALWAYS void input8_second(line_ptr l)
{
    const float *restrict in = l->in;
    float *restrict out = l->out;
    const size_t si = l->step_in, so = l->step_out;
    for (size_t c = 0; c < l->n; c++) {
        const float s0 = in[c], s1 = in[si + c], s2 = in[2 * si + c], s3 = in[3 * si + c];
        const float s4 = in[4 * si + c], s5 = in[5 * si + c], s6 = in[6 * si + c];
        const float s7 = in[7 * si + c];
        out[c] = s0 * 36.0f - s2 * 49.0f + s4 * 14.0f - s6;
        out[so + c] = (s1 + s2) * 36.0f - (s3 + s4) * 13.0f + (s5 + s6);
        out[2 * so + c] = (s2 - s1) * 36.0f + (s3 - s4) * 13.0f + (s6 - s5);
        out[3 * so + c] = s1 * 18.0f + s2 * 9.0f - s3 * 20.0f - s4 * 10.0f + s5 * 2.0f + s6;
        out[4 * so + c] = s2 * 9.0f - s1 * 18.0f + s3 * 20.0f - s4 * 10.0f - s5 * 2.0f + s6;
        out[5 * so + c] = s1 * 12.0f + s2 * 4.0f - s3 * 15.0f - s4 * 5.0f + s5 * 3.0f + s6;
        out[6 * so + c] = s2 * 4.0f - s1 * 12.0f + s3 * 15.0f - s4 * 5.0f - s5 * 3.0f + s6;
        out[7 * so + c] = s3 * 49.0f - s1 * 36.0f - s5 * 14.0f + s7;
    }
}

void qn__winograd_input_line(int32_t alpha, bool second, const qn_winograd_line *line)
{
    if (alpha == 4)
        input4(line);
    else if (alpha == 6 && second)
        input6_second(line);
    else if (alpha == 6)
        input6_first(line);
    else if (second)
        input8_second(line);
    else
        input8_first(line);
}

/* --- outputs -----------------------------------------------------------------------------------*/
/* unit and last are constants where these are inlined. */
ALWAYS void output4(line_ptr l, const int32_t unit)
{
    const float *restrict in = l->in;
    float *restrict out = l->out;
    const size_t si = l->step_in, so = l->step_out;
    for (size_t c = 0; c < l->n; c++) {
        const float s0 = in[c], s1 = in[si + c], s2 = in[2 * si + c], s3 = in[3 * si + c];
        out[c] = s0 + s1 + s2;
        if (unit == 2) {
            out[so + c] = (s1 - s2) + s3;
        } else {
            out[so + c] = s1 - s2;
            out[2 * so + c] = (s1 + s2) + s3;
        }
    }
}

ALWAYS void output6(line_ptr l, const int32_t unit)
{
    const float *restrict in = l->in;
    float *restrict out = l->out;
    const size_t si = l->step_in, so = l->step_out;
    for (size_t c = 0; c < l->n; c++) {
        const float s0 = in[c], s1 = in[si + c], s2 = in[2 * si + c];
        const float s3 = in[3 * si + c], s4 = in[4 * si + c], s5 = in[5 * si + c];
        const float even1 = s1 + s2, odd1 = s1 - s2, even2 = s3 + s4, odd2 = s3 - s4;
        if (unit == 4) {
            out[c] = s0 + even1 + even2;
            out[so + c] = odd1 + odd2 + odd2;
        } else {
            out[c] = s0 + s1 + s2 + s3 + s4;
            out[so + c] = odd1 + odd2 * 2.0f + (unit == 2 ? s5 : -0.0f); /* x + -0 is x */
        }
        if (unit > 2)
            out[2 * so + c] = even1 + even2 * 4.0f + (unit == 3 ? s5 : -0.0f);
        if (unit > 3)
            out[3 * so + c] = odd1 + odd2 * 8.0f + (unit == 4 ? s5 : -0.0f);
        if (unit > 4)
            out[4 * so + c] = even1 + even2 * 16.0f + s5;
    }
}

ALWAYS void output8(line_ptr l, const int32_t unit, const bool last)
{
    const float *restrict in = l->in;
    float *restrict out = l->out;
    const size_t si = l->step_in, so = l->step_out;
    for (size_t c = 0; c < l->n; c++) {
        const float s0 = in[c], s1 = in[si + c], s2 = in[2 * si + c], s3 = in[3 * si + c];
        const float s4 = in[4 * si + c], s5 = in[5 * si + c], s6 = in[6 * si + c];
        const float s7 = in[7 * si + c];
        const float even1 = s1 + s2, even2 = s3 + s4, even3 = s5 + s6;
        const float odd1 = s1 - s2, odd2 = s3 - s4, odd3 = s5 - s6;
        if (unit < 4)
            out[c] = s0 + s1 + s2 + s3 + s4 + s5 + s6;
        else
            out[c] = s0 + even1 + even2 + even3;
        out[so + c] = odd1 + odd2 * 2.0f + odd3 * 3.0f + (unit == 2 ? s7 : -0.0f);
        if (unit == 3 && !last)
            out[2 * so + c] = (even1 + even2 * 4.0f) + (even3 * 9.0f + s7);
        else if (unit > 2)
            out[2 * so + c] = even1 + even2 * 4.0f + even3 * 9.0f + (unit == 3 ? s7 : -0.0f);
        if (unit > 3)
            out[3 * so + c] = odd1 + odd2 * 8.0f + odd3 * 27.0f + (unit == 4 ? s7 : -0.0f);
        if (unit > 4)
            out[4 * so + c] = even1 + even2 * 16.0f + even3 * 81.0f + (unit == 5 ? s7 : -0.0f);
        if (unit > 5)
            out[5 * so + c] = odd1 + odd2 * 32.0f + odd3 * 243.0f + (unit == 6 ? s7 : -0.0f);
        if (unit > 6)
            out[6 * so + c] = even1 + even2 * 64.0f + even3 * 729.0f + s7;
    }
}

static void output_line8(int32_t unit, bool last, line_ptr l)
{
    switch (unit) {
    case 2:
        output8(l, 2, true);
        break;
    case 3:
        if (last)
            output8(l, 3, true);
        else
            output8(l, 3, false);
        break;
    case 4:
        output8(l, 4, true);
        break;
    case 5:
        output8(l, 5, true);
        break;
    case 6:
        output8(l, 6, true);
        break;
    default:
        output8(l, 7, true);
        break;
    }
}

void qn__winograd_output_line(int32_t alpha, int32_t unit, bool last, const qn_winograd_line *line)
{
    if (alpha == 8)
        output_line8(unit, last, line);
    else if (alpha == 4 && unit == 2)
        output4(line, 2);
    else if (alpha == 4)
        output4(line, 3);
    else if (unit == 2)
        output6(line, 2);
    else if (unit == 3)
        output6(line, 3);
    else if (unit == 4)
        output6(line, 4);
    else
        output6(line, 5);
}
