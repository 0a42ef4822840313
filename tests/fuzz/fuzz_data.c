/* Bytes as the files that calibration names; the first byte says which: .npy, raw numbers, a list,
 * a table of labels, a recipe. Refused with one line, or within bounds. With clang's libFuzzer
 * (QN_FUZZ) this is a fuzzer; otherwise replay.c calls it. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/checked.h"
#include "data/lists.h"
#include "data/tensor_file.h"
#include "property/qnm_seeds.h"
#include "quench/quantize.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The one file there is. */
typedef struct one_file {
    const uint8_t *data;
    size_t size, at;
} one_file;

static void demand(bool holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "%s\n", what);
        abort();
    }
}

static int open_memory(void *ctx, const char *path, int flags, int mode)
{
    one_file *file = ctx;
    (void)path, (void)mode;
    demand((flags & O_CREAT) == 0, "reading writes");
    file->at = 0;
    return 1000;
}

static int close_memory(void *ctx, int fd)
{
    (void)ctx, (void)fd;
    return 0;
}

static int64_t read_memory(void *ctx, int fd, void *out, size_t size)
{
    one_file *file = ctx;
    (void)fd;
    if (size > file->size - file->at)
        size = file->size - file->at;
    memcpy(out, file->data + file->at, size);
    file->at += size;
    return (int64_t)size;
}

static int64_t size_memory(void *ctx, int fd, bool *is_regular)
{
    const one_file *file = ctx;
    (void)fd;
    *is_regular = true;
    return (int64_t)file->size;
}

static void *map_nothing(void *ctx, int fd, size_t size)
{
    (void)ctx, (void)fd, (void)size;
    return NULL;
}

static qn_status try_tensor(const qn_context *ctx, bool raw, qn_error *error)
{
    static const int64_t SAMPLE[] = {2, 3};
    static const char *const TYPES[] = {"f32", "f16", "u8", "i64"};
    const one_file *const memory = ctx->io.ctx;
    qn_tensor_file file;
    float values[64];
    size_t count, bytes;
    const char *const type = raw ? TYPES[memory->size % 4] : NULL;
    const qn_status status =
        qn__tensor_file_open(ctx, "file.npy", "x", true, type, SAMPLE, raw ? 2 : 0, &file, error);
    if (status != QN_OK)
        return status;
    demand(qn_shape_count(&count, file.dims, file.rank) &&
               qn_mul_size(&bytes, count, file.element_bytes) &&
               (bytes <= memory->size || (memory->size > 1 && memory->data[0] == 'P')),
           "more elements than bytes");
    for (size_t begin = 0; begin < count; begin += 64)
        qn__tensor_file_read(&file, begin, count - begin < 64 ? count - begin : 64, values);
    qn__tensor_file_close(&file);
    return QN_OK;
}

static qn_status try_lists(const qn_context *ctx, bool labels, qn_error *error)
{
    qn_arena arena;
    size_t count = 0, characters = 0;
    const char **lines = NULL;
    qn_label *table = NULL;
    qn__arena_init(&arena, ctx);
    const qn_status status = labels
                                 ? qn__labels_read(ctx, &arena, "labels.csv", &table, &count, error)
                                 : qn__list_read(ctx, &arena, "list.txt", &lines, &count, error);
    for (size_t i = 0; status == QN_OK && i < count; i++) {
        uint64_t row;
        const char *const text = labels ? table[i].name : lines[i];
        characters += strlen(text);
        qn__list_row(text, &row);
    }
    demand(characters <= ((const one_file *)ctx->io.ctx)->size, "longer than the file");
    qn__free(ctx, lines);
    qn__free(ctx, table);
    qn__arena_free(&arena);
    return status;
}

/* A convolution quantized as the recipe says. */
static qn_status try_recipe(const qn_context *ctx, qn_error *error)
{
    static qn_model *model;
    qn_model *quantized = NULL;
    qn_report *report = NULL;
    qn_quantize_options options;
    if (model == NULL)
        demand(qn__model_create(ctx, qnm_seed_graph(ctx, 0), "f.onnx", 0, &model, NULL) == QN_OK,
               "no model");
    qn_quantize_options_init(&options);
    options.recipe_file = "recipe.json";
    const qn_status status = qn_quantize(model, NULL, &options, &quantized, &report, error);
    demand((status == QN_OK) == (quantized != NULL && report != NULL), "a model with an error");
    qn_report_destroy(report);
    qn_model_destroy(quantized);
    return status;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static qn_context *ctx;
    static one_file file;
    if (ctx == NULL) {
        qn_context_options options;
        qn_io io;
        qn_io_init(&io);
        io.open = open_memory;
        io.close = close_memory;
        io.read = read_memory;
        io.size = size_memory;
        io.map = map_nothing;
        io.ctx = &file;
        qn_context_options_init(&options);
        options.io = &io;
        options.n_threads = 1;
        demand(qn_context_create(&options, &ctx, NULL) == QN_OK, "no context");
    }
    if (size == 0)
        return 0;
    file = (one_file){data + 1, size - 1, 0};
    qn_error error = {0};
    qn_status status;
    switch (data[0] % 5) {
    case 0:
    case 1:
        status = try_tensor(ctx, data[0] % 5 == 1, &error);
        break;
    case 2:
    case 3:
        status = try_lists(ctx, data[0] % 5 == 3, &error);
        break;
    default:
        status = try_recipe(ctx, &error);
    }
    if (status != QN_OK) {
        demand(status != QN_INTERNAL && error.status == status, "the status");
        demand(error.message[0] != '\0' && strchr(error.message, '\n') == NULL, error.message);
    }
    return 0;
}
