/* One run of qn_quantize, in three parts: its settings (quantize_settings.c), what it finds out
 * from samples (quantize_measure.c), and the order of steps (quantize.c). */
#ifndef QN_QUANT_QUANTIZE_H
#define QN_QUANT_QUANTIZE_H

#include "calib/stats.h"
#include "quant/model.h"
#include "quant/quant.h"

/* Everything one call holds on to. */
typedef struct qn_run {
    const qn_context *ctx;
    const qn_model *model;
    const qn_dataset *dataset;
    const qn_quantize_options *options;
    qn_recipe recipe;       /* ctx NULL: none */
    qn_override *overrides; /* the recipe's, then the caller's */
    qn_settings settings;
    qn_graph *graph;         /* simplified float graph */
    qn_graph *unfolded;      /* what was trained before BatchNormalization was folded, or NULL */
    qn_train_result trained; /* by its tensors' ids, else by those of graph */
    qn_quant_plan plan;
    qn_ranges ranges;
    float **shifts;               /* [n_nodes] bias corrections */
    float **drifts;               /* by tensor id, or NULL */
    qn_equalization equalization; /* arrays [n_nodes] */
    qn_rows *rows;                /* [n_rows] sampled inputs */
    size_t n_rows;
    qn_graph *quantized;
    qn_stats *stats;                         /* read, or being collected; NULL: neither */
    const qn_stats_collect_options *collect; /* NULL: ranges are wanted, not statistics */
    double since;                            /* when the last phase ended, for the log */
} qn_run;

/* The caller's options, else the recipe's, else defaults. */
qn_status qn__run_choose(qn_run *r, qn_error *error);
/* The float graph; a method that trains does so before BatchNormalization is folded. */
qn_status qn__run_simplify(qn_run *r, qn_error *error);
qn_status qn__run_equalize(qn_run *r, qn_error *error);
/* Ranges, means and inputs of layers that the plan wants. */
qn_status qn__run_calibrate(qn_run *r, bool biases_known, qn_error *error);
/* All that a scheme without calibrated ranges wants of samples: inputs of layers. */
qn_status qn__run_sample_rows(qn_run *r, qn_error *error);

#endif
