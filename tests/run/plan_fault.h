/* Every allocation of planning fails once. */
#ifndef QN_TESTS_PLAN_FAULT_H
#define QN_TESTS_PLAN_FAULT_H

#include "fault/fault.h"
#include "run_net.h"

/* A builder whose context allocates through `f`. */
static inline void plan_fault_start(fault *f, builder *b)
{
    const qn_allocator allocator = fault_allocator(f);
    qn_context_options options;
    qn_context_options_init(&options);
    options.allocator = &allocator;
    options.n_threads = 1;
    assert_int_equal(qn_context_create(&options, &b->ctx, &b->error), QN_OK);
    assert_int_equal(qn__graph_create(b->ctx, &b->graph, &b->error), QN_OK);
}

/* A net on such a builder, to be freed when that has ended. */
static inline net *plan_fault_net(fault *f)
{
    net *const n = calloc(1, sizeof(*n));
    assert_non_null(n);
    plan_fault_start(f, &n->b);
    return n;
}

/* Each failure must be a status and leak nothing, at least `least` calls fail, and running, when
 * inputs are given, allocates nothing. Ends the builder. */
static inline void plan_fault_sweep_as(fault *f, builder *b, const qn_plan_options *options,
                                       const void *const *inputs, uint64_t least)
{
    const int64_t live = f->live;
    uint64_t failures = 0;
    for (uint64_t at = 1;; at++) {
        f->calls = 0;
        f->fail_at = at;
        qn_plan *plan = NULL;
        qn_exec *exec = NULL;
        qn_status status = qn__plan_create(b->graph, options, &plan, &b->error);
        if (status == QN_OK && inputs != NULL)
            status = qn__exec_create(plan, NULL, &exec, &b->error);
        if (status == QN_OK && inputs != NULL) {
            const uint64_t calls = f->calls;
            assert_int_equal(qn__exec_run(exec, inputs, &b->error), QN_OK);
            assert_int_equal(f->calls, calls);
        }
        if (status != QN_OK && status != QN_NO_MEMORY)
            fail_msg("allocation %d: %s", (int)at, b->error.message);
        failures += status != QN_OK;
        qn__exec_destroy(exec);
        qn__plan_destroy(plan);
        assert_int_equal(f->live, live);
        if (status == QN_OK && f->calls < at)
            break;
    }
    assert_true(failures > least);
    f->fail_at = 0;
    build_end(b);
    assert_int_equal(f->live, 0);
}

static inline void plan_fault_sweep(fault *f, builder *b, const void *const *inputs, uint64_t least)
{
    plan_fault_sweep_as(f, b, NULL, inputs, least);
}

#endif
