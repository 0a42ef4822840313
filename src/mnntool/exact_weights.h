/* Weights as MNN's tool rounds them: float32 arithmetic in its order, half away from zero. Arrays
 * are [rows][columns], one scale per row. */
#ifndef QN_MNNTOOL_EXACT_WEIGHTS_H
#define QN_MNNTOOL_EXACT_WEIGHTS_H

#include <stddef.h>
#include <stdint.h>

/* Puts every row on the grid of its largest magnitude / clamp. Rows of zeros stay. */
void qn__mnn_fake_quantize(float *w, size_t rows, size_t columns, int32_t clamp);
/* Largest magnitude / clamp; 0 for a row of zeros. */
void qn__mnn_scales_max_abs(const float *w, size_t rows, size_t columns, int32_t clamp,
                            float *scales);
/* 1,000 alternations of q = clamp(round(w / scale)) and scale = sum(w q) / sum(q q), from the
 * largest magnitude / (1.25 clamp). Returns sum|w| - sum|q scale|, which the tool prints. */
float qn__mnn_scales_admm(const float *w, size_t rows, size_t columns, int32_t clamp,
                          float *scales);
/* q = round(w / scale) within the integers of `bits`; 0 where the scale is at most 1e-6. */
void qn__mnn_round_weights(const float *w, size_t rows, size_t columns, uint32_t bits,
                           const float *scales, int8_t *q);
/* A row of zeros has scale 0 so far: it gets the layer's largest, with which its bias is still
 * exact enough. */
void qn__mnn_fill_scales(float *scales, size_t rows);

#endif
