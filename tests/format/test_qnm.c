/* The compact file: random graphs come back as they went in, files are described by docs/qnm.md,
 * packed weights are used where they are and give the bytes that packing gives. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>

#include "kernel/kernel.h"
#include "property/qnm_seeds.h"

static memory_file file;
static qn_context *ctx;
static qn_error error;

static int setup(void **state)
{
    (void)state;
    ctx = qnm_context(&file, NULL);
    return ctx != NULL ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    qn_context_destroy(ctx);
    free(file.data);
    return 0;
}

#define assert_ok(expr)                                                                            \
    do {                                                                                           \
        if ((expr) != QN_OK)                                                                       \
            fail_msg("%s: %s", #expr, error.message);                                              \
    } while (0)
#define assert_fails(expr, code, text)                                                             \
    do {                                                                                           \
        assert_int_equal((expr), (code));                                                          \
        if (strstr(error.message, (text)) == NULL)                                                 \
            fail_msg("message \"%s\" lacks \"%s\"", error.message, (text));                        \
    } while (0)

/* The file of the context, in memory of its own. */
static qn_blob *taken(void)
{
    qn_blob *const blob = qn__blob_copy(ctx, file.data, file.size);
    assert_non_null(blob);
    return blob;
}

static qn_graph *read_back(bool checksum)
{
    qn_graph *graph = NULL;
    qn_blob *const blob = taken();
    assert_ok(qn__qnm_read(ctx, blob, "t.qnm", checksum, &graph, &error));
    qn__blob_unref(blob);
    return graph;
}

/* --- equal graphs ----------------------------------------------------------------------------- */
static void same_floats(const float *a, const float *b, size_t count)
{
    assert_int_equal(a == NULL, b == NULL);
    if (a != NULL && count > 0)
        assert_memory_equal(a, b, count * sizeof(*a));
}

static void same_blob(const qn_blob *a, const qn_blob *b)
{
    assert_int_equal(a == NULL, b == NULL);
    if (a == NULL)
        return;
    assert_int_equal(a->size_bytes, b->size_bytes);
    if (a->size_bytes > 0)
        assert_memory_equal(a->data, b->data, a->size_bytes);
}

static void same_quant(const qn_quant *a, const qn_quant *b)
{
    assert_int_equal(a->bits, b->bits);
    assert_int_equal(a->is_signed, b->is_signed);
    assert_int_equal(a->axis, b->axis);
    assert_int_equal(a->block, b->block);
    assert_int_equal(a->qmin, b->qmin);
    assert_int_equal(a->qmax, b->qmax);
    assert_int_equal(a->n_scales, b->n_scales);
    assert_int_equal(a->n_codebook, b->n_codebook);
    same_floats(a->scales, b->scales, a->n_scales);
    same_floats(a->codebook, b->codebook, a->n_codebook);
    assert_int_equal(a->zero_points == NULL, b->zero_points == NULL);
    if (a->zero_points != NULL)
        assert_memory_equal(a->zero_points, b->zero_points, a->n_scales * sizeof(int32_t));
}

static void same_tensor(const qn_tensor *a, const qn_tensor *b)
{
    assert_int_equal(a == NULL, b == NULL);
    if (a == NULL)
        return;
    assert_string_equal(a->name, b->name);
    assert_int_equal(a->type.kind, b->type.kind);
    assert_int_equal(a->type.dtype, b->type.dtype);
    if (a->type.kind != QN_TYPE_PLAIN)
        same_quant(a->type.quant, b->type.quant);
    assert_int_equal(a->rank, b->rank);
    for (size_t i = 0; i < a->rank; i++)
        assert_int_equal(a->dims[i].value, b->dims[i].value);
    assert_true(b->has_shape);
    same_blob(a->constant, b->constant);
    assert_int_equal(a->producer == NULL, b->producer == NULL);
    if (a->producer != NULL)
        assert_string_equal(a->producer->name, b->producer->name);
    if (b->constant != NULL) /* whatever the alignment of the file in memory */
        assert_int_equal((b->constant->data - b->constant->parent->data) % QN_QNM_ALIGN, 0);
}

static void same_attr(const qn_attr *a, const qn_attr *b)
{
    assert_string_equal(a->name, b->name);
    assert_int_equal(a->kind, b->kind);
    assert_int_equal(a->i, b->i);
    assert_memory_equal(&a->f, &b->f, sizeof(a->f));
    assert_int_equal(a->count, b->count);
    assert_int_equal(a->s == NULL, b->s == NULL);
    if (a->s != NULL)
        assert_string_equal(a->s, b->s);
    if (a->kind == QN_ATTR_FLOATS)
        same_floats(a->floats, b->floats, a->count);
    for (size_t i = 0; a->kind == QN_ATTR_INTS && i < a->count; i++)
        assert_int_equal(a->ints[i], b->ints[i]);
    for (size_t i = 0; a->kind == QN_ATTR_STRINGS && i < a->count; i++)
        assert_string_equal(a->strings[i], b->strings[i]);
    same_blob(a->t, b->t);
    assert_int_equal(a->t_dtype, b->t_dtype);
    assert_int_equal(a->t_rank, b->t_rank);
    for (size_t i = 0; i < a->t_rank; i++)
        assert_int_equal(a->t_dims[i], b->t_dims[i]);
}

static void same_node(const qn_node *a, const qn_node *b)
{
    assert_string_equal(a->name, b->name);
    assert_int_equal(a->op, b->op);
    assert_int_equal(a->act, b->act);
    if (a->act == QN_ACT_CLIP) {
        assert_memory_equal(&a->act_lo, &b->act_lo, sizeof(float));
        assert_memory_equal(&a->act_hi, &b->act_hi, sizeof(float));
    }
    assert_int_equal(a->n_inputs, b->n_inputs);
    assert_int_equal(a->n_outputs, b->n_outputs);
    for (uint32_t i = 0; i < a->n_inputs; i++)
        same_tensor(a->inputs[i], b->inputs[i]);
    for (uint32_t i = 0; i < a->n_outputs; i++)
        same_tensor(a->outputs[i], b->outputs[i]);
    uint32_t at = 0;
    for (uint32_t i = 0; i < a->n_attrs; i++)
        if (a->attrs[i].kind != QN_ATTR_OPAQUE)
            same_attr(&a->attrs[i], &b->attrs[at++]);
    assert_int_equal(at, b->n_attrs);
}

static void same_graph(const qn_graph *a, const qn_graph *b)
{
    assert_string_equal(a->name, b->name);
    assert_int_equal(a->opset, b->opset);
    assert_int_equal(a->n_inputs, b->n_inputs);
    assert_int_equal(a->n_outputs, b->n_outputs);
    assert_int_equal(a->n_nodes, b->n_nodes);
    for (size_t i = 0; i < a->n_inputs; i++)
        same_tensor(a->inputs[i], b->inputs[i]);
    for (size_t i = 0; i < a->n_outputs; i++)
        same_tensor(a->outputs[i], b->outputs[i]);
    for (size_t i = 0; i < a->n_nodes; i++)
        same_node(a->nodes[i], b->nodes[i]);
}

/* --- random graphs ---------------------------------------------------------------------------- */
static uint32_t random_state;

static uint32_t random_below(uint32_t n)
{
    random_state = random_state * 1664525u + 1013904223u;
    return (random_state >> 8) % n;
}

static void *random_floats(qn_graph *g, size_t count)
{
    float *const values = qn__arena_calloc(&g->arena, count + 1, sizeof(*values));
    assert_non_null(values);
    for (size_t i = 0; i < count; i++)
        values[i] = 0.001f * (float)(1 + random_below(100000));
    return values;
}

static qn_type random_type(qn_graph *g, size_t rank, const int64_t *dims)
{
    static const qn_dtype STORAGE[] = {QN_DTYPE_I8, QN_DTYPE_U8, QN_DTYPE_I16, QN_DTYPE_U16,
                                       QN_DTYPE_I4, QN_DTYPE_U4, QN_DTYPE_I2,  QN_DTYPE_U2};
    const qn_dtype dtype = STORAGE[random_below(8)];
    const uint32_t bits = qn__dtype_bits(dtype);
    qn_quant q = {.bits = (uint8_t)bits, .is_signed = qn__dtype_is_signed(dtype), .axis = -1};
    q.qmin = q.is_signed ? -(1 << (bits - 1)) : 0;
    q.qmax = q.qmin + (1 << bits) - 1;
    const uint32_t form = random_below(6);
    if (form < 2 || rank == 0)
        return qn_type_plain_make((qn_dtype)(1 + random_below(QN_DTYPE_COUNT - 1)));
    if (form == 2) {
        q.axis = (int8_t)(random_below(2) ? -1 : (int)random_below((uint32_t)rank));
        return (qn_type){QN_TYPE_DYNAMIC, dtype, qn__graph_quant(g, &q)};
    }
    q.n_scales = 1;
    if (form >= 4) {
        q.axis = (int8_t)random_below((uint32_t)rank);
        q.n_scales = (size_t)dims[q.axis];
    }
    if (form == 5) {
        q.block = 1 + random_below(3);
        q.n_scales = 1;
        for (size_t i = 0; i < rank; i++)
            q.n_scales *= (size_t)((int)i == q.axis ? (dims[i] + q.block - 1) / q.block : dims[i]);
    }
    q.scales = random_floats(g, q.n_scales);
    int32_t *const zeros = qn__arena_calloc(&g->arena, q.n_scales + 1, sizeof(*zeros));
    assert_non_null(zeros);
    for (size_t i = 0; i < q.n_scales; i++)
        zeros[i] = q.qmin + (int32_t)random_below((uint32_t)(1u << bits));
    if (random_below(2))
        q.zero_points = zeros;
    if (bits <= 4 && random_below(2)) {
        q.n_codebook = (size_t)(q.qmax - q.qmin + 1);
        q.codebook = random_floats(g, q.n_codebook);
    }
    return qn_type_quant_make(dtype, qn__graph_quant(g, &q));
}

static qn_tensor *random_tensor(qn_graph *g, const char *name, bool constant)
{
    int64_t dims[QN_MAX_RANK];
    const size_t rank = random_below(5);
    for (size_t i = 0; i < rank; i++)
        dims[i] = 1 + (int64_t)random_below(5);
    qn_type type = random_type(g, rank, dims);
    if (constant && type.kind == QN_TYPE_DYNAMIC)
        type = qn_type_plain_make(type.dtype);
    qn_tensor *const t = constant ? qnm_constant(g, name, type, rank, dims, random_below(1000))
                                  : qnm_tensor(g, name, type, rank, dims);
    assert_non_null(t);
    return t;
}

static void random_attr(qn_graph *g, qn_node *node, uint32_t i)
{
    static const qn_attr_kind KINDS[] = {QN_ATTR_FLOAT,   QN_ATTR_INT,   QN_ATTR_STRING,
                                         QN_ATTR_TENSOR,  QN_ATTR_INTS,  QN_ATTR_FLOATS,
                                         QN_ATTR_STRINGS, QN_ATTR_OPAQUE};
    static const char *const TEXTS[] = {"a", "", "b", "a long one, with spaces", "\xC3\xA9"};
    qn_attr *const a = &node->attrs[i];
    *a =
        (qn_attr){.name = qn__arena_printf(&g->arena, "attr%u", i), .kind = KINDS[random_below(8)]};
    a->count = a->kind >= QN_ATTR_FLOATS && a->kind <= QN_ATTR_STRINGS ? random_below(4) : 0;
    const char **const strings = qn__arena_calloc(&g->arena, a->count + 1, sizeof(*strings));
    int64_t *const ints = qn__arena_calloc(&g->arena, a->count + 1, sizeof(*ints));
    assert_true(a->name != NULL && strings != NULL && ints != NULL);
    for (size_t k = 0; k < a->count; k++) {
        strings[k] = TEXTS[random_below(5)];
        ints[k] = (int64_t)random_below(1u << 24) * ((int64_t)random_below(1u << 24) - (1 << 23));
    }
    switch (a->kind) {
    case QN_ATTR_FLOAT:
        a->f = (float)random_below(1000) * -0.25f;
        break;
    case QN_ATTR_INT:
        a->i = -(int64_t)random_below(1000);
        break;
    case QN_ATTR_STRING:
        a->s = TEXTS[random_below(5)];
        break;
    case QN_ATTR_TENSOR: {
        static const int64_t DIMS[] = {2, 3};
        const qn_dtype dtype = (qn_dtype)(1 + random_below(QN_DTYPE_COUNT - 1));
        const qn_tensor *const t =
            qnm_constant(g, "of attr", qn_type_plain_make(dtype), 2, DIMS, i);
        assert_non_null(t);
        a->t = qn__blob_ref(t->constant);
        a->t_dtype = dtype;
        a->t_rank = 2;
        a->t_dims = DIMS;
        break;
    }
    default:
        a->ints = a->kind == QN_ATTR_INTS ? ints : NULL;
        a->strings = a->kind == QN_ATTR_STRINGS ? strings : NULL;
        a->floats = a->kind == QN_ATTR_FLOATS ? random_floats(g, a->count) : NULL;
    }
}

static void random_node(qn_graph *g, qn_tensor **made, size_t *n_made)
{
    const uint32_t n_in = random_below(4), n_attrs = random_below(5);
    const qn_op op = (qn_op)(1 + random_below(QN_OP_COUNT - 1));
    const bool several = (qn__op_flags(op) & QN_OPF_SEVERAL) != 0;
    const uint32_t n_out = several ? 1 + random_below(3) : 1;
    qn_node *const node = qn__graph_add_node(g, SIZE_MAX, op, "n", n_in, n_out);
    assert_non_null(node);
    for (uint32_t i = 0; i < n_in; i++)
        node->inputs[i] = random_below(4) == 0   ? NULL
                          : random_below(3) == 0 ? random_tensor(g, "c", true)
                                                 : made[random_below((uint32_t)*n_made)];
    for (uint32_t i = 0; i < n_out; i++) {
        if (i > 0 && random_below(3) == 0)
            continue;
        made[*n_made] = random_tensor(g, "t", false);
        qn__node_set_output(node, i, made[(*n_made)++]);
    }
    node->attrs = qn__arena_calloc(&g->arena, n_attrs + 1, sizeof(*node->attrs));
    assert_non_null(node->attrs);
    for (uint32_t i = 0; i < n_attrs; i++) {
        node->n_attrs = i + 1;
        random_attr(g, node, i);
    }
    node->act = (qn_act)random_below(3);
    if (node->act == QN_ACT_CLIP) {
        node->act_lo = random_below(2) ? -INFINITY : 0;
        node->act_hi = random_below(2) ? INFINITY : 6;
    }
}

static qn_graph *random_graph(uint32_t seed)
{
    enum { MOST = 64 };
    qn_graph *g = NULL;
    random_state = seed;
    assert_ok(qn__graph_create(ctx, &g, &error));
    g->opset = 1 + (int64_t)random_below(30);
    g->name = random_below(2) ? "graph" : "";
    qn_tensor **const made = qn__arena_calloc(&g->arena, MOST, sizeof(*made));
    qn_tensor **const ends = qn__arena_calloc(&g->arena, MOST, sizeof(*ends));
    assert_true(made != NULL && ends != NULL);
    size_t n_made = 0;
    g->inputs = ends;
    g->n_inputs = 1 + random_below(3);
    for (size_t i = 0; i < g->n_inputs; i++)
        made[n_made++] = ends[i] = random_tensor(g, "in", false);
    random_tensor(g, "nobody reads this", true);
    for (uint32_t n = random_below(12); n > 0; n--)
        random_node(g, made, &n_made);
    g->outputs = ends + g->n_inputs;
    g->n_outputs = random_below(3);
    for (size_t i = 0; i < g->n_outputs; i++)
        g->outputs[i] =
            random_below(8) == 0 ? random_tensor(g, "out", true) : made[random_below(n_made)];
    return g;
}

static void test_random_graphs_come_back(void **state)
{
    (void)state;
    for (uint32_t seed = 0; seed < 2000; seed++) {
        qn_graph *const graph = random_graph(seed);
        uint64_t bytes = 0;
        assert_ok(qn__graph_verify(graph, &error));
        assert_ok(qn__qnm_write(graph, NULL, "t.qnm", &bytes, &error));
        assert_int_equal(bytes, file.size);
        qn_graph *const again = read_back(true);
        same_graph(graph, again);
        qn__graph_destroy(again);
        qn__graph_destroy(graph);
    }
}

static void test_the_empty_graph(void **state)
{
    (void)state;
    qn_graph *graph = NULL;
    assert_ok(qn__graph_create(ctx, &graph, &error));
    assert_ok(qn__qnm_write(graph, NULL, "t.qnm", NULL, &error));
    qn_graph *const again = read_back(true);
    same_graph(graph, again);
    assert_null(again->source->packed);
    qn__graph_destroy(again);
    qn__graph_destroy(graph);
}

static void test_names_can_be_left_out(void **state)
{
    (void)state;
    static const qn_qnm_write_options STRIP = {.strip_names = true};
    qn_graph *const graph = qnm_seed_graph(ctx, 1);
    assert_non_null(graph);
    assert_ok(qn__qnm_write(graph, NULL, "t.qnm", NULL, &error));
    const size_t with = file.size;
    assert_ok(qn__qnm_write(graph, &STRIP, "t.qnm", NULL, &error));
    assert_true(file.size <= with);
    qn_graph *const again = read_back(true);
    assert_string_equal(again->inputs[0]->name, "x");
    assert_string_equal(again->outputs[0]->name, "y");
    assert_string_equal(again->nodes[1]->name, "Conv");
    assert_ok(qn__graph_verify(again, &error));
    qn__graph_destroy(again);
    qn__graph_destroy(graph);
}

static void test_what_cannot_be_written(void **state)
{
    (void)state;
    qn_graph *const graph = qnm_seed_graph(ctx, 0);
    assert_non_null(graph);
    qn_tensor *const h = qn__graph_find_tensor(graph, "h");
    h->dims[2] = qn_dim_unknown();
    assert_fails(qn__qnm_write(graph, NULL, "t.qnm", NULL, &error), QN_UNSUPPORTED, "\"h\"");
    h->dims[2] = qn_dim_const(5);
    h->type.dtype = QN_DTYPE_NONE;
    assert_fails(qn__qnm_write(graph, NULL, "t.qnm", NULL, &error), QN_UNSUPPORTED, "\"h\"");
    qn__graph_destroy(graph);
}

/* --- what readers refuse ---------------------------------------------------------------------- */
static qn_status read_changed(size_t at, uint64_t value, size_t bytes)
{
    qn_graph *graph = NULL;
    assert_true(qnm_seed(ctx, 1));
    qn_qnm_put(file.data + at, value, bytes);
    qn_blob *const blob = taken();
    const qn_status status = qn__qnm_read(ctx, blob, "t.qnm", false, &graph, &error);
    qn__graph_destroy(graph);
    qn__blob_unref(blob);
    return status;
}

/* Place of a text of seed 1. */
static size_t find_text(const char *text)
{
    assert_true(qnm_seed(ctx, 1));
    const uint8_t *const at = memmem(file.data, file.size, text, strlen(text));
    assert_non_null(at);
    return (size_t)(at - file.data);
}

static void test_refusals_have_a_reason(void **state)
{
    (void)state;
    assert_fails(read_changed(8, 2, 4), QN_UNSUPPORTED, "version 2");
    assert_fails(read_changed(12, 1, 4), QN_UNSUPPORTED, "features");
    assert_fails(read_changed(12, 5, 4), QN_UNSUPPORTED, "features");
    assert_fails(read_changed(12, 8, 4), QN_UNSUPPORTED, "features");
    assert_int_equal(read_changed(12, QN_REQUANTIZE_SHIFT, 4), QN_OK);
    assert_fails(read_changed(16, 99, 8), QN_CORRUPT, "its header says 99");
    assert_fails(read_changed(28, 65, 4), QN_CORRUPT, "65 sections");
    assert_fails(read_changed(64, 9, 4), QN_UNSUPPORTED, "unknown kind 9");
    assert_fails(read_changed(64, 2, 4), QN_CORRUPT, "two sections");
    assert_fails(read_changed(64 + 8, 65, 8), QN_CORRUPT, "section 0");
    assert_fails(read_changed(find_text("MatMul"), 'm', 1), QN_UNSUPPORTED,
                 "unknown operator \"matMul\"");
    assert_fails(read_changed(find_text("uint8"), 'w', 1), QN_UNSUPPORTED,
                 "unknown element type \"wint8\"");
    assert_fails(read_changed(find_text("MatMul"), 0, 1), QN_CORRUPT, "zero byte");
    /* a section of packed weights that is not understood can be done without */
    assert_int_equal(read_changed(64 + 64, 77, 4), QN_OK);
}

static void test_checksum_is_zlibs(void **state)
{
    (void)state;
    qn_qnm_crc crc;
    qn__qnm_crc_init(&crc);
    const uint8_t *const text = (const uint8_t *)"123456789";
    assert_int_equal(qn__qnm_crc_update(&crc, 0, text, 9), 0xCBF43926u);
    for (size_t cut = 0; cut <= 9; cut++)
        assert_int_equal(
            qn__qnm_crc_update(&crc, qn__qnm_crc_update(&crc, 0, text, cut), text + cut, 9 - cut),
            0xCBF43926u);
    uint8_t swapped[8];
    static const uint8_t ORDER[8] = {1, 2, 3, 4, 5, 6, 7, 8}, TURNED[8] = {4, 3, 2, 1, 8, 7, 6, 5};
    qn_qnm_swap(swapped, ORDER, 8, 4);
    assert_memory_equal(swapped, TURNED, 8);
}

/* --- packed weights --------------------------------------------------------------------------- */
static size_t packed_bytes; /* of the last run */

static qn_status try_graph(const qn_graph *graph, uint32_t cpu_flags, size_t *mapped, float out[6])
{
    enum { VALUES = 4 * 4 * 4 };
    float x[VALUES];
    const void *const inputs[] = {x};
    qn_plan_options options;
    qn_plan *plan = NULL;
    qn_exec *exec = NULL;
    for (int i = 0; i < VALUES; i++)
        x[i] = (float)(i % 13 - 6) * 0.7f;
    qn__plan_options_init(&options, ctx);
    options.cpu_flags = cpu_flags;
    assert_ok(qn__plan_create(graph, &options, &plan, &error));
    *mapped = qn__plan_mapped_bytes(plan);
    packed_bytes = qn__plan_packed_bytes(plan);
    assert_ok(qn__exec_create(plan, NULL, &exec, &error));
    const qn_status status = qn__exec_run(exec, inputs, &error);
    if (status == QN_OK)
        memcpy(out, qn__exec_output(exec, 0)->data, 6 * sizeof(float));
    qn__exec_destroy(exec);
    qn__plan_destroy(plan);
    return status;
}

static void run_graph(const qn_graph *graph, uint32_t cpu_flags, size_t *mapped, float out[6])
{
    assert_ok(try_graph(graph, cpu_flags, mapped, out));
}

/* Weights of seed `which` are read from the file, all of them, and answers are those of weights
 * that are packed. */
static void check_packed(int which, size_t n_entries)
{
    static const uint32_t FLAGS[] = {QN_ISA_scalar, QN_ISA_avx2, QN_ISA_avx512};
    qn_graph *const plain = qnm_seed_graph(ctx, which);
    assert_true(plain != NULL && qnm_seed(ctx, which));
    qn_graph *const packed = read_back(true);
    assert_int_equal(packed->source->packed->count, n_entries);
    for (size_t i = 0; i < 3; i++) {
        if ((ctx->cpu_flags & FLAGS[i]) != FLAGS[i])
            continue;
        float a[6], b[6];
        size_t none, mapped;
        run_graph(plain, FLAGS[i], &none, a);
        run_graph(packed, FLAGS[i], &mapped, b);
        assert_int_equal(none, 0);
        assert_int_equal(mapped, packed_bytes);
        assert_memory_equal(a, b, sizeof(a));
    }
    qn__graph_destroy(packed);
    qn__graph_destroy(plain);
}

static void test_packed_weights_are_used_and_equal(void **state)
{
    (void)state;
    check_packed(1, 2 * 3);
    /* floats in two sizes of panels, bytes in three, depthwise windows of bytes in two folds, of
     * floats in one form */
    check_packed(3, 2 * 2 + 3 + 2 + 1);
    /* four residues of a transposed window, two parts of two products of integers: of bytes in
     * three sizes of panels, depthwise windows in two folds and in one, floats in two sizes of
     * panels */
    check_packed(4, 3 * (1 + 1 + 4 + 2 + 2 + 1) + 2 + 1 + 2);
}

/* Other bytes behind the packed section's entries: as many are mapped, and give other outputs. */
static void check_packed_is_read(size_t entries, uint8_t change, size_t all, const float before[6])
{
    const size_t at = (size_t)qn_qnm_u64_at(file.data + 64 + 2 * 32 + 8); /* packed section */
    for (size_t i = at + 16 + entries * 48; i < file.size; i++)
        file.data[i] ^= change;
    float after[6];
    size_t mapped;
    qn_graph *const graph = read_back(false);
    run_graph(graph, QN_ISA_scalar, &mapped, after);
    assert_int_equal(mapped, all);
    assert_memory_not_equal(before, after, sizeof(after));
    qn__graph_destroy(graph);
}

/* Other constants of the same shape, scale or bias: what was packed is left alone. */
static void test_packed_floats_only_where_they_fit(void **state)
{
    (void)state;
    float a[6], b[6];
    size_t mapped;
    assert_true(qnm_seed(ctx, 3));
    qn_graph *graph = read_back(false);
    run_graph(graph, QN_ISA_scalar, &mapped, a);
    const size_t all = mapped;
    static const int64_t B[] = {6};
    qn_node *const conv = qn__graph_find_tensor(graph, "h")->producer;
    conv->inputs[2] = qnm_constant(graph, "other", qn_type_plain_make(QN_DTYPE_F32), 1, B, 77);
    run_graph(graph, QN_ISA_scalar, &mapped, b);
    assert_int_equal(mapped,
                     all - (size_t)8 * (1 + 36) * 4); /* the convolution's: two panels of four */
    assert_memory_not_equal(a, b, sizeof(a));
    qn__node_set_float(graph, qn__graph_find_tensor(graph, "z")->producer, "alpha", 0.25f);
    run_graph(graph, QN_ISA_scalar, &mapped, b);
    assert_int_equal(mapped, all - (size_t)8 * (1 + 36) * 4 - (size_t)8 * (1 + 24) * 4);
    qn__graph_destroy(graph);

    check_packed_is_read(10, 1, all, a);
}

/* Bytes in the packed section are what kernels read: changing them changes the result, changing the
 * scale that they were made with means packing again. */
static void test_packed_weights_only_where_they_fit(void **state)
{
    (void)state;
    float a[6], b[6];
    size_t mapped;
    assert_true(qnm_seed(ctx, 1));
    qn_graph *graph = read_back(false);
    run_graph(graph, QN_ISA_scalar, &mapped, a);
    const size_t all = mapped;
    assert_true(all > 0);
    static const float SCALE = 0.25f;
    qn_quant changed = *qn__graph_find_tensor(graph, "z")->type.quant;
    changed.scales = &SCALE;
    qn__graph_find_tensor(graph, "z")->type.quant = qn__graph_quant(graph, &changed);
    run_graph(graph, QN_ISA_scalar, &mapped, b);
    assert_true(mapped > 0 && mapped < all);
    qn__graph_destroy(graph);

    check_packed_is_read(6, 0x55, all, a);
}

/* --- other orders ----------------------------------------------------------------------------- */
/* Each entry of the plain C kernels is what they read. */
static void test_every_packed_order_is_read(void **state)
{
    (void)state;
    float a[6], b[6];
    size_t all, mapped, n_changed = 0;
    assert_true(qnm_seed(ctx, 4));
    qn_graph *graph = read_back(true);
    run_graph(graph, QN_ISA_scalar, &all, a);
    assert_int_equal(all, packed_bytes);
    qn__graph_destroy(graph);
    const size_t at = (size_t)qn_qnm_u64_at(file.data + 64 + 2 * 32 + 8);
    const size_t count = qn_qnm_u32_at(file.data + at);
    for (size_t i = 0; i < count; i++) {
        assert_true(qnm_seed(ctx, 4));
        const uint8_t *const entry = file.data + at + 16 + 48 * i;
        const uint32_t layout = qn_qnm_u32_at(entry + 16);
        if ((layout >> 24) % 2 != 0 ? (layout >> 8 & 255) != 4 : (layout & 255) != 1)
            continue;
        const size_t from = at + (size_t)qn_qnm_u64_at(entry + 24);
        const size_t bytes = (size_t)qn_qnm_u64_at(entry + 32);
        for (size_t j = 0; j < bytes; j++)
            file.data[from + j] ^= 0x21;
        graph = read_back(false);
        run_graph(graph, QN_ISA_scalar, &mapped, b);
        assert_int_equal(mapped, all);
        if (memcmp(a, b, sizeof(a)) == 0)
            fail_msg("entry %zu, layout %08x, is not read", i, (unsigned)layout);
        n_changed++;
        qn__graph_destroy(graph);
    }
    assert_int_equal(n_changed, 1 + 1 + 4 + 2 + 2 + 1 + 2 + 1);
}

static void set_quant(qn_graph *graph, const char *name, float scale, int32_t zero)
{
    qn_tensor *const t = qn__graph_find_tensor(graph, name);
    qn_quant q = *t->type.quant;
    float scales[8];
    int32_t zeros[8] = {0};
    assert_true(q.n_scales <= 8);
    memcpy(scales, q.scales, q.n_scales * sizeof(float));
    if (q.zero_points != NULL)
        memcpy(zeros, q.zero_points, q.n_scales * sizeof(int32_t));
    scales[q.n_scales - 1] = scale;
    zeros[q.n_scales - 1] = zero;
    q.scales = scales;
    q.zero_points = zeros;
    t->type.quant = qn__graph_quant(graph, &q);
}

/* Something that packed weights were made with becomes something else. */
enum { N_CHANGES = 11 };
static void change(qn_graph *graph, int which)
{
    static const int64_t PADS[] = {1, 1, 0, 1}, TWO[] = {2}, THREE[] = {3}, ONE[] = {0};
    static const char *const NAMES[] = {"w", "wd", "w5", "wt", "wg"};
    const qn_type u8 = qn_type_plain_make(QN_DTYPE_U8), f32 = qn_type_plain_make(QN_DTYPE_F32);
    if (which < 5)
        set_quant(graph, NAMES[which], 0.03f, which == 3 ? 0 : 41);
    else if (which == 5) /* the same sizes, residues the other way round */
        assert_true(
            qn__node_set_ints(graph, qn__graph_find_tensor(graph, "v")->producer, "pads", PADS, 4));
    else if (which == 6)
        qn__graph_find_tensor(graph, "f")->producer->inputs[2] =
            qnm_constant(graph, "other", f32, 1, THREE, 71);
    else if (which == 7)
        qn__graph_find_tensor(graph, "i")->producer->inputs[3] =
            qnm_constant(graph, "other", u8, 1, TWO, 72);
    else if (which == 8)
        qn__graph_find_tensor(graph, "p")->producer->inputs[3] =
            qnm_constant(graph, "other", u8, 0, ONE, 73);
    else if (which == 9) /* weights of the same type and shape */
        qn__graph_find_tensor(graph, "p")->producer->inputs[1] =
            qnm_constant(graph, "other", u8, 2, (const int64_t[]){12, 6}, 74);
    else
        set_quant(graph, "q", 0.06f, 90);
}

static void test_packed_orders_only_where_they_fit(void **state)
{
    (void)state;
    float before[6];
    size_t all, mapped;
    assert_true(qnm_seed(ctx, 4));
    qn_graph *graph = read_back(true);
    run_graph(graph, QN_ISA_scalar, &all, before);
    qn__graph_destroy(graph);
    for (int which = 0; which < N_CHANGES; which++) {
        float a[6], b[6];
        qn_graph *const plain = qnm_seed_graph(ctx, 4);
        assert_true(plain != NULL && qnm_seed(ctx, 4));
        graph = read_back(true);
        change(plain, which);
        change(graph, which);
        run_graph(plain, QN_ISA_scalar, &mapped, a);
        assert_int_equal(mapped, 0);
        run_graph(graph, QN_ISA_scalar, &mapped, b);
        if (mapped == 0 || (which == 5 ? mapped != all : mapped >= all))
            fail_msg("change %d: %zu of %zu bytes are read", which, mapped, all);
        if (memcmp(a, b, sizeof(a)) != 0 || memcmp(a, before, sizeof(a)) == 0)
            fail_msg("change %d", which);
        qn__graph_destroy(plain);
        qn__graph_destroy(graph);
    }
}

/* --- weights that stay integers in float products --------------------------------------------- */
/* Of four bits in blocks with zero points, of eight with a bias; rows and columns as they come. */
static qn_graph *ints_graph(void)
{
    enum { K = 16, N = 8200, BLOCKS = 2 };
    static const int64_t X[] = {1, 4, 4, 4}, A[] = {4, K}, W[] = {K, N}, H[] = {4, N}, V[] = {K, N};
    static const int64_t B[] = {K};
    static float scales[BLOCKS * N];
    static int32_t zeros[BLOCKS * N];
    for (int i = 0; i < BLOCKS * N; i++) {
        scales[i] = 0.01f + 0.001f * (float)(i % 7);
        zeros[i] = i % 16;
    }
    const qn_quant fours = {.bits = 4,
                            .axis = 0,
                            .block = K / BLOCKS,
                            .qmax = 15,
                            .n_scales = BLOCKS * N,
                            .scales = scales,
                            .zero_points = zeros};
    const qn_quant eights = qnm_signed_bytes(0, K, scales);
    const qn_type f32 = qn_type_plain_make(QN_DTYPE_F32);
    qn_graph *g = NULL;
    qn_node *node;
    assert_ok(qn__graph_create(ctx, &g, &error));
    g->opset = 21;
    qn_tensor *const x = qnm_tensor(g, "x", f32, 4, X), *const a = qnm_tensor(g, "a", f32, 2, A);
    qn_tensor *const h = qnm_tensor(g, "h", f32, 2, H), *const y = qnm_tensor(g, "y", f32, 2, A);
    qn_tensor *const first[] = {a,
                                qnm_constant(g, "w", qnm_quant(g, QN_DTYPE_U4, &fours), 2, W, 5)};
    qn_tensor *const second[] = {h,
                                 qnm_constant(g, "v", qnm_quant(g, QN_DTYPE_I8, &eights), 2, V, 6),
                                 qnm_constant(g, "b", f32, 1, B, 7)};
    assert_true(first[1] != NULL && second[1] != NULL && second[2] != NULL);
    assert_true(qnm_reshape(g, "to rows", x, a) &&
                qnm_node(g, QN_OP_MATMUL, "fours", 2, first, h, &node) &&
                qnm_node(g, QN_OP_GEMM, "eights", 3, second, y, &node) &&
                qn__node_set_int(g, node, "transB", 1) && qnm_ends(g, x, y));
    return g;
}

static void write_ints(void)
{
    qn_graph *const g = ints_graph();
    qn_packed_list list = {.ctx = ctx};
    assert_ok(qn__graph_pack(g, "scalar,avx2,avx512,neon", &list, &error));
    assert_int_equal(list.count, 2); /* as floats, four and eight times as large, they stay out */
    const qn_packed_store store = {list.count, list.entries};
    const qn_qnm_write_options options = {&store, false};
    assert_ok(qn__qnm_write(g, &options, "t.qnm", NULL, &error));
    qn__packed_list_free(&list);
    qn__graph_destroy(g);
}

static void test_packed_integers_of_float_products(void **state)
{
    (void)state;
    static const char *const MASKS[] = {"scalar", "avx2", ""};
    for (size_t i = 0; i < 3; i++) {
        float a[6], b[6], c[6];
        size_t none, mapped, less;
        uint32_t flags = ctx->cpu_flags;
        assert_true(qn__cpu_mask(&flags, MASKS[i]));
        qn_kernels kernels;
        qn__kernels_init(&kernels, flags);
        write_ints();
        qn_graph *const plain = ints_graph();
        qn_graph *packed = read_back(true);
        run_graph(plain, flags, &none, a);
        run_graph(packed, flags, &mapped, b);
        assert_int_equal(none, 0);
        assert_int_equal(mapped, kernels.f32_ints.nr != 0 ? packed_bytes : 0);
        assert_memory_equal(a, b, sizeof(a));
        /* other scales are packed again, and the rest is not */
        qn__graph_find_tensor(plain, "v")->type.quant =
            qn__graph_find_tensor(packed, "v")->type.quant =
                qn__graph_quant(packed, &(qn_quant){.bits = 8,
                                                    .is_signed = true,
                                                    .axis = -1,
                                                    .qmin = -128,
                                                    .qmax = 127,
                                                    .n_scales = 1,
                                                    .scales = (const float[]){0.5f}});
        run_graph(plain, flags, &none, a);
        run_graph(packed, flags, &less, c);
        assert_true(mapped == 0 ? less == 0 : less > 0 && less < mapped);
        assert_memory_equal(a, c, sizeof(a));
        assert_memory_not_equal(b, c, sizeof(b));
        qn__graph_destroy(plain);
        qn__graph_destroy(packed);
        if (mapped == 0)
            continue;
        const size_t at = (size_t)qn_qnm_u64_at(file.data + 64 + 2 * 32 + 8);
        for (size_t j = at + 16 + 2 * 48; j < file.size; j++)
            file.data[j] ^= 1;
        packed = read_back(false);
        run_graph(packed, flags, &less, c);
        assert_int_equal(less, mapped);
        assert_memory_not_equal(b, c, sizeof(b));
        qn__graph_destroy(packed);
    }
}

/* --- damage ----------------------------------------------------------------------------------- */
static uint32_t random_state = 5;

static uint32_t next_random(uint32_t below)
{
    random_state = random_state * 1664525u + 1013904223u;
    return (random_state >> 8) % below;
}

/* Changes some of what is behind the entries, or what one of them says of it. */
static void damage_packed(unsigned round)
{
    const size_t at = (size_t)qn_qnm_u64_at(file.data + 64 + 2 * 32 + 8);
    const uint32_t count = qn_qnm_u32_at(file.data + at);
    uint8_t *const bytes = file.data + at + 16 + 48 * (size_t)count;
    const uint32_t size = (uint32_t)(file.data + file.size - bytes);
    for (uint32_t n = 0; n < (round % 3 == 0 ? size / 8 : 1u + round % 9); n++)
        bytes[next_random(size)] =
            (uint8_t)(round % 2 == 0 ? next_random(256) : 0xffu >> next_random(2));
    if (round % 4 == 3) /* whether pairs are safe */
        qn_qnm_put(file.data + at + 16 + 48 * next_random(count) + 20, next_random(4), 4);
}

/* Answers, or numbers that are none; no more. */
static void test_damaged_packed_weights_are_run(void **state)
{
    (void)state;
    static const char *const MASKS[] = {"scalar", "avx2", "avx512"};
    enum { ROUNDS = 60, FEW_ROUNDS = 8, INTS = 5 };
    qn_kernels kernels;
    qn__kernels_init(&kernels, ctx->cpu_flags);
    for (int which = 1; which <= INTS; which++) {
        size_t n_mapped = 0;
        if (which == 2)
            continue;
        for (unsigned round = 0; round < (unsigned)(which == INTS ? FEW_ROUNDS : ROUNDS); round++) {
            if (which == INTS)
                write_ints();
            else
                assert_true(qnm_seed(ctx, which));
            damage_packed(round);
            qn_graph *const graph = read_back(false);
            for (size_t i = 0; i < 3; i++) {
                float out[6];
                size_t mapped = 0;
                uint32_t flags = ctx->cpu_flags;
                assert_true(qn__cpu_mask(&flags, MASKS[i]));
                const qn_status status = try_graph(graph, flags, &mapped, out);
                if (status != QN_OK && status != QN_NONFINITE)
                    fail_msg("seed %d, round %u: %s", which, round, error.message);
                n_mapped += mapped;
            }
            qn__graph_destroy(graph);
        }
        assert_true(n_mapped > 0 || (which == INTS && kernels.f32_ints.nr == 0));
    }
}

static void test_forms_are_the_kernels(void **state)
{
    (void)state;
    qn_packed_list list = {.ctx = ctx};
    qn_graph *const graph = qnm_seed_graph(ctx, 1);
    assert_non_null(graph);
    assert_fails(qn__graph_pack(graph, "avx3", &list, &error), QN_INVALID_ARGUMENT, "avx3");
    assert_ok(qn__graph_pack(graph, "native,scalar,avx2,avxvnni,avx512,vnni,amx,neon,dotprod,i8mm",
                             &list, &error));
    assert_int_equal(list.count, 2 * 6); /* two nodes; some instruction sets share a form */
    qn__packed_list_free(&list);
    qn__graph_destroy(graph);
    static const struct form {
        const char *isa;
        uint32_t flags;
        size_t nr, kr;
        bool pairs;
        size_t block, least, f32_nr, ints_nr;
    } FORMS[] = {
#define QN_PACKING(isa, ...) {#isa, QN_ISA_##isa, __VA_ARGS__},
#include "run/packings.def"
#undef QN_PACKING
    };
    for (size_t i = 0; i < sizeof(FORMS) / sizeof(FORMS[0]); i++) {
        qn_kernels kernels;
        uint32_t flags = UINT32_MAX;
        assert_true(qn__cpu_mask(&flags, FORMS[i].isa));
        qn__kernels_init(&kernels, flags);
        bool compiled = false;
#define QN_KERNEL(slot, isa, function, ...)                                                        \
    compiled |= strcmp(#slot, "q8_igemm") == 0 && QN_ISA_##isa == FORMS[i].flags;
#include "kernel/kernels.def"
#undef QN_KERNEL
        if (!compiled)
            continue;
        assert_int_equal(kernels.q8_igemm.nr, FORMS[i].nr);
        assert_int_equal(kernels.q8_igemm.kr, FORMS[i].kr);
        assert_int_equal(kernels.q8_igemm.pairs != NULL, FORMS[i].pairs);
        assert_int_equal(kernels.q8_dwconv.block, FORMS[i].block);
        assert_int_equal(kernels.q8_dwconv.least, FORMS[i].least);
        assert_int_equal(kernels.f32_igemm.nr, FORMS[i].f32_nr);
        assert_int_equal(kernels.f32_ints.nr, FORMS[i].ints_nr);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_graphs_come_back),
        cmocka_unit_test(test_the_empty_graph),
        cmocka_unit_test(test_names_can_be_left_out),
        cmocka_unit_test(test_what_cannot_be_written),
        cmocka_unit_test(test_refusals_have_a_reason),
        cmocka_unit_test(test_checksum_is_zlibs),
        cmocka_unit_test(test_packed_weights_are_used_and_equal),
        cmocka_unit_test(test_packed_weights_only_where_they_fit),
        cmocka_unit_test(test_packed_floats_only_where_they_fit),
        cmocka_unit_test(test_every_packed_order_is_read),
        cmocka_unit_test(test_packed_orders_only_where_they_fit),
        cmocka_unit_test(test_packed_integers_of_float_products),
        cmocka_unit_test(test_damaged_packed_weights_are_run),
        cmocka_unit_test(test_forms_are_the_kernels),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
