/* Running the samples of a dataset, which may differ in shape: a plan for each shape, an executor
 * for each thread. A plan lives while a lane runs it and a little longer: memory does not grow with
 * the number of shapes. */
#ifndef QN_CALIB_LANES_H
#define QN_CALIB_LANES_H

#include "calib/calib.h"
#include "run/run.h"

/* Plans, shared by the lanes of several threads. */
typedef struct qn_plans qn_plans;
/* graph and dataset are borrowed; n_lanes: how many there will be. options->input_dims are set
 * here, and a limit on packed weights is one on those of all plans together. The plan of the first
 * sample is made at once. */
qn_status qn__plans_create(const qn_graph *graph, const qn_dataset *dataset,
                           const qn_plan_options *options, size_t n_lanes, qn_plans **out,
                           qn_error *error);
void qn__plans_destroy(qn_plans *plans);

/* A thread's executor and buffers. Zeroed before qn__lane_init; lanes go before their plans. */
typedef struct qn_lane {
    qn_plans *plans;
    qn_exec *exec;
    qn_feed feed;
    qn_pool *pool;
    qn_hook_fn hook;
    void *hook_arg;
    struct qn_shape_plan *held;
} qn_lane;
/* Fit for the first sample. hook: NULL or what the executor calls (qn__exec_set_hook). */
qn_status qn__lane_init(qn_lane *lane, qn_plans *plans, qn_pool *pool, qn_hook_fn hook,
                        void *hook_arg, qn_error *error);
/* Makes exec and feed those of the sample's shape. */
qn_status qn__lane_fit(qn_lane *lane, size_t sample, qn_error *error);
/* The same, and the sample in feed: values and pointers. */
qn_status qn__lane_load(qn_lane *lane, size_t sample, qn_error *error);
/* [graph inputs] dims it is fit for. */
const int64_t (*qn__lane_dims(const qn_lane *lane))[QN_MAX_RANK];
void qn__lane_free(qn_lane *lane);

#endif
