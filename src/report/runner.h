/* Many samples through one model: a simplified graph and its plans shared by one single-threaded
 * executor per worker. */
#ifndef QN_REPORT_RUNNER_H
#define QN_REPORT_RUNNER_H

#include "calib/lanes.h"
#include "quant/model.h"
#include "quench/quantize.h"

typedef struct qn_runner {
    const qn_context *ctx;
    qn_graph *graph;
    qn_plans *plans;
    uint32_t n_workers;
    qn_lane *lanes; /* [n_workers] */
} qn_runner;
qn_status qn__runner_create(const qn_model *model, const qn_dataset *dataset, bool simplify,
                            bool keep_all, bool saturate16, qn_requantize requantize,
                            qn_runner *out, qn_error *error);
void qn__runner_free(qn_runner *runner);

/* First failure by sample index, whatever the threads did. */
typedef struct qn_failure {
    _Atomic bool any;
    _Atomic bool lock;
    uint64_t index;
    qn_status status;
    qn_error error;
} qn_failure;
/* How many samples are done, for the callback; total 0: nothing was begun. */
typedef struct qn_tally {
    const char *phase;
    qn_progress_fn progress; /* NULL: the context's */
    void *progress_ctx;
    uint64_t total;
    uint64_t done; /* under lock */
    bool stopped;  /* under lock: the callback is not called any more */
    _Atomic bool lock;
} qn_tally;
/* One sample more. CANCELLED when the callback says so. */
qn_status qn__tally_sample(const qn_context *ctx, qn_tally *tally, qn_error *error);
/* qn_compare with a callback of its own. */
qn_status qn__compare(const qn_model *model, const qn_model *quantized, const qn_dataset *dataset,
                      qn_progress_fn progress, void *progress_ctx, qn_comparison **out,
                      qn_error *error);
void qn__failure_note(qn_failure *failure, uint64_t index, qn_status status, const qn_error *error);

#endif
