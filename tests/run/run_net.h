/* Small graphs that are planned and run in tests, with inputs in either layout. */
#ifndef QN_TESTS_RUN_NET_H
#define QN_TESTS_RUN_NET_H

#include <math.h>
#include <stdlib.h>

#include "ir/graph_build.h"
#include "run/nd.h"
#include "run/run.h"

#define NET_INPUTS 4
#define NET_MAX 65536 /* elements of any tensor of a test */

typedef struct net {
    builder b;
    const float *data[NET_INPUTS];
    bool last[NET_INPUTS];
    size_t rank[NET_INPUTS];
    int64_t dims[NET_INPUTS][QN_MAX_RANK];
    bool saturate16;
    uint32_t cpu_flags;
    bool cpu_flags_set;
    float result[NET_MAX];
    size_t count;
    size_t result_rank;
    int64_t result_dims[QN_MAX_RANK];
} net;

static uint64_t net_random_state = 1;
static inline uint32_t net_random(uint32_t below)
{
    net_random_state = net_random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(net_random_state >> 33) % below;
}
static inline float net_random_float(void)
{
    return (float)((int)net_random(20001) - 10000) / 2500.0f;
}
static inline void net_fill(float *data, size_t count)
{
    for (size_t i = 0; i < count; i++)
        data[i] = net_random_float();
}

static inline net *net_start(void)
{
    net *n = calloc(1, sizeof(*n));
    assert_non_null(n);
    build_start(&n->b);
    return n;
}

static inline void net_end(net *n)
{
    build_end(&n->b);
    free(n);
}

/* data is row-major, borrowed; `last`: the plan will hold the tensor channels-last, because it
 * comes out of a transpose from NHWC. */
static inline qn_tensor *net_input(net *n, const float *data, bool last, size_t rank,
                                   const int64_t *dims)
{
    const size_t i = n->b.graph->n_inputs;
    char name[16];
    snprintf(name, sizeof(name), "in%zu", i);
    assert_true(i < NET_INPUTS);
    n->data[i] = data;
    n->last[i] = last && rank == 4;
    n->rank[i] = rank;
    memcpy(n->dims[i], dims, rank * sizeof(*dims));
    if (!n->last[i])
        return build_input(&n->b, name, rank, dims);
    const int64_t *const d = n->dims[i];
    const int64_t nhwc[4] = {d[0], d[2], d[3], d[1]};
    qn_tensor *x = build_input(&n->b, name, 4, nhwc);
    char node[16];
    snprintf(node, sizeof(node), "turn%zu", i);
    qn_tensor *y = NODE(&n->b, TRANSPOSE, node, x);
    const int64_t perm[4] = {0, 3, 1, 2};
    set_ints(&n->b, y, "perm", 4, perm);
    return y;
}

/* Quantized tensor type with one scale. */
static inline qn_type net_quant(net *n, qn_dtype dtype, float scale, int32_t zero)
{
    const bool s8 = dtype == QN_DTYPE_I8;
    const qn_quant q = {.bits = 8,
                        .is_signed = s8,
                        .axis = -1,
                        .qmin = s8 ? -128 : 0,
                        .qmax = s8 ? 127 : 255,
                        .n_scales = 1,
                        .scales = &scale,
                        .zero_points = &zero};
    const qn_quant *kept = qn__graph_quant(n->b.graph, &q);
    assert_non_null(kept);
    return qn_type_quant_make(dtype, kept);
}

static inline qn_status net_try(net *n, qn_tensor *out)
{
    builder *b = &n->b;
    build_output(b, out);
    qn_plan_options options;
    qn__plan_options_init(&options, b->ctx);
    options.saturate16 = n->saturate16;
    if (n->cpu_flags_set)
        options.cpu_flags = n->cpu_flags;
    qn_plan *plan = NULL;
    qn_exec *exec = NULL;
    qn_status status = qn__plan_create(b->graph, &options, &plan, &b->error);
    if (status != QN_OK)
        return status;
    assert_ok(b, qn__exec_create(plan, NULL, &exec, &b->error));
    const void *inputs[NET_INPUTS] = {NULL};
    float *moved[NET_INPUTS] = {NULL};
    for (size_t i = 0; i < b->graph->n_inputs; i++) {
        inputs[i] = n->data[i];
        size_t count = 0;
        assert_true(qn_shape_count(&count, n->dims[i], n->rank[i]));
        if (!n->last[i])
            continue;
        moved[i] = calloc(count + 1, sizeof(float));
        assert_non_null(moved[i]);
        qn__convert_layout(NULL, moved[i], QN_LAYOUT_CHANNELS_LAST, n->data[i], QN_LAYOUT_ROW_MAJOR,
                           n->rank[i], n->dims[i], sizeof(float));
        inputs[i] = moved[i];
    }
    /* Twice: the second run must not see anything of the first. */
    status = qn__exec_run(exec, inputs, &b->error);
    if (status == QN_OK)
        status = qn__exec_run(exec, inputs, &b->error);
    if (status == QN_OK) {
        const qn_view *view = qn__exec_output(exec, 0);
        assert_true(view->count <= NET_MAX);
        assert_int_equal(view->layout, QN_LAYOUT_ROW_MAJOR);
        n->count = view->count;
        n->result_rank = view->rank;
        memcpy(n->result_dims, view->dims, sizeof(n->result_dims));
        qn__view_to_f32(view, n->result);
    }
    for (size_t i = 0; i < NET_INPUTS; i++)
        free(moved[i]);
    qn__exec_destroy(exec);
    qn__plan_destroy(plan);
    return status;
}

static inline void net_run(net *n, qn_tensor *out)
{
    assert_ok(&n->b, net_try(n, out));
}

static inline void net_expect(const net *n, size_t i, double expected, double tolerance)
{
    const double got = n->result[i];
    if (!(fabs(got - expected) <= tolerance * (1.0 + fabs(expected))))
        fail_msg("element %zu is %.9g, expected %.9g", i, got, expected);
}

#endif
