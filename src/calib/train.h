/* Ranges as a network sees them while it is trained for integers: batches in order,
 * BatchNormalization with the statistics of the batch, every measured tensor rounded to its
 * integers before the next node reads it. */
#ifndef QN_CALIB_TRAIN_H
#define QN_CALIB_TRAIN_H

#include "calib/calib.h"

/* Running statistics of one BatchNormalization. */
typedef struct qn_train_norm {
    uint32_t node_id;
    const char *name; /* of the node, borrowed from the graph */
    size_t channels;
    float *mean, *variance; /* [channels] */
} qn_train_norm;

struct qn_train_result {
    const qn_context *ctx;
    qn_ranges ranges; /* by tensor id, of options->items */
    qn_train_norm *norms;
    size_t n_norms;
    uint64_t batch, steps; /* as used: a batch is never larger than the dataset */
};

/* Looks at the values of an item, whose range is measured all the same, but which are not rounded:
 * sample once for each of a batch, on several threads; batch when all of them were seen. */
typedef struct qn_train_look {
    void *arg;
    qn_status (*sample)(void *arg, size_t index, const struct qn_view *view, qn_error *error);
    qn_status (*batch)(void *arg, size_t n_samples, qn_error *error);
} qn_train_look;

/* Runs graph over floor(samples / batch) batches in the order of the samples (the rest is not used;
 * fewer samples than one batch are one batch). options: items (the tensors, with their integers),
 * batch, progress; everything else is not looked at. Weights are taken as they are: the caller
 * rounds them. */
qn_status qn__train(const qn_graph *graph, const qn_dataset *dataset,
                    const qn_calib_options *options, qn_train_result *out, qn_error *error);
void qn__train_free(qn_train_result *result);

/* Puts statistics into the BatchNormalization nodes of graph, found by node id. */
qn_status qn__train_set_norms(qn_graph *graph, const qn_train_norm *norms, size_t n_norms,
                              qn_error *error);

/* --- arithmetic of one batch (train_batch.c) --------------------------------------------------*/
/* Steps of the range [lo, hi], which is extended to contain 0: real = (q - zero) * scale. The range
 * becomes what the integers reach. scale 0: nothing but zeros. */
typedef struct qn_train_grid {
    float scale, zero, qmin, qmax;
} qn_train_grid;
qn_train_grid qn__train_grid(float *lo, float *hi, const qn_range_format *format);
void qn__train_round(const qn_train_grid *grid, float *values, size_t count);

#endif
