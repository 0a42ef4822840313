/* quench/quantize.h - calibrate and quantize a model; what was decided and what it cost.
 *
 * @code
 *     qn_quantize_options options;
 *     qn_quantize_options_init(&options);
 *     options.target = "onnxruntime";
 *     qn_report *report = NULL;
 *     status = qn_quantize(model, dataset, &options, &quantized, &report, &error);
 *     status = qn_model_save(quantized, "out.onnx", QN_SAVE_QDQ, NULL, &error);
 * @endcode
 */
#ifndef QUENCH_QUANTIZE_H
#define QUENCH_QUANTIZE_H

#include "quench/dataset.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One --set or --skip: what it applies to and what it changes. */
typedef struct qn_override {
    const char *pattern; /* tensor or node name, "op:TYPE", or "/regex/" (POSIX extended) */
    const char *key; /* features, weights, granularity, weight-bits, weight-levels, weight-clamp,
                        feature-clamp, range ("lo:hi"), skip or float ("1") */
    const char *value;
} qn_override;

typedef struct qn_quantize_options {
    size_t struct_size;
    const char *target;          /* "onnxruntime" | "onnxruntime-arm" | "tensorrt" | "mnn"; NULL:
                                    the recipe's, else "mnn" for .mnn files, "onnxruntime" */
    const char *features;        /* NULL: default. names from qn_feature_method_name */
    const char *weights;         /* NULL: default. names from qn_weight_method_name */
    const char *granularity;     /* "channel" (default) | "tensor" */
    const char *activations;     /* NULL: the target's; "u8" | "s8" | "s8sym" */
    const char *calibrate_with;  /* NULL: default; "float" | "quantized-weights" */
    const char *bias_correction; /* NULL: default; "on" | "off" */
    const char *equalize;        /* NULL: default; "on" | "off": scale channels alike first */
    const char *x86;             /* "any" (default) | "avx2" | "vnni" */
    const char *recipe_file;     /* replay; may be NULL */
    const qn_override *overrides;
    size_t n_overrides;
    bool strict;   /* Conv/Gemm/MatMul/ConvTranspose left in float is an error */
    int64_t batch; /* samples per calibration batch [1]; matters to "ema" only */
    const int64_t (*input_dims)[QN_MODEL_MAX_RANK];
    qn_progress_fn progress;
    void *progress_ctx;
    uint32_t weight_bits;      /* 2..8; 0: default (8; ternary 2, pow2 4) */
    const char *weight_levels; /* NULL: default; "uniform" | "ternary" | "pow2" */
    uint32_t weight_clamp;     /* 1..127: largest integer of weights; 0: what the bits hold */
    uint32_t feature_clamp;    /* 1..127: the same of s8sym activations; 0: 127 */
    const char *scheme;        /* NULL: the recipe's, else "static": weights and activations, ranges
                                  calibrated; "dynamic": scales of activations made at run time,
                                  "dynamic-rows": one for each row along the last axis;
                                  "int8" | "int4" | "uint8" | "uint4": weights only, in blocks */
    uint32_t weight_block;   /* weights that share a scale when only weights are quantized: 16, 32,
                                64, 128 or 256; 0: default */
    const char *stats_file;  /* from qn_stats_collect, instead of a dataset; may be NULL */
    const char *ranges_file; /* calibration table of onnxruntime, TensorRT or ncnn; may be NULL */
    /* with stats_file: pictures must have been preprocessed so; NULL: however it was */
    const qn_preprocess *stats_preprocess;
} qn_quantize_options;
QN_API void qn_quantize_options_init(qn_quantize_options *options);

/* What a NULL option means: which is the name of a field ("target", "features", "weights",
 * "granularity", "calibrate_with", "bias_correction", "equalize", "x86", "weight_levels", "scheme",
 * "weight_block"); NULL for any other name. */
QN_API const char *qn_quantize_default(const char *which);
/* Method tables, index from 0; NULL past the end. */
QN_API const char *qn_feature_method_name(size_t index);
QN_API const char *qn_feature_method_summary(size_t index);
QN_API const char *qn_weight_method_name(size_t index);
QN_API const char *qn_weight_method_summary(size_t index);
QN_API const char *qn_target_name(size_t index);
QN_API const char *qn_target_summary(size_t index);

typedef struct qn_report qn_report;
/* Quantizes. dataset may be NULL only when a recipe with ranges is replayed or the
 * scheme is not "static". *out is a new model
 * (destroy it); *report may be NULL-pointer when not wanted (destroy it otherwise). */
QN_API qn_status qn_quantize(const qn_model *model, const qn_dataset *dataset,
                             const qn_quantize_options *options, qn_model **out, qn_report **report,
                             qn_error *error);
QN_API void qn_report_destroy(qn_report *report);

/* --- statistics as files --------------------------------------------------------------------- */
/* Calibration in parts, on several machines or with interruptions: qn_stats_collect writes what one
 * part of the samples shows, qn_stats_merge adds parts, and qn_quantize with stats_file does the
 * rest without samples. The bytes are those of one run over everything. */
typedef struct qn_stats_options {
    size_t struct_size;
    uint64_t part, n_parts; /* part 1 .. n_parts of the dataset's samples, in order [1 of 1] */
    bool resume;            /* go on from path.partial, which an interrupted run has left */
} qn_stats_options;
QN_API void qn_stats_options_init(qn_stats_options *options);
/* Calibrates on a part of dataset (which has all samples) with the same options as qn_quantize, and
 * writes what was seen to path. UNSUPPORTED for a feature method that cannot do it in parts. */
QN_API qn_status qn_stats_collect(const qn_model *model, const qn_dataset *dataset,
                                  const qn_quantize_options *options, const qn_stats_options *how,
                                  const char *path, qn_error *error);
/* Writes the merge of n files to path. INVALID_ARGUMENT where they are not parts of one run. */
QN_API qn_status qn_stats_merge(const qn_context *ctx, const char *const *paths, size_t n,
                                const char *path, qn_error *error);
/* What is in a statistics file, as text or JSON; *text is freed with qn_text_destroy.
 * INVALID_ARGUMENT where the file is not one. */
QN_API qn_status qn_stats_describe(const qn_context *ctx, const char *path, bool json, char **text,
                                   qn_error *error);

/* One node of the simplified graph. Strings are borrowed until the report is destroyed. */
typedef struct qn_report_node {
    const char *name;
    const char *op;
    uint64_t macs;
    bool quantized;       /* runs in integers on the target */
    const char *reason;   /* why not, or NULL */
    bool saturates;       /* 8-bit weights could leave int16 in vpmaddubsw pairs */
    uint32_t weight_bits; /* as asked for; 7 where 8 were narrowed; 0: no weights */
    double weight_error;  /* sum of (w - w_q)^2 over sum of w^2; 0: no weights */
} qn_report_node;
QN_API size_t qn_report_n_nodes(const qn_report *report);
QN_API bool qn_report_node_at(const qn_report *report, size_t index, qn_report_node *out);
/* Notes of the run ("opset 9 -> 13", "Concat ... ranges differ 40x: kept apart"); NULL past end. */
QN_API const char *qn_report_note(const qn_report *report, size_t index);
/* The whole recipe (JSON text, NUL-terminated), borrowed. */
QN_API const char *qn_report_recipe(const qn_report *report);
QN_API const char *qn_report_method(const qn_report *report, const char *which); /* "features"... */

/* --- comparing ------------------------------------------------------------------------------- */
typedef struct qn_compare_row {
    const char *name;                          /* tensor of the float model */
    const char *node;                          /* producer */
    double cosine, sqnr_db, max_abs, overflow; /* errors accumulating from the input */
    double alone_cosine, alone_sqnr_db;        /* the node alone: same quantized input to both */
} qn_compare_row;
typedef struct qn_comparison qn_comparison;
/* Runs both on the dataset (parallel over samples) and compares tensors of equal name, worst first
 * (lowest SQNR). */
QN_API qn_status qn_compare(const qn_model *model, const qn_model *quantized,
                            const qn_dataset *dataset, qn_comparison **out, qn_error *error);
QN_API void qn_comparison_destroy(qn_comparison *comparison);
QN_API bool qn_comparison_row(const qn_comparison *comparison, size_t index, qn_compare_row *out);

/* --- evaluating -------------------------------------------------------------------------------*/
typedef struct qn_evaluation {
    uint64_t n;              /* samples with a label */
    uint64_t top1, top5;     /* correct answers */
    double ci95_lo, ci95_hi; /* Wilson interval of top-1, as fractions */
    uint64_t changed;        /* top-1 answers that differ from the first model's */
    double agreement;        /* 1 - changed / samples */
    double ms;               /* median milliseconds per sample of the run itself */
} qn_evaluation;
/* Classifies every sample; predictions[i] receives the top class of sample i (caller's array of
 * qn_dataset_count, may be NULL); reference predictions of another model may be NULL. The first
 * output is taken as scores. */
QN_API qn_status qn_evaluate(const qn_model *model, const qn_dataset *dataset,
                             const qn_session_options *session, const int64_t *reference,
                             int64_t *predictions, qn_evaluation *out, qn_error *error);

/* --- inspecting: text for people, or JSON ------------------------------------------------------*/
/* *text is NUL-terminated, freed with qn_text_destroy. */
QN_API qn_status qn_model_describe(const qn_model *model, bool json, char **text, qn_error *error);
QN_API void qn_text_destroy(const qn_context *ctx, char *text);
/* Writes text (a recipe) to path atomically. */
QN_API qn_status qn_text_save(const qn_context *ctx, const char *path, const char *text,
                              qn_error *error);

#ifdef __cplusplus
}
#endif
#endif
