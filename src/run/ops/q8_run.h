/* Quantized products in real integers: packs 8-bit weights for the indirect GEMM kernel and runs it
 * over a whole matrix, as igemm_run does for float. Every output is computed by one kernel call, so
 * the result does not depend on the number of threads. */
#ifndef QN_RUN_OPS_Q8_RUN_H
#define QN_RUN_OPS_Q8_RUN_H

#include "run/ops/qweights.h"
#include "run/prepacked.h"

/* Kernels of up to this many taps times rows keep their row pointers on the stack. */
#define QN_Q8_STACK_ROWS 2048

/* Whether a product of these activations and weights can run in 8-bit integers: centred weights are
 * sums of a few of int8 and the zero point is a value that a byte of the activation can hold. */
bool qn__q8_applies(const qn_plan *plan, const qn_qparams *x, const qn_qweights *w);
/* The same of the activations alone. */
bool qn__q8_activations(const qn_plan *plan, const qn_qparams *x);
/* One of a weight's parts, as even as they can be, so that neighbouring products are small: halves
 * rounded down, halves rounded up. 768 is a multiple of 2 and 3 and makes quotients positive. */
static inline int8_t qn_q8_part(int32_t weight, int32_t parts, int32_t part)
{
    return (int8_t)((weight + 768 + part) / parts - 768 / parts);
}
/* Centred weights as int8, in the tensor's order, all first parts before the second ones: their own
 * bytes, or a copy that *own is set to (qn__free); NULL: no memory. */
const int8_t *qn__q8_values(const qn_context *ctx, const qn_qweights *w, size_t count,
                            int8_t **own);
/* The byte that stands for zero in activations. */
static inline uint8_t qn_q8_zero_byte(const qn_qparams *x)
{
    return (uint8_t)x->zero;
}
/* Looks for constant input 1 of a step in the model file, in as many parts as may be there, by
 * `find`, which begins a product of so many and says whether it found it. Where it is not there,
 * takes the values of the weights (`axis`: of their columns) and begins the product as they are. */
typedef enum qn_q8_found { QN_Q8_NO_BYTES, QN_Q8_TO_PACK, QN_Q8_IN_FILE } qn_q8_found;
typedef bool (*qn_q8_find_fn)(const qn_plan *plan, const qn_step *step, void *state, size_t parts);
qn_status qn__q8_search(const qn_plan *plan, const qn_step *step, int axis, const qn_qparams *x,
                        qn_qweights *weights, qn_q8_find_fn find, void *state, qn_q8_found *out,
                        qn_error *error);
/* Bytes packed for such columns (numbers: groups, columns of one, and whatever else the bytes
 * depend on) that the model file has under the entry's layout; false: it has not. Then the entry
 * says what they may be kept under. Only of constants with these activations. salt: what the bytes
 * depend on beside the quantized weights as they are; 0: nothing, and weights have a scale. */
bool qn__q8_look_up(const qn_plan *plan, const qn_step *step, const qn_qparams *x,
                    const qn_requant *requant, const size_t *numbers, size_t n_numbers,
                    uint64_t salt, qn_packed_entry *entry);
/* Of weights in parts; what others begin theirs with. */
enum { QN_Q8_SALT_TRANSPOSED = 4, QN_Q8_SALT_INTEGERS };
static inline uint64_t qn_q8_salt(size_t parts)
{
    return parts > 1 ? parts : 0;
}
/* Output format of a requantization. */
qn_q8_out qn__q8_format(const qn_requant *requant);

/* Requantization by integers: kernels leave sums, some on the stack at a time, of which fn makes
 * bytes. */
typedef struct qn_q8_by_fixed {
    qn_q8_fixed_fn fn;
    const qn_multiplier *columns; /* NULL: by floats, in the kernels */
    bool once;
} qn_q8_by_fixed;
static inline qn_q8_by_fixed qn_q8_by_fixed_of(const qn_requant *requant)
{
    return (qn_q8_by_fixed){requant->fixed_fn, requant->fixed, qn_fixed_once(requant->kind)};
}
/* Sums on the stack: a row of outputs of a picture, or a tile of rows and some panels: of kernels
 * with 32 rows twelve panels of 16 columns. */
enum { QN_Q8_SUMS = (32 + QN_Q8_SUMS_OVER) * 12 * 16 };
/* From one row of them to the next. */
static inline size_t qn_q8_sums_stride(size_t n)
{
    return (n + QN_Q8_SUMS_STEP - 1) / QN_Q8_SUMS_STEP * QN_Q8_SUMS_STEP;
}
/* Bytes of `rows` rows of n columns from `column` on: out says their range. */
void qn__q8_fixed_rows(const qn_q8_by_fixed *fixed, const qn_q8_out *out, const int32_t *sums,
                       size_t rows, size_t n, size_t column, uint8_t *to, size_t to_stride);

/* Weights of `groups` products of n columns each, packed one after another. */
typedef struct qn_q8_packed {
    const uint8_t *data; /* 64-byte aligned: own, or a model file's */
    uint8_t *own;
    bool in_room; /* own is the plan's (qn__plan_packed_room) */
    size_t bytes, group_bytes, panel_bytes;
    size_t n, kc, ks, groups;
    size_t parts, taps; /* weights in parts are read as so many times the same taps; ks of all */
    uint8_t flip;
    bool safe, small_scales, short_sums; /* as the kernel has them */
    qn_q8_igemm kernel;
    uint64_t salt;         /* qn__q8_look_up, set by the caller */
    qn_packed_entry entry; /* what files keep it under */
} qn_q8_packed;
/* What the sums of a column begin with, columns of all groups counted. */
int32_t qn__q8_base(const qn_q8_packed *packed, size_t column);
/* Sizes, flip and small_scales from what the caller has set (n, kc, ks, groups, kernel; parts where
 * there are several); false: too large. */
bool qn__q8_set_sizes(qn_q8_packed *out, const qn_qparams *x, const qn_requant *requant);
/* w: int8, element (column, p, k) of group g at g * stride_group + column * stride_n + p * stride_p
 * + k * stride_k; scales and biases of `requant` go into the panels. out: n, kc, ks, groups and
 * kernel are set by the caller. */
typedef struct qn_q8_strides {
    size_t group, n, p, k;
} qn_q8_strides;
qn_status qn__q8_pack(const qn_plan *plan, const qn_step *step, const qn_qparams *x,
                      const qn_requant *requant, const int8_t *w, const qn_q8_strides *strides,
                      qn_q8_packed *out, qn_error *error);
/* The same from what the model file has packed of constant input 1 of the node; false: it has not,
 * and what qn__q8_pack makes is kept where packed weights are gathered. */
bool qn__q8_find(const qn_plan *plan, const qn_step *step, const qn_qparams *x,
                 const qn_requant *requant, const qn_q8_strides *strides, qn_q8_packed *out);
void qn__q8_packed_free(const qn_context *ctx, qn_q8_packed *packed);

typedef struct qn_q8_job {
    const qn_q8_packed *packed;
    size_t m;
    void *c;
    size_t c_stride, c_group; /* elements: between rows; from one group's columns to the next's */
    qn_q8_out out;
    qn_q8_by_fixed fixed; /* of all groups' columns */
    /* Not NULL: row m is at first + group * first_group + m * step, and there is one tap. */
    const uint8_t *first;
    size_t first_group, step;
    /* Otherwise writes packed->taps groups of kernel->mr row pointers for output rows m0 .. m0 +
     * mr, entries from mr to qn_q8_rows_end repeating a valid row. Without row_buffer there is room
     * for QN_Q8_STACK_ROWS pointers. */
    void (*rows)(const struct qn_q8_job *job, size_t group, size_t m0, size_t mr,
                 const uint8_t **a);
    const void *ctx; /* of rows and of finish */
    /* Called, where it is set, once rows m0 .. m0 + mr of columns n0 .. n0 + nc are computed. */
    void (*finish)(const struct qn_q8_job *job, size_t m0, size_t mr, size_t n0, size_t nc);
    size_t run; /* rows from a multiple of this many to the next lie evenly spaced; 0: unknown */
    const uint8_t *ahead; /* NULL, or what will be read after this product */
    size_t ahead_bytes;
    const uint8_t **row_buffer; /* qn__q8_buffer_bytes; NULL when that is 0 */
} qn_q8_job;
/* Bytes of row_buffer for m rows; false on overflow. 0 unless there are very many taps. */
bool qn__q8_buffer_bytes(size_t *out, const qn_q8_packed *packed, size_t m);
/* What follows from the weights is written into the job. */
void qn__q8_run(qn_q8_job *job, qn_pool *pool);

/* What a thread has on its stack: rows of sums of which no bytes are made yet, and room for
 * pointers. */
typedef struct qn_q8_held {
    _Alignas(64) int32_t sums[QN_Q8_SUMS + QN_Q8_FIXED_OVER];
    const uint8_t *pointers[QN_Q8_STACK_ROWS];
    size_t rows;
    uint8_t *c;
} qn_q8_held;
/* The same of one group and few weights, in this thread, on the caller's stack: without `fixed` and
 * a row_buffer its sums are the caller's. */
void qn__q8_run_held(qn_q8_job *job, qn_q8_held *held);

/* Pointers to mr rows in line, and to up to seven more. */
void qn__q8_spaced_rows(const qn_q8_igemm *kernel, const uint8_t *first, size_t step, size_t mr,
                        const uint8_t **a);

#endif
