/* How far rounding moves the channels' means: what a network's activations are on average in
 * integers beside what they are in float, layer by layer, what earlier layers lose being made up
 * for. */
#ifndef QN_CALIB_DRIFT_H
#define QN_CALIB_DRIFT_H

#include "calib/calib.h"

/* Integers of one tensor: real = (q - zero_point) * scale. scale 0: it is not rounded. */
typedef struct qn_drift_grid {
    float scale;
    int32_t zero_point, qmin, qmax;
} qn_drift_grid;

typedef struct qn_drift_options {
    const qn_drift_grid *grids; /* [n_tensors] */
    const uint32_t *ids;        /* tensors whose drift is wanted */
    size_t n_ids;
    const uint8_t *corrected; /* [next_node_id] nodes whose bias makes up for the drift of their
                                 first input, one of ids */
    double *const *means;     /* [n_tensors] of ids: channel means in float over the same samples */
    size_t limit;             /* samples, evenly spaced */
} qn_drift_options;

/* drifts[id]: [channels] mean in float minus mean in integers, freed with qn__free as is the list
 * (by tensor id; NULL where not wanted). The same bytes whatever the thread count. */
qn_status qn__drift(const qn_graph *graph, const qn_dataset *dataset,
                    const qn_drift_options *options, float ***drifts, qn_error *error);
void qn__drift_free(const qn_graph *graph, float **drifts);

#endif
