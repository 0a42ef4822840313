/* Quantization: targets as tables, weight methods, the decisions of a run, the rewrite of a float
 * graph into a quantized one, recipe and report. The rewrite gets calibrated ranges as a plain
 * table and needs no runtime. */
#ifndef QN_QUANT_QUANT_H
#define QN_QUANT_QUANT_H

#include "calib/train.h"
#include "ir/graph.h"
#include "quant/levels.h"
#include "quench/quantize.h"

/* --- scale and zero-point mathematics (quant/params.c) -----------------------------------------*/
/* Asymmetric or symmetric parameters of a range for integers qmin..qmax. The range is extended to
 * contain 0; a degenerate range gives scale 1, zero point 0 (128 for symmetric u8). */
void qn__quant_params(float lo, float hi, int32_t qmin, int32_t qmax, bool symmetric, float *scale,
                      int32_t *zero_point);
/* saturate(round_half_even(x / scale) + zero_point) */
int32_t qn__quantize_value(float x, float scale, int32_t zero_point, int32_t qmin, int32_t qmax);

/* --- targets (quant/targets.c, quant/targets.def, quant/op_rules.def) --------------------------*/
typedef enum qn_rule {
    QN_RULE_FLOAT = 0, /* no integer form on the target */
    QN_RULE_WEIGHTS,   /* Conv, Gemm, MatMul: constant weights, output parameters of its own */
    QN_RULE_OWN,       /* own output parameters; integer when an input is */
    QN_RULE_SAME,      /* values pass through: output has the input's parameters */
    QN_RULE_FIXED,     /* output range [0, 1] by definition: scale 1/256 */
    QN_RULE_CONCAT     /* own output parameters, inputs may differ */
} qn_rule;

typedef struct qn_target {
    const char *name;
    const char *summary;
    uint32_t mask;       /* its bit in op_rules.def */
    qn_dtype activation; /* U8 or I8 */
    bool symmetric;      /* activations: zero point 0, -127..127 */
    bool float_bias;     /* the runtime wants biases in float */
    bool x86_pairs;      /* may run on vpmaddubsw: the saturation proof applies */
} qn_target;
const qn_target *qn__target_find(const char *name);
const qn_target *qn__target_at(size_t index);
/* Rule of an operator; for FLOAT *reason is why ("the target has no integer ConvTranspose"). */
qn_rule qn__target_rule(const qn_target *target, qn_op op, const char **reason);

/* --- weight methods (one file each, quant/weights.def) -----------------------------------------*/
struct qn_gptq_problem;
typedef struct qn_weight_method {
    const char *name;
    const char *summary;
    /* Step for one group of count weights; 0 when all are zero. False: out of memory. */
    bool (*scale)(const qn_context *ctx, const float *w, size_t count, const qn_levels *levels,
                  float *out);
    /* Chooses integers with the layer's inputs in view (quant/gptq.h): scales [channels] are those
     * of `scale` and may be changed, q is [channels][k]. NULL: round to nearest. */
    qn_status (*round)(const qn_context *ctx, const struct qn_gptq_problem *problem, float *scales,
                       int8_t *q, qn_error *error);
    bool wants_slack; /* of the problem: `round` moves scales */
} qn_weight_method;
const qn_weight_method *qn__weight_method_at(size_t index);
const qn_weight_method *qn__weight_method_find(const char *name);
extern const qn_weight_method qn__weight_max_abs, qn__weight_admm; /* others take their steps */
float qn__max_abs(const float *w, size_t count);

/* --- schemes (quant/scheme.c)
 * ------------------------------------------------------------------- */
typedef enum qn_scheme {
    QN_SCHEME_STATIC = 0, /* weights and activations, ranges calibrated */
    QN_SCHEME_DYNAMIC,    /* products whose activations get their scale at run time */
    QN_SCHEME_WEIGHTS     /* weights of products in blocks, activations in float */
} qn_scheme;
#define QN_DEFAULT_SCHEME "static"
#define QN_DEFAULT_BLOCK 32
struct qn_settings;
/* Reads the word and settles what goes with it; everything else in settings is chosen. data: there
 * are samples, or a recipe. INVALID_ARGUMENT: options that cannot go together. */
qn_status qn__scheme_choose(const char *word, uint32_t block, bool data,
                            const qn_quantize_options *options, struct qn_settings *settings,
                            qn_error *error);
/* Rule of an operator in a scheme that is not static. */
qn_rule qn__scheme_rule(const struct qn_settings *settings, qn_op op, const char **reason);
/* May an override with this key be given? */
qn_status qn__scheme_override(const struct qn_settings *settings, const qn_override *o,
                              qn_error *error);

/* --- decisions of a run (quant/decide.c) ------------------------------------------------------ */
typedef struct qn_settings {
    qn_scheme scheme;
    const char *scheme_word; /* as options have it */
    uint32_t block;          /* of QN_SCHEME_WEIGHTS */
    bool zero_points;        /* its weights are unsigned, with zero points */
    bool dynamic_rows;       /* a scale made at run time for each row */
    const qn_target *target;
    qn_dtype activation; /* target's or --activations */
    bool symmetric;
    const qn_feature_method *features;
    const qn_weight_method *weights;
    qn_level_set level_set;
    uint32_t weight_bits;   /* 0: as many as the level set is for */
    uint32_t weight_clamp;  /* 0: none */
    uint32_t feature_clamp; /* 0: none */
    bool per_channel;
    bool quantized_weights; /* calibrate with fake-quantized weights */
    bool bias_correction;
    bool equalize;   /* scale channels before calibrating */
    bool x86_pairs;  /* apply the saturation proof */
    const char *x86; /* "any", "avx2", "vnni" */
    int64_t batch;
    const qn_override *overrides;
    size_t n_overrides;
    const char *recipe_path; /* where the first n_recorded of them come from */
    size_t n_recorded;
} qn_settings;

/* Weights of one node as they will be written. */
typedef struct qn_weights_plan {
    const qn_weight_method *method;
    qn_level_set level_set; /* what is asked for: of the settings, or an override */
    uint32_t asked_bits, clamp;
    qn_levels levels; /* what follows from it */
    bool per_channel;
    int8_t axis;    /* output channels */
    bool saturates; /* 8-bit weights could leave int16 */
    uint32_t bits;  /* of the levels; 7 where 8 were narrowed */
    size_t n_narrowed;
    double error; /* sum of (w - w_q)^2 over sum of w^2 */
} qn_weights_plan;

typedef struct qn_node_plan {
    bool quantized;
    bool tail; /* feeds nothing but outputs: float keeps their precision */
    qn_rule rule;
    const char *reason; /* why float */
    qn_weights_plan weights;
    const qn_rows *rows; /* sampled inputs for a method that compensates, borrowed; or NULL */
    int8_t *integers;    /* weights such a method chose, in the constant's order; a recipe's in the
                            arena, chosen ones in the rewritten graph */
    float *scales;       /* and its scales by channel, where it changes them */
} qn_node_plan;

typedef struct qn_tensor_plan {
    bool integer;   /* made by a quantized node */
    bool wanted;    /* needs parameters: integer, or float and read by a quantized node */
    uint32_t root;  /* tensor whose parameters it shares (itself) */
    bool fixed;     /* parameters by definition, not by range */
    bool has_range; /* set by override or recipe */
    bool own_range; /* lo, hi are its own, whatever root says after Concat inputs were tied */
    float lo, hi;   /* with has_range, then what is used */
    uint32_t clamp; /* largest integer its range is spread over, 0: the format's */
    const qn_feature_method *features;
} qn_tensor_plan;

typedef struct qn_quant_plan {
    const qn_graph *graph; /* simplified float graph, borrowed */
    const qn_settings *settings;
    qn_arena arena;
    qn_node_plan *nodes;     /* [graph->n_nodes] by position */
    qn_tensor_plan *tensors; /* [graph->n_tensors] by id */
    qn_uses uses;
    size_t n_notes, notes_capacity;
    const char **notes;
    const qn_train_norm *norms; /* statistics that were folded, for the recipe; borrowed */
    size_t n_norms;
} qn_quant_plan;

/* qn_node_plan.reason of what a quantized file has in integers. */
extern const char qn__reason_integers[];
/* What becomes integer and whose parameters are whose, before calibration. Errors:
 * INVALID_ARGUMENT for an override that matches nothing or cannot be parsed. */
qn_status qn__quant_plan_create(const qn_graph *graph, const qn_settings *settings,
                                qn_quant_plan *out, qn_error *error);
void qn__quant_plan_free(qn_quant_plan *plan);
bool qn__quant_plan_note(qn_quant_plan *plan, const char *format, ...) QN_PRINTF(2, 3);
/* Ranges from a calibration table of onnxruntime, TensorRT or ncnn (range_table.h), where nothing
 * else gave one. */
qn_status qn__quant_range_table(qn_quant_plan *plan, const char *path, qn_error *error);
/* Tensors that calibration must observe; caller frees with qn__free. */
qn_status qn__quant_plan_items(const qn_quant_plan *plan, qn_calib_item **items, size_t *n_items,
                               qn_error *error);
/* Takes over calibrated ranges (NULL: all are known), decides what depends on them. */
qn_status qn__quant_plan_ranges(qn_quant_plan *plan, const qn_ranges *ranges, qn_error *error);
uint32_t qn__quant_plan_root(const qn_quant_plan *plan, uint32_t tensor_id);

/* Integers and storage of activations under these settings. */
void qn__activation_limits(const qn_settings *settings, uint32_t clamp, int32_t *qmin,
                           int32_t *qmax);
/* Index of the constant weight input of a WEIGHTS node (1), and is input i an activation? */
bool qn__is_activation_input(const qn_node *node, uint32_t index);

/* Does pattern ("name", "op:TYPE", "/regex/") match? A regular expression that does not compile is
 * an INVALID_ARGUMENT error. (quant/pattern.c) */
typedef struct qn_pattern qn_pattern;
qn_status qn__pattern_create(const qn_context *ctx, const char *text, qn_pattern **out,
                             qn_error *error);
void qn__pattern_destroy(qn_pattern *pattern);
bool qn__pattern_matches_node(const qn_pattern *pattern, const qn_node *node);
bool qn__pattern_matches_tensor(const qn_pattern *pattern, const qn_tensor *tensor);
/* ": did you mean ...?" for a pattern that matches nothing, into text, returned; empty when nothing
 * is near it. */
const char *qn__pattern_guess(const qn_graph *graph, const char *pattern, char *text, size_t size);

/* --- integers of weights (quant/weights.c, quant/saturation.c) ---------------------------------*/
/* Order of the weights of a node seen as [channels][k] for one output channel: w[c * stride_c + k *
 * stride_k], k < K; for Conv k runs over [cin][kh][kw]. */
typedef struct qn_weight_view {
    size_t channels, k;
    size_t stride_c, stride_k;
    size_t positions; /* kh * kw for Conv (k = cin * positions), 1 otherwise */
    bool pairs;       /* runs through a matrix product: depthwise convolutions do not */
} qn_weight_view;
bool qn__weight_view(const qn_node *node, qn_weight_view *out);

/* True when no sum of two products of unsigned bytes (0..255) with weights of one channel leaves
 * int16 for any pairing of the channel's inputs. q: [k] */
bool qn__pairs_safe_any(const int8_t *q, size_t k);
/* The same for the pairs that a matrix product really forms: inputs 2i and 2i+1 in the
 * channels-last order [kh][kw][cin]. q is in the order [cin][kh][kw]. */
bool qn__pairs_safe_adjacent(const int8_t *q, size_t k, size_t positions);

/* Scale and integers of a node's weights. scales: [channels] (all equal per tensor); q: in the
 * constant's own order. Smallest scales are raised so that min_scale[c] <= scale[c] (bias range;
 * NULL: no bound). */
qn_status qn__quantize_weights(const qn_context *ctx, const qn_weight_view *view, const float *w,
                               const float *min_scale, bool prove_pairs, qn_weights_plan *plan,
                               float *scales, int8_t *q, qn_error *error);

/* Weights of a MatMul or Gemm in blocks of `block` along k (quant/blocks.c): type of the constant,
 * parameters in the graph's arena, and its data. */
qn_status qn__quantize_blocks(qn_graph *graph, const qn_node *node, const qn_settings *settings,
                              const float *w, qn_weights_plan *plan, qn_type *type, qn_blob **blob,
                              qn_error *error);

/* --- the rewrite (quant/rewrite.c) -------------------------------------------------------------*/
/* What bias corrections follow from, by tensor id: NULL or [channels] means of the float values,
 * and (calib/drift.h) what they lose in integers. */
typedef struct qn_mean_shifts {
    double *const *means;
    float *const *drifts;
} qn_mean_shifts;
/* New graph with quantized types from the plan's graph. Bias correction: shifts is NULL or, per
 * node position, NULL or [channels] values added to the bias; where it is NULL and means has the
 * node's input, the shift is computed from the weights' rounding errors and the drift and stored in
 * shifts, in the plan's arena. Fills plan->nodes[].weights. */
qn_status qn__quant_rewrite(qn_quant_plan *plan, const qn_mean_shifts *means, float **shifts,
                            qn_graph **out, qn_error *error);
/* Clone of the plan's graph with the weights of quantized nodes replaced by their quantized values
 * in float. */
qn_status qn__quant_fake_weights(qn_quant_plan *plan, qn_graph **out, qn_error *error);
/* Scale, zero point and type tensor id has in the quantized graph. */
void qn__activation_params(const qn_quant_plan *plan, uint32_t tensor_id, float *scale,
                           int32_t *zero_point);
qn_status qn__activation_type(const qn_quant_plan *plan, uint32_t tensor_id, qn_graph *graph,
                              qn_type *out, qn_error *error);

/* Drifts of the inputs of nodes whose bias is to be corrected, shifts of the node being NULL
 * (quant/drift.c). graph: the plan's, or its clone with rounded weights; means: of those inputs in
 * float over the same n_samples. *drifts stays as it is when there are none; freed with
 * qn__drift_free. */
qn_status qn__quant_drift(const qn_quant_plan *plan, const qn_graph *graph,
                          const qn_dataset *dataset, double *const *means, size_t n_samples,
                          float *const *shifts, float ***drifts, qn_error *error);
/* How many samples are worth their time: more where they are small. */
qn_status qn__drift_samples(const qn_graph *graph, const qn_dataset *dataset, size_t *out,
                            qn_error *error);

/* --- equalization of channels (quant/equalize.c) -----------------------------------------------*/
/* Per node position of the simplified graph: exponents of the channels of its output, or NULL. */
typedef struct qn_equalization {
    int32_t **exponents;
    size_t *n_exponents;
} qn_equalization;
/* Tensors whose channel peaks decide; caller frees *ids with qn__free. */
qn_status qn__equalize_candidates(qn_graph *graph, uint32_t **ids, size_t *count, qn_error *error);
/* Scales graph in place with the exponents given, or chosen from peaks (by tensor id) where NULL,
 * and stores them. What the graph computes stays the same. */
qn_status qn__equalize(qn_graph *graph, float *const *peaks, qn_equalization *list,
                       qn_error *error);

/* --- methods of the whole run (quant/train.c) --------------------------------------------------*/
bool qn__has_batch_norm(const qn_graph *graph);
/* Ranges of the tensors of plan whose method trains, by the ids of `graph`: the plan's own, or the
 * unfolded one it was simplified from. Weights of nodes that become integer are rounded first.
 * *out is empty (ctx NULL) when there is no such tensor. */
qn_status qn__quant_train(const qn_quant_plan *plan, const qn_graph *graph,
                          const qn_dataset *dataset, const qn_quantize_options *options,
                          qn_train_result *out, qn_error *error);
/* Ranges of tensors of `from` go to the tensors of the same names of `graph`. */
void qn__train_take(const qn_train_result *result, const qn_graph *from, const qn_graph *graph,
                    qn_ranges *ranges);

/* --- recipe (quant/recipe.c, recipe_check.c, recipe_norms.c, recipe_write.c)
 * --------------------*/
#define QN_RECIPE_VERSION 1
/* Every decision of a run as JSON. What is wrong with one is said with its path: "FILE:
 * ranges["conv1"][1]: ...". */
typedef struct qn_recipe {
    const qn_context *ctx;
    char *path;
    struct json_t *root; /* jansson */
} qn_recipe;
qn_status qn__recipe_load(const qn_context *ctx, const char *path, qn_recipe *out, qn_error *error);
void qn__recipe_free(qn_recipe *recipe);
/* All that can be said without a model: keys, types, names of methods, numbers and their ranges.
 * qn__recipe_load does it. */
qn_status qn__recipe_check(const qn_recipe *recipe, qn_error *error);
/* Setting as text, NULL when the recipe does not say. */
const char *qn__recipe_setting(const qn_recipe *recipe, const char *key);
uint32_t qn__recipe_number(const qn_recipe *recipe, const char *key); /* 0: does not say */
int64_t qn__recipe_batch(const qn_recipe *recipe, int64_t fallback);
size_t qn__recipe_n_overrides(const qn_recipe *recipe);
void qn__recipe_override(const qn_recipe *recipe, size_t index, qn_override *out);
/* Ranges go into the plan. INVALID_ARGUMENT for a tensor the graph does not have. */
qn_status qn__recipe_ranges(const qn_recipe *recipe, qn_quant_plan *plan, qn_error *error);
/* Statistics of BatchNormalization nodes of graph; empty when none are recorded. */
qn_status qn__recipe_norms(const qn_recipe *recipe, const qn_graph *graph, qn_train_result *out,
                           qn_error *error);
struct json_t *qn__recipe_norms_json(const qn_train_norm *norms, size_t n_norms, bool *ok);
/* Integers of weights go into the plan. */
/* Small enough to be written into a recipe? */
bool qn__recipe_has_integers(const qn_quant_plan *plan);
qn_status qn__recipe_integers(const qn_recipe *recipe, qn_quant_plan *plan, qn_error *error);
/* Bias corrections per node position, arrays in the plan's arena; *found false: none recorded. */
qn_status qn__recipe_biases(const qn_recipe *recipe, qn_quant_plan *plan, float **shifts,
                            bool *found, qn_error *error);
/* Exponents by node position of graph, arrays in its arena; *found false: none recorded. */
qn_status qn__recipe_equalization(const qn_recipe *recipe, qn_graph *graph, qn_equalization *list,
                                  bool *found, qn_error *error);
/* The text of a run's recipe, freed with qn__free. dataset may be NULL; replayed may be NULL. */
qn_status qn__recipe_write(const qn_quant_plan *plan, const qn_dataset *dataset,
                           const qn_recipe *replayed, float *const *shifts,
                           const qn_equalization *equalization, char **text, qn_error *error);
/* Names of settings as options and recipes spell them. */
const char *qn__setting_activations(const qn_settings *settings);

/* --- report (quant/report.c) -------------------------------------------------------------------*/
/* recipe passes to the report on success. macs: [n_nodes]. */
qn_status qn__report_create(const qn_quant_plan *plan, const uint64_t *macs, char *recipe,
                            qn_report **out, qn_error *error);

#endif
