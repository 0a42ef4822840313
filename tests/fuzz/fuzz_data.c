/* Bytes as the files that calibration names; the first byte says which: .npy, raw numbers, a list,
 * a table of labels, a recipe, .npz, .npz with checksums that fit, CSV, another tool's calibration
 * table. Refused with one line, or within bounds. With clang's libFuzzer (QN_FUZZ) this is a
 * fuzzer; otherwise replay.c calls it. */
#include <math.h>
#include <stdio.h>
#include <zlib.h>

#include "core/checked.h"
#include "data/lists.h"
#include "data/tensor_file.h"
#include "memory_file.h"
#include "property/qnm_seeds.h"
#include "quant/range_table.h"
#include "quench/quantize.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void demand(bool holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "%s\n", what);
        abort();
    }
}

/* What kind of file of numbers it is. */
typedef enum numbers { NPY, RAW, NPZ, CSV } numbers;

static qn_status try_tensor(const qn_context *ctx, numbers kind, qn_error *error)
{
    static const int64_t SAMPLE[] = {2, 3};
    static const char *const TYPES[] = {"f32", "f16", "u8", "i64"};
    const memory_file *const memory = ctx->io.ctx;
    qn_tensor_file file;
    float values[64];
    size_t count, bytes;
    const char *const type = kind == RAW ? TYPES[memory->size % 4] : NULL;
    const char *const path = kind == CSV ? "file.csv" : "file.npy";
    const qn_status status = qn__tensor_file_open(ctx, path, "x", memory->size % 2 == 0, type,
                                                  SAMPLE, kind == RAW ? 2 : 0, &file, error);
    if (status != QN_OK)
        return status;
    const bool packed = memory->size > 1 && memory->data[0] == 'P';
    demand(qn_shape_count(&count, file.dims, file.rank) &&
               qn_mul_size(&bytes, count, file.element_bytes) &&
               (packed     ? bytes / 1032 <= memory->size
                : file.own ? count <= memory->size
                           : bytes <= memory->size),
           "more elements than bytes");
    for (size_t begin = 0; begin < count; begin += 64)
        qn__tensor_file_read(&file, begin, count - begin < 64 ? count - begin : 64, values);
    qn__tensor_file_close(&file);
    return QN_OK;
}

static uint32_t number_at(const uint8_t *p, size_t n)
{
    uint32_t v = 0;
    while (n-- > 0)
        v = v << 8 | p[n];
    return v;
}

/* Writes into the directory what the bytes of stored members add up to. */
static void fit_checksums(uint8_t *data, size_t size)
{
    for (size_t at = 0; size >= 46 && at <= size - 46; at++) {
        uint8_t *const entry = data + at;
        const uint32_t bytes = number_at(entry + 20, 4), header = number_at(entry + 42, 4);
        if (number_at(entry, 4) != 0x02014b50 || number_at(entry + 10, 2) != 0 || header > size ||
            size - header < 30)
            continue;
        const size_t skip =
            header + 30 + number_at(data + header + 26, 2) + number_at(data + header + 28, 2);
        if (skip > size || bytes > size - skip)
            continue;
        const uLong sum = crc32(0, data + skip, bytes);
        for (int i = 0; i < 4; i++)
            entry[16 + i] = (uint8_t)(sum >> 8 * i);
    }
}

static qn_status try_fitting(const qn_context *ctx, qn_error *error)
{
    memory_file *const memory = ctx->io.ctx;
    const memory_file as_it_was = *memory;
    uint8_t *const copy = malloc(memory->size + 1);
    demand(copy != NULL, "no memory");
    memcpy(copy, memory->data, memory->size);
    fit_checksums(copy, memory->size);
    memory->data = copy;
    const qn_status status = try_tensor(ctx, NPZ, error);
    *memory = as_it_was;
    free(copy);
    return status;
}

static qn_status try_table(const qn_context *ctx, qn_error *error)
{
    const memory_file *const memory = ctx->io.ctx;
    qn_arena arena;
    qn__arena_init(&arena, ctx);
    qn_range_table t = {.path = "table", .kind = "a calibration table", .arena = &arena};
    const qn_status status = qn__range_table_read(&t, memory->data, memory->size, error);
    for (size_t i = 0; status == QN_OK && i < t.count; i++)
        demand(isfinite(t.items[i].lo) && isfinite(t.items[i].hi) &&
                   t.items[i].lo <= t.items[i].hi && t.items[i].name != NULL,
               "no range");
    qn__free(ctx, t.items);
    qn__arena_free(&arena);
    return status;
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
    demand(characters <= ((const memory_file *)ctx->io.ctx)->size, "longer than the file");
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
    static memory_file file;
    if (ctx == NULL)
        ctx = memory_context(&file, 0, NULL, NULL);
    if (size == 0)
        return 0;
    file = (memory_file){.data = (uint8_t *)data + 1, .size = size - 1};
    qn_error error = {0};
    qn_status status;
    switch (data[0] % 9) {
    case 0:
    case 1:
        status = try_tensor(ctx, data[0] % 9 == 1 ? RAW : NPY, &error);
        break;
    case 2:
    case 3:
        status = try_lists(ctx, data[0] % 9 == 3, &error);
        break;
    case 4:
        status = try_recipe(ctx, &error);
        break;
    case 5:
        status = try_tensor(ctx, NPZ, &error);
        break;
    case 6:
        status = try_fitting(ctx, &error);
        break;
    case 7:
        status = try_tensor(ctx, CSV, &error);
        break;
    default:
        status = try_table(ctx, &error);
    }
    if (status != QN_OK) {
        demand(status != QN_INTERNAL && error.status == status, "the status");
        demand(error.message[0] != '\0' && strchr(error.message, '\n') == NULL, error.message);
    }
    return 0;
}
