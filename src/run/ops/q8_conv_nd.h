/* Convolution of bytes over three axes and more in real integers. */
#ifndef QN_RUN_OPS_Q8_CONV_ND_H
#define QN_RUN_OPS_Q8_CONV_ND_H

#include "run/ops/q8_run.h"
#include "run/ops/simulated.h"

/* Axes of outputs: pictures, then the window's. */
enum { QN_Q8_ND_AXES = QN_ND_AXES + 1 };

typedef struct qn_q8_conv_nd {
    qn_qconv_nd_shape shape;
    size_t axes;
    size_t m; /* outputs of all pictures */
    size_t in[QN_Q8_ND_AXES], padded[QN_Q8_ND_AXES], out[QN_Q8_ND_AXES];
    size_t step[QN_Q8_ND_AXES]; /* bytes in the copy from one output to the next */
    size_t pitch[QN_Q8_ND_AXES];
    bool in_place;
    uint8_t zero; /* the byte of padding */
    size_t parts; /* of weights */
    qn_requant requant;
    qn_q8_packed packed;
    size_t *taps;   /* [w.taps] offsets in the copy */
    size_t row;     /* so many of them are one of the product's */
    size_t rows_at; /* in the scratch memory */
    bool has_rows;
    int32_t *depthwise;     /* NULL, or [c] bases, then int8 weights [parts][taps][c] */
    qn_q8_dwconv_fn kernel; /* with those */
    bool small_scales;
} qn_q8_conv_nd;

/* out: zeros but for the shape. Sets layouts, scratch, packed bytes and kernel name of the step.
 * What requant points to stays borrowed; after an error qn__q8_conv_nd_free frees what was made. */
qn_status qn__q8_conv_nd_prepare(const qn_plan *plan, qn_step *step, const qn_qparams *x,
                                 const qn_qweights *weights, const qn_requant *requant,
                                 qn_q8_conv_nd *out, qn_error *error);
void qn__q8_conv_nd_run(const qn_q8_conv_nd *conv, const qn_run_env *env, const qn_view *in,
                        const qn_view *out);
void qn__q8_conv_nd_free(const qn_context *ctx, qn_q8_conv_nd *conv);

#endif
