/* What is done with the bytes of a damaged ONNX file: read; what is accepted verifies, is written
 * in both forms, read again, and run once unless that is long. Files are written into memory. */
#ifndef TEST_ONNX_TRY_H
#define TEST_ONNX_TRY_H

#include <sys/stat.h>
#include <unistd.h>

#include "core/checked.h"
#include "format/format.h"
#include "format/onnx/onnx_read.h"
#include "property/qnm_seeds.h"

typedef struct onnx_fate {
    bool is_graph, ran;
    const char *wrong; /* NULL: what was accepted holds */
} onnx_fate;

enum { ONNX_MADE_FD = 1000, ONNX_FOLDER_BYTES = 64 };

/* What is written goes into memory; what is read is real: the folder of the model has w.bin of 64
 * bytes for tensors that lie outside the file. */
typedef struct onnx_place {
    memory_file written;
    qn_io io;
    char folder[ONNX_FOLDER_BYTES], path[ONNX_FOLDER_BYTES + 16];
} onnx_place;

static inline int onnx_open(void *ctx, const char *path, int flags, int mode)
{
    onnx_place *const place = ctx;
    if ((flags & (O_CREAT | O_DIRECTORY)) == 0)
        return place->io.open(place->io.ctx, path, flags, mode);
    if ((flags & O_CREAT) != 0)
        place->written.size = 0;
    return ONNX_MADE_FD;
}
static inline int onnx_close(void *ctx, int fd)
{
    onnx_place *const place = ctx;
    return fd == ONNX_MADE_FD ? 0 : place->io.close(place->io.ctx, fd);
}

static inline int64_t onnx_write(void *ctx, int fd, const void *bytes, size_t size)
{
    return memory_write(&((onnx_place *)ctx)->written, fd, bytes, size);
}

static inline void onnx_leave(onnx_place *place, qn_context *ctx)
{
    char path[ONNX_FOLDER_BYTES + 16];
    qn_context_destroy(ctx);
    snprintf(path, sizeof(path), "%s/w.bin", place->folder);
    unlink(path);
    rmdir(place->folder);
    free(place->written.data);
}

/* NULL: cannot be made. Limits hold hostile models small. */
static inline qn_context *onnx_enter(onnx_place *place)
{
    *place = (onnx_place){.folder = "/tmp/quench_onnx_XXXXXX"};
    place->written.data = malloc(QNM_MOST_BYTES);
    place->written.most = QNM_MOST_BYTES;
    if (place->written.data == NULL || mkdtemp(place->folder) == NULL)
        return NULL;
    snprintf(place->path, sizeof(place->path), "%s/w.bin", place->folder);
    FILE *const weights = fopen(place->path, "wb");
    for (int i = 0; weights != NULL && i < 64; i++)
        fputc(i % 4 == 3 ? 0x40 : 0, weights);
    if (weights == NULL || fclose(weights) != 0)
        return NULL;
    snprintf(place->path, sizeof(place->path), "%s/f.onnx", place->folder);
    qn_io_init(&place->io);
    qn_io io = place->io;
    io.open = onnx_open;
    io.close = onnx_close;
    io.fsync = memory_one;
    io.write = onnx_write;
    io.rename = memory_rename;
    io.unlink = memory_unlink;
    io.ctx = place;
    qn_limits limits;
    qn_limits_init(&limits);
    limits.tensor_bytes = 1 << 18;
    limits.arena_bytes = 1 << 20;
    qn_context_options options;
    qn_context_options_init(&options);
    options.io = &io;
    options.limits = &limits;
    options.n_threads = 1;
    qn_context *ctx = NULL;
    return qn_context_create(&options, &ctx, NULL) == QN_OK ? ctx : NULL;
}

/* The message of a refusal is one line that names the file. */
static inline const char *onnx_refusal(qn_status status, const qn_error *error)
{
    if (status == QN_INTERNAL || status == QN_NO_MEMORY)
        return qn_status_name(status);
    if (error->status != status)
        return "the error has another status";
    return strstr(error->message, "f.onnx") != NULL && strchr(error->message, '\n') == NULL
               ? NULL
               : "a message of several lines, or without the file's name";
}

/* What was written can be read. */
static inline const char *onnx_again(const qn_context *ctx, const char *path,
                                     const memory_file *file)
{
    qn_graph *graph = NULL;
    qn_error error = {0};
    qn_blob *const blob = qn__blob_copy(ctx, file->data, file->size);
    if (blob == NULL)
        return "no memory";
    const qn_status status = qn__onnx_read(ctx, path, blob, &graph, &error);
    qn__blob_unref(blob);
    qn__graph_destroy(graph);
    if (status == QN_OK)
        return NULL;
    fprintf(stderr, "%s\n", error.message);
    return "what was written cannot be read";
}

/* Elements of a node's input or output, open dimensions being 1. Not more than SIZE_MAX. */
static inline size_t onnx_elements(const qn_tensor *tensor)
{
    size_t count = 1;
    for (uint32_t d = 0; tensor != NULL && tensor->has_shape && d < tensor->rank; d++)
        if (tensor->dims[d].kind == QN_DIM_CONST &&
            !qn_mul_size(&count, count, (size_t)tensor->dims[d].value))
            return SIZE_MAX;
    return count;
}

/* What a node does that no count of products shows: a window for every value; every combination of
 * indices; samples in a region; every pair of boxes. Not more than SIZE_MAX. */
static inline size_t onnx_work(const qn_node *node)
{
    size_t work = node->n_outputs > 0 ? onnx_elements(node->outputs[0]) : 0;
    const qn_attr *const kernel = qn__node_attr(node, "kernel_shape");
    if (node->op == QN_OP_EINSUM || node->op == QN_OP_NON_MAX_SUPPRESSION)
        work = node->n_inputs > 0 ? onnx_elements(node->inputs[0]) : 0;
    if (node->op == QN_OP_NON_MAX_SUPPRESSION && !qn_mul_size(&work, work, work))
        return SIZE_MAX;
    for (uint32_t i = 1; node->op == QN_OP_EINSUM && i < node->n_inputs; i++)
        if (!qn_mul_size(&work, work, onnx_elements(node->inputs[i])))
            return SIZE_MAX;
    const int64_t ratio = qn__attr_int(node, "sampling_ratio", 0),
                  size = qn__attr_int(node, "size", 0);
    if (node->op == QN_OP_ROI_ALIGN && ratio > 0 &&
        (!qn_mul_size(&work, work, (size_t)ratio) || !qn_mul_size(&work, work, (size_t)ratio)))
        return SIZE_MAX;
    if (node->op == QN_OP_LRN && size > 0 && !qn_mul_size(&work, work, (size_t)size))
        return SIZE_MAX;
    for (size_t k = 0; kernel != NULL && kernel->kind == QN_ATTR_INTS && k < kernel->count; k++)
        if (kernel->ints[k] < 0 || !qn_mul_size(&work, work, (size_t)kernel->ints[k]))
            return SIZE_MAX;
    return work;
}

static inline bool onnx_is_long(const qn_graph *graph)
{
    for (size_t i = 0; i < graph->n_nodes; i++)
        if (onnx_work(graph->nodes[i]) > QNM_MOST_MACS)
            return true;
    return false;
}

static inline onnx_fate onnx_try(const qn_context *ctx, const onnx_place *place,
                                 const uint8_t *data, size_t size)
{
    onnx_fate fate = {0};
    qn_graph *graph = NULL;
    qn_error error = {0};
    qn_blob *const blob = qn__blob_copy(ctx, data, size);
    if (blob == NULL)
        return (onnx_fate){.wrong = "no memory"};
    const qn_status status = qn__onnx_read(ctx, place->path, blob, &graph, &error);
    qn__blob_unref(blob);
    if (status != QN_OK) {
        fate.wrong = graph != NULL ? "a graph with an error" : onnx_refusal(status, &error);
        return fate;
    }
    fate.is_graph = true;
    if (qn__graph_verify(graph, NULL) != QN_OK)
        fate.wrong = "the graph does not verify";
    for (int format = 0; format < 2 && fate.wrong == NULL; format++) {
        const qn_write_options options = {.format = (qn_write_format)format};
        const qn_status wrote = qn__format_write(graph, "o.onnx", &options, NULL, NULL);
        if (wrote == QN_OK)
            fate.wrong = onnx_again(ctx, place->path, &place->written);
        else if (wrote == QN_INTERNAL || wrote == QN_NO_MEMORY)
            fate.wrong = "writing fails";
    }
    if (onnx_is_long(graph)) {
        qn__graph_destroy(graph);
        return fate;
    }
    const qn_status run = qnm_run(ctx, graph);
    fate.ran = run == QN_OK;
    if (fate.wrong == NULL && run == QN_INTERNAL)
        fate.wrong = "running fails";
    return fate;
}

#endif
