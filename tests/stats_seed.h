/* A small statistics file made on the spot, files in memory, and what is done with a damaged one.
 */
#ifndef TEST_STATS_SEED_H
#define TEST_STATS_SEED_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "calib/stats_journal.h"
#include "memory_file.h"
#include "quench/quantize.h"

enum { STATS_MOST_BYTES = 1 << 22 };

/* A context whose files are all `file`; limits hold hostile statistics small. */
static inline qn_context *stats_context(memory_file *file)
{
    qn_limits limits;
    qn_limits_init(&limits);
    limits.tensor_bytes = 1 << 24;
    return memory_context(file, STATS_MOST_BYTES, &limits, NULL);
}

/* --- a seed ------------------------------------------------------------------------------------*/
enum { SEED_CHANNELS = 3, SEED_SAMPLES = 10, SEED_ROWS = 7, SEED_WIDTH = 4, SEED_VALUES = 12 };

static inline float seed_value(uint64_t sample, size_t item, size_t i)
{
    const uint64_t x = (sample * 131 + item * 31 + i * 7 + 1) * 0x9E3779B97F4A7C15u;
    const int32_t v = (int32_t)(x >> 40) % 2000 - 700;
    return v % 5 == 0 ? 0.0f : (float)v / 256.0f;
}

static inline bool seed_table(qn_stats *s, qn_stats_stage *stage, size_t many)
{
    static const char *const kinds[] = {"histogram", "range", "ranges by sample", "magnitudes"};
    enum { N = sizeof(kinds) / sizeof(kinds[0]) };
    qn_arena *a = &s->arena;
    *stage = (qn_stats_stage){.present = true,
                              .want_peaks = true,
                              .graph = 7,
                              .n_used = SEED_SAMPLES,
                              .n_few = 3,
                              .n_means = 1,
                              .n_rows = 1};
    stage->item_names = qn__arena_calloc(a, N, sizeof(char *));
    stage->methods = qn__arena_calloc(a, N, sizeof(void *));
    stage->states = qn__arena_calloc(a, N, sizeof(void *));
    stage->mean_names = qn__arena_calloc(a, 1, sizeof(char *));
    stage->means = qn__arena_calloc(a, 1, sizeof(*stage->means));
    stage->rows = qn__arena_calloc(a, 1, sizeof(*stage->rows));
    if (stage->rows == NULL)
        return false;
    stage->mean_names[0] = "mean";
    stage->rows[0] = (qn_stats_row){"node", 1, SEED_WIDTH, SEED_ROWS, NULL};
    for (size_t i = 0; i < N; i++) {
        stage->item_names[i] = kinds[i];
        stage->methods[i] = qn__feature_method_of_kind(kinds[i], strlen(kinds[i]));
        stage->states[i] = qn__alloc(s->ctx, stage->methods[i]->state_bytes());
        stage->methods[i]->init(stage->states[i]);
        stage->n_items++;
    }
    (void)many;
    return true;
}

/* Samples [begin, end) as contributions, many values each where `many` is not 1. */
static inline bool seed_samples(qn_stats *s, uint64_t begin, uint64_t end, size_t many)
{
    qn_stats_stage *main = &s->stages[QN_STATS_MAIN];
    float *values = malloc(SEED_VALUES * many * sizeof(*values));
    float data[SEED_ROWS * SEED_WIDTH], input[2] = {0, 1.5f};
    float *inputs[] = {input};
    bool ok = values != NULL;
    for (uint64_t k = begin; ok && k < end; k++) {
        qn_stats part = *s;
        qn_stats_stage one;
        qn_strbuf buf;
        qn_fixed sums[SEED_CHANNELS] = {(qn_fixed)k << 40, -5, 0}, few[SEED_CHANNELS] = {0};
        float peaks[SEED_CHANNELS] = {(float)k, 0, 1};
        char name[16];
        snprintf(name, sizeof(name), "%llu.png", (unsigned long long)k);
        qn__arena_init(&part.arena, s->ctx);
        ok = seed_table(&part, &one, many);
        for (size_t i = 0; ok && i < one.n_items; i++) {
            for (size_t v = 0; v < SEED_VALUES * many; v++)
                values[v] = seed_value(k, i, v);
            ok = one.methods[i]->observe(s->ctx, one.states[i], 0, k, values, SEED_VALUES * many,
                                         NULL) == QN_OK;
        }
        for (size_t i = 0; i < SEED_ROWS * SEED_WIDTH; i++)
            data[i] = seed_value(0, 9, i);
        const bool kept = qn_is_one_of_few(k, one.n_few, SEED_SAMPLES);
        few[0] = kept ? sums[0] : 0;
        qn_stats_sample sample = {k, k * 3, name, kept ? inputs : NULL};
        one.means[0] = (qn_stats_mean){SEED_CHANNELS, sums, few, peaks};
        one.rows[0].data = data;
        one.samples = &sample;
        one.n_samples = 1;
        qn__strbuf_init(&buf, s->ctx, SIZE_MAX / 4);
        qn__stats_put_seen(&part, &buf, &one);
        const qn_qnm_cursor seen = {(const uint8_t *)buf.data, buf.length, false};
        ok = ok && !buf.failed && qn__stats_add_seen(s, main, &seen, 1, NULL) == QN_OK;
        for (size_t i = 0; i < one.n_items; i++) {
            one.methods[i]->release(s->ctx, one.states[i]);
            qn__free(s->ctx, one.states[i]);
        }
        qn__strbuf_free(&buf);
        qn__arena_free(&part.arena);
    }
    free(values);
    return ok && qn__stats_sort(s, main, NULL) == QN_OK;
}

/* Statistics of samples [begin, end) of SEED_SAMPLES. */
static inline qn_stats *seed_stats(const qn_context *ctx, uint64_t begin, uint64_t end, size_t many)
{
    qn_stats *s = NULL;
    if (qn__stats_new(ctx, "seed", &s, NULL) != QN_OK)
        return NULL;
    s->head = (qn_stats_head){.model = 1, .n_samples = SEED_SAMPLES, .names = 2, .n_inputs = 1};
    qn_preprocess_init(&s->head.preprocess);
    s->head.preprocess.n_mean = 1;
    s->head.preprocess.mean[0] = 127.5f;
    s->head.inputs = qn__arena_calloc(&s->arena, 1, sizeof(*s->head.inputs));
    s->head.inputs[0] = (qn_stats_input){.name = "x", .rank = 2, .dims = {1, 2}, .count = 2};
    if (!seed_table(s, &s->stages[QN_STATS_MAIN], many) || !seed_samples(s, begin, end, many)) {
        qn__stats_free(s);
        return NULL;
    }
    return s;
}

/* --- what is done with bytes -------------------------------------------------------------------*/
/* Every record gets the checksum that fits it. */
static inline void stats_fix_checksums(uint8_t *data, size_t size)
{
    enum { FRONT = 12, HEAD = 16 };
    qn_qnm_crc crc;
    qn__qnm_crc_init(&crc);
    for (size_t at = FRONT; size >= HEAD && at <= size - HEAD;) {
        const uint64_t bytes = qn_qnm_u64_at(data + at + 4);
        if (bytes > size - at - HEAD)
            return;
        const uint32_t head = qn__qnm_crc_update(&crc, 0, data + at, HEAD - 4);
        qn_qnm_put(data + at + 12, qn__qnm_crc_update(&crc, head, data + at + HEAD, (size_t)bytes),
                   4);
        at += HEAD + (size_t)bytes;
    }
}

/* Reads the file; what is accepted is described, written, read again and written the same. False:
 * something is wrong with the reader. */
static inline bool stats_try(const qn_context *ctx, memory_file *file, bool *accepted)
{
    qn_stats *s = NULL, *again = NULL;
    qn_error error = {0};
    char *text = NULL;
    bool ok = true;
    *accepted = qn__stats_open(ctx, "f", &s, &error) == QN_OK;
    if (!*accepted)
        return error.message[0] != '\0' && strchr(error.message, '\n') == NULL;
    for (int json = 0; json < 2 && ok; json++) {
        ok = qn_stats_describe(ctx, "f", json != 0, &text, &error) == QN_OK;
        qn_text_destroy(ctx, text);
        text = NULL;
    }
    ok = ok && qn__stats_write(s, "f", &error) == QN_OK;
    uint8_t *copy = malloc(file->size + 1);
    const size_t size = file->size;
    if (ok && copy != NULL) {
        memcpy(copy, file->data, size);
        ok = qn__stats_open(ctx, "f", &again, &error) == QN_OK &&
             qn__stats_write(again, "f", &error) == QN_OK && file->size == size &&
             memcmp(copy, file->data, size) == 0;
    }
    free(copy);
    qn__stats_free(again);
    qn__stats_free(s);
    return ok;
}

#endif
