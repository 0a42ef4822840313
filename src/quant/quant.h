/* Quantization: targets as tables, weight methods, the rewrite of a float graph into a quantized
 * one, recipe and report. The rewrite gets calibrated ranges as a plain table and needs no runtime. */
#ifndef QN_QUANT_QUANT_H
#define QN_QUANT_QUANT_H

#include "ir/graph.h"
#include "quench/quantize.h"

/* --- scale and zero-point mathematics (quant/params.c) -----------------------------------------*/
/* Asymmetric or symmetric parameters of a range for integers qmin..qmax. The range is extended to
 * contain 0; a degenerate range gives scale 1, zero point 0 (128 for symmetric u8). */
void qn__quant_params(float lo, float hi, int32_t qmin, int32_t qmax, bool symmetric, float *scale,
                      int32_t *zero_point);
/* saturate(round_half_even(x / scale) + zero_point) */
int32_t qn__quantize_value(float x, float scale, int32_t zero_point, int32_t qmin, int32_t qmax);

/* --- targets (quant/targets.c, quant/targets.def) ----------------------------------------------*/
typedef struct qn_target qn_target;
const qn_target *qn__target_find(const char *name);
const qn_target *qn__target_at(size_t index);

/* --- weight methods (one file each, quant/weights.def) -----------------------------------------*/
typedef struct qn_weight_method {
    const char *name;
    const char *summary;
    /* Largest |w| represented (the clip) for one group of count weights. */
    float (*clip)(const float *w, size_t count, int32_t qmax);
} qn_weight_method;
const qn_weight_method *qn__weight_method_at(size_t index);
const qn_weight_method *qn__weight_method_find(const char *name);

#endif
