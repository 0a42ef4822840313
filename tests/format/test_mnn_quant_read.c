/* Types of a graph whose file has records of tensors, records that no tensor can have, and weights
 * that changed on their way back into the file. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "format/format.h"
#include "property/mnn_seeds.h"

static qn_context *ctx;

static qn_graph *read_bytes(const uint8_t *bytes, size_t size, qn_status expected)
{
    qn_error error = {0};
    qn_graph *graph = NULL;
    qn_blob *file = qn__blob_copy(ctx, bytes, size);
    assert_non_null(file);
    const qn_status status = qn__mnn_read(ctx, "m.mnn", file, &graph, &error);
    qn__blob_unref(file);
    if (status != expected)
        fail_msg("status %d: %s", status, error.message);
    return graph;
}

static qn_graph *read_seed(int which)
{
    size_t size;
    uint8_t *bytes = mnn_seed(ctx, which, &size);
    assert_non_null(bytes);
    qn_graph *graph = read_bytes(bytes, size, QN_OK);
    qn__free(ctx, bytes);
    return graph;
}

static const qn_node *node_of(const qn_graph *graph, qn_op op)
{
    for (size_t i = 0; i < graph->n_nodes; i++)
        if (graph->nodes[i]->op == op)
            return graph->nodes[i];
    return NULL;
}

static void test_convolution_between_records_is_integer(void **state)
{
    (void)state;
    static const int8_t q[] = {1, -2, 3, -4, 5, -6};
    qn_graph *graph = read_seed(1);
    const qn_node *conv = node_of(graph, QN_OP_CONV);
    assert_non_null(conv);
    const qn_tensor *x = conv->inputs[0], *w = conv->inputs[1], *y = conv->outputs[0];
    assert_int_equal(x->type.kind, QN_TYPE_QUANT);
    assert_float_equal(x->type.quant->scales[0], 0.1f, 0);
    assert_int_equal(x->type.quant->qmin, -127);
    assert_int_equal(x->producer->op, QN_OP_QUANTIZE_LINEAR);
    assert_int_equal(w->type.kind, QN_TYPE_QUANT);
    assert_int_equal(w->type.quant->n_scales, 3);
    assert_memory_equal(w->constant->data, q, sizeof(q));
    assert_int_equal(y->type.kind, QN_TYPE_QUANT);
    assert_float_equal(y->type.quant->scales[0], 0.2f, 0);
    assert_int_equal(conv->act, QN_ACT_RELU); /* taken in: one rounding */
    assert_null(node_of(graph, QN_OP_RELU));
    /* outputs stay float under their name */
    assert_string_equal(graph->outputs[0]->name, "pool");
    assert_int_equal(graph->outputs[0]->type.kind, QN_TYPE_PLAIN);
    qn__graph_destroy(graph);
}

static void test_no_records_no_types(void **state)
{
    (void)state;
    qn_graph *graph = read_seed(0);
    for (size_t i = 0; i < graph->n_tensors; i++)
        assert_int_equal(graph->tensors[i]->type.kind, QN_TYPE_PLAIN);
    qn__graph_destroy(graph);
}

/* Seed 1 with one value of the first record changed. */
static void try_record(uint32_t slot, double value, qn_status expected)
{
    size_t size;
    uint8_t *bytes = mnn_seed(ctx, 1, &size), *changed = NULL;
    qn_blob *file = qn__blob_copy(ctx, bytes, size);
    qn_fb_document from, to;
    size_t n;
    assert_int_equal(qn__fb_read(ctx, &qn__mnn_schema, "m.mnn", file, &from, NULL), QN_OK);
    assert_int_equal(qn__fb_edit(&from, &to, NULL), QN_OK);
    qn_fb_object **list = qn__fb_tables(to.root, QN_MNN_Net_extraTensorDescribe, &n);
    assert_int_equal(n, 2);
    qn_fb_object *describe = qn__fb_copy(&to, list[0]);
    qn_fb_object *info = qn__fb_copy(&to, qn__fb_table(describe, QN_MNN_TensorDescribe_quantInfo));
    qn__fb_set_real(info, slot, value);
    qn__fb_set_table(describe, QN_MNN_TensorDescribe_quantInfo, info);
    qn_fb_object *both[] = {describe, list[1]};
    assert_true(qn__fb_set_tables(&to, to.root, QN_MNN_Net_extraTensorDescribe, both, 2));
    assert_int_equal(qn__fb_build(&to, &changed, &size, NULL), QN_OK);
    qn_graph *graph = read_bytes(changed, size, expected);
    if (expected == QN_OK) /* the convolution is left in float */
        assert_int_equal(node_of(graph, QN_OP_CONV)->inputs[0]->type.kind, QN_TYPE_PLAIN);
    qn__graph_destroy(graph);
    qn__free(ctx, changed);
    qn__free(ctx, bytes);
    qn__fb_free(&to);
    qn__fb_free(&from);
    qn__blob_unref(file);
}

static void test_records_that_cannot_be(void **state)
{
    (void)state;
    try_record(QN_MNN_TensorQuantInfo_scale, -1, QN_CORRUPT);
    try_record(QN_MNN_TensorQuantInfo_scale, (double)INFINITY, QN_CORRUPT);
    try_record(QN_MNN_TensorQuantInfo_scale, (double)NAN, QN_CORRUPT);
    try_record(QN_MNN_TensorQuantInfo_zero, 0.5, QN_CORRUPT);
    try_record(QN_MNN_TensorQuantInfo_zero, 1e9, QN_CORRUPT);
    try_record(QN_MNN_TensorQuantInfo_min, -129, QN_CORRUPT);
    try_record(QN_MNN_TensorQuantInfo_max, 1e300, QN_CORRUPT);
    try_record(QN_MNN_TensorQuantInfo_max, -128, QN_CORRUPT); /* below min */
    try_record(QN_MNN_TensorQuantInfo_scale, 0, QN_OK);
}

/* Writes graph to a temporary file and reads it again. */
static qn_graph *write_and_read(const qn_graph *graph, uint64_t *bytes)
{
    char path[] = "/tmp/mnn_quant_read_XXXXXX";
    qn_error error = {0};
    qn_graph *again = NULL;
    const int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    if (qn__mnn_write(graph, path, NULL, bytes, &error) != QN_OK)
        fail_msg("%s", error.message);
    if (qn__format_read(ctx, path, &again, &error) != QN_OK)
        fail_msg("%s", error.message);
    remove(path);
    return again;
}

static void test_changed_float_weights_are_written(void **state)
{
    (void)state;
    static const float W[] = {2, -4, 6, -8, 10, -12};
    qn_graph *graph = read_seed(0);
    uint64_t plain_bytes, bytes;
    qn_graph *same = write_and_read(graph, &plain_bytes);
    qn_node *conv = (qn_node *)node_of(graph, QN_OP_CONV);
    qn_blob *blob = qn__blob_copy(ctx, W, sizeof(W));
    qn__tensor_set_constant(conv->inputs[1], blob);
    qn__blob_unref(blob);
    qn_graph *changed = write_and_read(graph, &bytes);
    assert_memory_equal(node_of(changed, QN_OP_CONV)->inputs[1]->constant->data, W, sizeof(W));
    static const float OLD[] = {1, -2, 3, -4, 5, -6};
    assert_memory_equal(node_of(same, QN_OP_CONV)->inputs[1]->constant->data, OLD, sizeof(OLD));
    qn__graph_destroy(changed);
    qn__graph_destroy(same);
    qn__graph_destroy(graph);
}

static void test_nodes_the_file_has_not_are_refused(void **state)
{
    (void)state;
    qn_graph *graph = read_seed(0);
    qn_error error = {0};
    qn_node *node = qn__graph_add_node(graph, SIZE_MAX, QN_OP_ABS, "added", 1, 1);
    assert_non_null(node);
    node->inputs[0] = graph->outputs[0];
    qn__node_set_output(node, 0,
                        qn__graph_add_tensor(graph, "z", qn_type_plain_make(QN_DTYPE_F32)));
    graph->outputs[0] = node->outputs[0];
    assert_int_equal(qn__mnn_write(graph, "never.mnn", NULL, NULL, &error), QN_UNSUPPORTED);
    assert_non_null(strstr(error.message, "added"));
    qn__graph_destroy(graph);
}

int main(void)
{
    if (qn_context_create(NULL, &ctx, NULL) != QN_OK)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_convolution_between_records_is_integer),
        cmocka_unit_test(test_no_records_no_types),
        cmocka_unit_test(test_records_that_cannot_be),
        cmocka_unit_test(test_changed_float_weights_are_written),
        cmocka_unit_test(test_nodes_the_file_has_not_are_refused),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    qn_context_destroy(ctx);
    return failed;
}
