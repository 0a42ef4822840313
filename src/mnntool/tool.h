/* The parts of MNN's offline quantizer: configuration, statistics as its tool takes them, the files
 * it writes. qn_mnn_quantize (tool.c) puts them together. */
#ifndef QN_MNNTOOL_TOOL_H
#define QN_MNNTOOL_TOOL_H

#include "data/data.h"
#include "format/mnn/mnn_format.h"
#include "quench/mnn.h"

typedef enum qn_mnn_exact {
    QN_MNN_EXACT_SYMMETRIC = 1 << 0, /* zero point 0 everywhere, every tensor gets a scale */
    QN_MNN_EXACT_RESIZE = 1 << 1,    /* interpolated pixels are truncated, as on x86 */
    QN_MNN_EXACT_KL = 1 << 2,        /* 2,048 bins, float32 search */
    QN_MNN_EXACT_ADMM = 1 << 3, /* weight ADMM starts from weights already rounded by MAX_ABS */
    QN_MNN_EXACT_BITS = 1 << 4, /* fewer bits: scaled for 127 unless weight_clamp_value is given;
                                   symmetricQuan.nbits as quant_bits; linear tables */
    QN_MNN_EXACT_WINOGRAD = 1 << 5, /* EMA simulates Winograd as winogradOpt says */
    QN_MNN_EXACT_ALL = (1 << 6) - 1
} qn_mnn_exact;

typedef enum qn_mnn_feature { QN_MNN_KL, QN_MNN_ADMM, QN_MNN_EMA } qn_mnn_feature;
typedef enum qn_mnn_weight { QN_MNN_MAX_ABS, QN_MNN_WEIGHT_ADMM } qn_mnn_weight;

typedef struct qn_mnn_input { /* an entry of "inputs" */
    const char *name;
    size_t rank;
    int64_t dims[QN_MAX_RANK];
    float value; /* inputs that no picture fills hold it */
} qn_mnn_input;

typedef struct qn_mnn_config {
    qn_arena arena; /* owns the strings */
    const char *file;
    uint32_t channels;  /* of the format: 1, 3, 4 */
    const char *format; /* "RGB", "BGR", "GRAY", "RGBA", "BGRA" */
    float mean[4], normal[4];
    double center_crop_h, center_crop_w;
    uint32_t width, height; /* 0: the model's */
    const char *path;
    uint64_t used_number; /* 0: all */
    qn_mnn_feature feature;
    qn_mnn_weight weight;
    int32_t feature_clamp, weight_clamp; /* 1..127; of the weights: as quant_bits allows */
    bool has_weight_clamp;
    int64_t batch; /* 0: the model's, else 32; tool.c settles it before anything runs */
    int32_t bits;  /* 2..8 */
    bool winograd, has_winograd; /* has: the key was given */
    size_t n_skips;
    const char **skips; /* operator names left in float */
    bool sequence;      /* input_type */
    size_t n_inputs;
    qn_mnn_input *inputs;
    bool debug;
    uint32_t exact; /* qn_mnn_exact */
} qn_mnn_config;
/* config.c: reads and checks the JSON file; unknown keys and formats are warned about in ctx's log.
 * exact: restored by the caller; the file may add to it. */
qn_status qn__mnn_config_read(const qn_context *ctx, const char *path, uint32_t exact,
                              qn_mnn_config *out, qn_error *error);
/* "all" or a list of names; adds to *out. where: begins the message. */
qn_status qn__mnn_exact_parse(const char *list, const char *where, uint32_t *out, qn_error *error);
void qn__mnn_config_free(qn_mnn_config *config);

/* pictures.c: dims of the graph's inputs as configured (picture sizes, "inputs"); -1 with
 * sequences. *changed: they differ from the graph's. */
qn_status qn__mnn_input_dims(const qn_graph *graph, const qn_mnn_config *config,
                             int64_t (*dims)[QN_MAX_RANK], bool *changed, qn_error *error);
/* The samples, for inputs of these dims. */
qn_status qn__mnn_dataset(const qn_context *ctx, const qn_graph *graph, const qn_mnn_config *config,
                          const int64_t (*dims)[QN_MAX_RANK], qn_dataset **out, qn_error *error);

/* One run: everything its parts need. */
typedef struct qn_mnn_run {
    const qn_context *ctx;
    const qn_mnn_config *config;
    const qn_graph *graph; /* as read; tensor->source is the MNN id, node->sources the operators */
    qn_mnn_source *source; /* its document */
    const qn_dataset *dataset; /* the chosen samples, MNN's preprocessing */
    qn_mnn_print_fn print;     /* never NULL */
    void *print_ctx;
} qn_mnn_run;
/* print.c: a line in MNN's form, "[HH:MM:SS] @ LINE: text\n"; progress "\rLABEL: 4.17 %". */
void qn__mnn_log(const qn_mnn_run *run, int line, const char *format, ...) QN_PRINTF(3, 4);
void qn__mnn_progress(const qn_mnn_run *run, const char *label, size_t done, size_t total);
void qn__mnn_print(const qn_mnn_run *run, const char *format, ...) QN_PRINTF(2, 3);

/* Parameters by MNN tensor id. */
typedef struct qn_mnn_scales {
    const qn_context *ctx;
    size_t n_tensors;
    qn_mnn_tensor_quant *items; /* [n_tensors]; scale 0: none */
    bool *tracked;              /* [n_tensors] has statistics */
} qn_mnn_scales;
void qn__mnn_scales_free(qn_mnn_scales *scales);

/* exact.c: KL and ADMM as MNN's tool takes them: every tensor an executed operator reads or makes,
 * original float weights, symmetric, raster and pooling tied (KL). */
qn_status qn__mnn_exact_scales(const qn_mnn_run *run, qn_mnn_scales *out, qn_error *error);
/* exact_weights.c: the document with its convolutions in integers, as section 6 of the tool's
 * behaviour; records of all scales. */
qn_status qn__mnn_exact_document(const qn_mnn_run *run, const qn_mnn_scales *scales,
                                 qn_fb_document *out, qn_error *error);
/* debug.c: the table of cosine distance and overflow ratio, printed. */
qn_status qn__mnn_debug(const qn_mnn_run *run, const qn_mnn_scales *scales, qn_error *error);
/* ema.c: training-mode statistics; scales and the document with BatchNorm folded. */
qn_status qn__mnn_ema(const qn_mnn_run *run, qn_mnn_scales *scales, qn_fb_document *out,
                      qn_error *error);
/* better.c: the default mode, KL and ADMM with asymmetric scales where MNN runs them. *quantized
 * must outlive the document. */
qn_status qn__mnn_better(const qn_mnn_run *run, const struct qn_model *model, qn_mnn_scales *scales,
                         struct qn_model **quantized, qn_fb_document *out, qn_error *error);
/* The debug table of a model that qn__mnn_better made. */
qn_status qn__mnn_better_debug(const qn_mnn_run *run, const struct qn_model *model,
                               const struct qn_model *quantized, qn_error *error);
/* scales_json.c: the scale file's text; freed with qn__free. */
qn_status qn__mnn_scales_json(const qn_mnn_source *source, const qn_mnn_scales *scales, char **text,
                              qn_error *error);

#endif
