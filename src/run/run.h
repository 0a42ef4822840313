/* One executor: a plan (immutable, shareable) is a list of kernel calls over one arena; an exec is
 * one thread's use of it.
 *
 * Layout: graph axes are NCHW; the plan stores 4-D activations that convolutions and pools touch
 * channels-last and everything else row-major, and inserts conversions. Rank and dims are always
 * the graph's; `layout` says how the bytes lie.
 *
 * Quantized nodes (all activation types QUANT) compute the target's integers: products in 8-bit
 * kernels, or, where those do not apply, of values (q - zero point) held exactly in float, K in
 * blocks of at most 512, block sums in int32; then float requantization rounding half to even. The
 * stored tensor is the target's integer.
 */
#ifndef QN_RUN_RUN_H
#define QN_RUN_RUN_H

#include "core/threads.h"
#include "ir/graph.h"
#include "ir/packed.h"

typedef enum qn_layout { QN_LAYOUT_ROW_MAJOR = 0, QN_LAYOUT_CHANNELS_LAST = 1 } qn_layout;

/* A tensor's bytes with what is needed to read them. */
typedef struct qn_view {
    const qn_tensor *tensor; /* of the graph given to plan: id, name, type */
    qn_layout layout;
    uint8_t rank;
    int64_t dims[QN_MAX_RANK]; /* bound, NCHW order whatever the layout */
    size_t count;
    size_t pitch; /* 0, or pixels, channels last, lie so many elements apart (op.h: joins) */
    bool absent;  /* nothing is written there: the step that reads it makes it for itself */
    void *data;   /* storage dtype */
} qn_view;

/* Row-major real values (dequantized) of a view: dst is [count]. */
void qn__view_to_f32(const qn_view *view, float *dst);
/* The opposite: values rounded into the view's own type and layout. */
void qn__view_from_f32(const qn_view *view, const float *src);
/* The same to a quantized view, quotients x / scale rounded to `precision` (a float type) first. */
void qn__view_quantize(const qn_view *view, const float *src, qn_dtype precision);

typedef struct qn_plan_options {
    /* Dims of each graph input, in graph input order; NULL: the graph's own, symbols bound by
     * `batch`. */
    const int64_t (*input_dims)[QN_MAX_RANK];
    int64_t batch;   /* value of every symbolic first dimension of inputs, default 1 */
    int64_t symbol;  /* value of other symbolic dimensions, default 0: an error */
    bool keep_all;   /* every tensor of the graph must exist for hooks: no fusion hides one */
    bool reference;  /* integer Conv/Gemm/MatMul as an exact float simulation: same bytes */
    bool saturate16; /* integer Conv/Gemm/MatMul saturate int16 pair sums as vpmaddubsw does */
    qn_requantize requantize; /* DEFAULT: as the graph says */
    /* NULL, or what float convolutions take where it fits: to measure, not for results. */
    const struct qn_split_igemm *split;
    /* NULL, or what is asked for an implementation that stands in for a node's own (NULL: none). */
    const struct qn_run_op *(*instead)(const qn_node *node);
    /* Bytes of float matrices kept as kernels read them; those above it are packed at every run. 0:
     * none. */
    size_t packed_limit;
    /* NULL, or instead of the best that cpu_flags allow; borrowed for the call. */
    const struct qn_kernels *kernels;
    uint32_t cpu_flags; /* from the context by default (qn__plan_options_init) */
    /* Only to pack weights for other machines (run/packing.h): where they are put, and what to pack
     * for instead of this machine, borrowed for the call; such a plan cannot run. */
    struct qn_packed_list *collect;
    bool (*collect_add)(struct qn_packed_list *list, const qn_packed_entry *entry);
    const struct qn_packing_form *collect_for;
} qn_plan_options;
void qn__plan_options_init(qn_plan_options *options, const qn_context *ctx);

typedef struct qn_plan qn_plan;
/* graph is borrowed until qn__plan_destroy. UNSUPPORTED / CORRUPT name the node. */
qn_status qn__plan_create(const qn_graph *graph, const qn_plan_options *options, qn_plan **out,
                          qn_error *error);
/* The same for a graph whose shapes are all static and whose nodes with constant inputs are folded:
 * planned as it is, without a copy and without shape inference (all that the stand-alone runtime
 * has). input_dims, batch and symbol are not looked at. */
qn_status qn__plan_create_static(const qn_graph *graph, const qn_plan_options *options,
                                 qn_plan **out, qn_error *error);
void qn__plan_destroy(qn_plan *plan);
size_t qn__plan_arena_bytes(const qn_plan *plan);
size_t qn__plan_packed_bytes(const qn_plan *plan);
/* Of these, bytes used where the model file has them (ir/packed.h). */
size_t qn__plan_mapped_bytes(const qn_plan *plan);
typedef struct qn_plan_memory {
    size_t arena;  /* of values, and of what steps need for themselves */
    size_t live;   /* the most that lives at one time: no arena can be smaller */
    size_t packed; /* weights */
} qn_plan_memory;
void qn__plan_memory(const qn_plan *plan, qn_plan_memory *out);

/* Called for each tensor as it is produced (and for inputs), in execution order, in the session's
 * thread; without keep_all not for those whose bytes do not lie together, or that are never written
 * (qn_view.absent). It may change the values in place. A non-OK status stops the run. */
typedef qn_status (*qn_hook_fn)(void *ctx, const qn_view *view, qn_error *error);

typedef struct qn_exec qn_exec;
/* pool: threads used inside one run (NULL: single-threaded, e.g. one session per worker). */
qn_status qn__exec_create(const qn_plan *plan, qn_pool *pool, qn_exec **out, qn_error *error);
void qn__exec_destroy(qn_exec *session);
/* The same in the caller's memory of qn__exec_bytes, aligned to 64 bytes; it is not destroyed. */
qn_status qn__exec_bytes(const qn_plan *plan, size_t *out, qn_error *error);
qn_exec *qn__exec_place(const qn_plan *plan, qn_pool *pool, void *memory);
void qn__exec_set_hook(qn_exec *session, qn_hook_fn hook, void *ctx);
/* Inputs: row-major in the input's own dtype, one pointer per graph input, borrowed for the call. A
 * pointer to the input's own memory (qn__exec_input) says that it was filled in place. */
qn_status qn__exec_run(qn_exec *session, const void *const *inputs, qn_error *error);
/* The same a step at a time, for several sessions side by side: begin, then every step from 0 to
 * n_steps in order. Between two steps any value that the hook was shown may be changed. */
size_t qn__exec_n_steps(const qn_exec *session);
qn_status qn__exec_begin(qn_exec *session, const void *const *inputs, qn_error *error);
qn_status qn__exec_step(qn_exec *session, size_t index, qn_error *error);
/* What a step reads first, in the layout it reads, and the node of the graph it computes; NULL for
 * a conversion of layouts and for a constant. */
const qn_view *qn__exec_step_input(const qn_exec *session, size_t index, const qn_node **node);
/* Memory of input i (row-major), which a run may use for something else. */
const qn_view *qn__exec_input(const qn_exec *session, size_t index);
/* After a run: output i (row-major; valid until the next run). */
const qn_view *qn__exec_output(const qn_exec *session, size_t index);

/* Per-step profile of the last run when enabled (bench). */
typedef struct qn_step_time {
    const char *node;   /* graph node name, or "(layout)" */
    const char *kernel; /* kernel name */
    double seconds;
    uint64_t macs;
} qn_step_time;
void qn__exec_set_profiling(qn_exec *session, bool enabled);
const qn_step_time *qn__exec_profile(const qn_exec *session, size_t *count);

/* Folds every node whose inputs are all constant (and shape arithmetic on static shapes) into
 * constants, and infers shapes, in one forward walk. Outputs above max_bytes are left alone. */
qn_status qn__graph_resolve(qn_graph *graph, size_t max_bytes, qn_error *error);

#endif
