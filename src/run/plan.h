/* What a plan is made of; shared by plan.c, exec.c and resolve.c. */
#ifndef QN_RUN_PLAN_H
#define QN_RUN_PLAN_H

#include "run/op.h"

#define QN_NO_VALUE UINT32_MAX

/* One tensor in one layout. Several values share memory when one is a view of the other or was
 * computed in its place: then `root` names the value whose memory it is (while memory is being
 * shared, one on the way there: qn__plan_root). */
typedef struct qn_value {
    qn_view view; /* data: constants only */
    size_t bytes;
    uint32_t root;
    uint32_t first, last; /* of a root: steps during which the memory is in use */
    size_t offset;        /* of a root, in the arena */
    size_t at;            /* in the root's memory */
    bool shares;          /* other values have, or had, it as their root */
    bool is_constant;
    bool borrows; /* of an input: nothing is written to its memory, a run may use the caller's */
    void *owned;  /* aligned copy of constant data made for this plan */
} qn_value;

typedef struct qn_plan_step {
    qn_step op; /* node NULL: layout conversion of in[0] to out[0] */
    uint32_t n_in, n_out;
    uint32_t *in, *out; /* value indices or QN_NO_VALUE */
    bool skip;          /* shares memory with its input: nothing to do */
    uint64_t macs;
    const void *ahead; /* packed weights of the next step that has any, or NULL */
    size_t ahead_bytes;
    size_t scratch_at; /* of op.scratch_bytes, in the arena */
} qn_plan_step;

/* Memory that the packed weights of a large network share, for the sake of its pages. */
typedef struct qn_packed_room {
    void *memory;
    uint8_t *at, *end;
} qn_packed_room;

struct qn_plan {
    const qn_context *ctx;
    const qn_graph *source; /* borrowed: what hooks are shown tensors of */
    const qn_graph *graph;  /* what is planned: `bound`, or `source` itself */
    qn_graph *bound;        /* clone with static shapes, or NULL */
    qn_plan_options options;
    qn_kernels kernels;
    qn_plan_step *steps;
    size_t n_steps, steps_capacity;
    qn_value *values;
    size_t n_values, values_capacity;
    uint32_t *by_layout[2];     /* [n_tensors] value of a tensor in each layout */
    uint32_t *primary;          /* [n_tensors] value the producer writes */
    uint32_t *inputs, *outputs; /* value indices */
    size_t arena_bytes, packed_bytes, mapped_bytes;
    qn_packed_room *room; /* NULL: there is none */
    size_t live_bytes;    /* lower bound of arena_bytes */
};

/* Plans `graph`, whose shapes are static; the graph that tensors are shown of is `source`, which
 * has the same ids. Both are borrowed. Messages do not name the file. */
qn_status qn__plan_make(const qn_graph *graph, const qn_graph *source,
                        const qn_plan_options *options, qn_plan **out, qn_error *error);

/* Reads implementation for a node; UNSUPPORTED naming it when there is none. */
qn_status qn__node_impl(const qn_node *node, const qn_run_op **out, qn_error *error);
/* Finds the implementation of step->node and prepares it; nodes on floats other than float32 that
 * it does not know are computed in float32 (widen.c). */
qn_status qn__step_prepare(const qn_plan *plan, qn_step *step, qn_error *error);

/* The value whose memory `value` lies in, which then is its root. */
uint32_t qn__plan_root(qn_plan *plan, uint32_t value);
/* Places inputs of a step that joins them in its output's memory (join.c), and has the step skipped
 * where all of them are. Values up to this step share memory already; uses: how often steps read
 * each value. */
void qn__plan_join(qn_plan *plan, qn_plan_step *step, uint32_t now, const uint32_t *uses);

/* Leaves the quantization right before a step to it where it can do it on the way and nothing else
 * reads what it makes (join.c). */
void qn__plan_fuse(qn_plan *plan, qn_plan_step *step, uint32_t now, const uint32_t *uses);

/* --- memory.c --------------------------------------------------------------------------------- */
typedef struct qn_mem_item {
    size_t bytes;
    uint32_t first, last; /* inclusive */
    size_t offset;        /* result, multiple of 64 */
} qn_mem_item;
/* Places items so that those alive at the same time do not overlap, in `bound` bytes
 * (qn__memory_bound) or little more if it finds how. LIMIT on overflow. */
qn_status qn__memory_plan(const qn_context *ctx, qn_mem_item *items, size_t count, size_t bound,
                          size_t *total_bytes, qn_error *error);
/* The most bytes that live at one time, which no placement goes below. change: room for `times`
 * numbers, more than last + 1 of every item. Of more than can be addressed any number. */
size_t qn__memory_bound(const qn_mem_item *items, size_t count, uint64_t *change, size_t times);

#endif
