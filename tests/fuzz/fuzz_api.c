/* Bytes as calls of the library's functions in any order, with any arguments that C allows: NULL,
 * names of files that are there or not, numbers from 0 to SIZE_MAX, objects of each other. What a
 * call gives back is used by later ones. A refusal has its status and one line; nothing is an
 * internal error. With clang's libFuzzer (QN_FUZZ) this is a fuzzer; otherwise replay.c calls it.
 */
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "format/format.h"
#include "property/qnm_seeds.h"
#include "quench/quantize.h"
#include "quench/runtime.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {
    SLOTS = 3,
    MOST_CALLS = 40,
    FOLDER_BYTES = 64,
    SAMPLES = 3,
    MOST_FLOATS = 4096,
    THERE = 7,
    FILE_BYTES = 1 << 14
};

static char folder[FOLDER_BYTES];
static qn_context *ctx;
static qn_io real_io;
static bool wrote; /* files may not be what they were */

/* THERE files that are there first, as they are restored; then what calls write. */
static uint8_t there[THERE][FILE_BYTES];
static size_t there_bytes[THERE];
static const char *const FILES[] = {"f.onnx",        "q.onnx",    "k.qnm",    "x.npy", "labels.csv",
                                    "list",          "r.json",    "out.onnx", "o.qnm", "stats",
                                    "stats.partial", "stats.bad", "o.mnn",    "o.list"};
static const char *const WORDS[] = {
    "",        "onnxruntime", "mnn",     "tensorrt",    "kl",       "minmax", "percentile",
    "mse",     "ema",         "max_abs", "gptq",        "channel",  "s8",     "u8",
    "s8sym",   "on",          "off",     "static",      "dynamic",  "int8",   "int4",
    "uniform", "ternary",     "pow2",    "float",       "avx2",     "native", "/(/",
    "/.*/",    "op:Conv",     "skip",    "weight-bits", "range",    "-1:1",   "1",
    "f32",     "2,3",         "1,1,4,4", "%s%n",        "features", "target", "vnni",
    "scheme",  "a\nb",        "x=x.npy"};

typedef struct input {
    const uint8_t *p, *end;
} input;

typedef struct objects {
    qn_model *models[SLOTS];
    qn_dataset *datasets[SLOTS];
    qn_session *sessions[SLOTS];
    const qn_model *session_of[SLOTS];
    qn_report *reports[SLOTS];
    qn_comparison *comparisons[SLOTS];
    qn_rt_model *rt_models[SLOTS];
    qn_rt_session *rt_sessions[SLOTS];
    const qn_rt_model *rt_session_of[SLOTS];
    float *buffers[8]; /* MOST_FLOATS each: room for every input and output there is */
    char paths[4][FOLDER_BYTES + 32];
    unsigned n_paths;
    int64_t dims[2][QN_MODEL_MAX_RANK];
    qn_override overrides[2];
} objects;

static void demand(bool holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "%s\n", what);
        abort();
    }
}

static unsigned next(input *in)
{
    return in->p < in->end ? *in->p++ : 0;
}

/* Of n, or n itself: none. */
static unsigned pick(input *in, unsigned n)
{
    return next(in) % (n + 1);
}

static uint64_t number(input *in)
{
    static const uint64_t NUMBERS[] = {0,         1,         2,          3,         4,
                                       7,         8,         64,         127,       255,
                                       65536,     INT32_MAX, UINT32_MAX, INT64_MAX, UINT64_MAX / 2,
                                       UINT64_MAX};
    return NUMBERS[next(in) % (sizeof(NUMBERS) / sizeof(NUMBERS[0]))];
}

/* Few of something that costs time. */
static uint64_t small(input *in)
{
    return next(in) % 5;
}

static const char *path(objects *o, input *in)
{
    const unsigned n = sizeof(FILES) / sizeof(FILES[0]);
    const unsigned which = next(in) % (n + 4);
    char *const out = o->paths[o->n_paths++ % 4];
    switch (which < n ? 0 : which - n + 1) {
    case 0:
        snprintf(out, sizeof(o->paths[0]), "%s/%s", folder, FILES[which]);
        return out;
    case 1:
        return NULL;
    case 2:
        return "";
    default:
        return folder;
    }
}

static const char *word(input *in)
{
    const unsigned n = sizeof(WORDS) / sizeof(WORDS[0]);
    const unsigned which = next(in) % (2 * n);
    return which < n ? WORDS[which] : NULL; /* mostly what NULL means */
}

/* Whether a call succeeded. */
static bool check(qn_status status, const qn_error *error)
{
    demand(status != QN_INTERNAL, error->message);
    if (status != QN_OK) {
        demand(error->status == status && error->message[0] != '\0', "the status");
        demand(strchr(error->message, '\n') == NULL, error->message);
    }
    return status == QN_OK;
}

/* What it gave back. */
static bool gave(bool ok, const void *object)
{
    demand(ok == (object != NULL), "an object with an error, or none without one");
    return ok;
}

static const int64_t (*input_dims(objects *o, input *in))[QN_MODEL_MAX_RANK]
{
    if (next(in) % 4 != 0)
        return NULL;
    for (int i = 0; i < 2; i++)
        for (int d = 0; d < QN_MODEL_MAX_RANK; d++)
            o->dims[i][d] = next(in) % 8 == 0 ? (int64_t)number(in) : (int64_t)small(in);
    return (const int64_t(*)[QN_MODEL_MAX_RANK])o->dims;
}

static const float *const *inputs_of(objects *o, input *in)
{
    return next(in) % 8 == 0 ? NULL : (const float *const *)o->buffers;
}

/* --- options ----------------------------------------------------------------------------------*/
static void quantize_options(objects *o, input *in, qn_quantize_options *q)
{
    qn_quantize_options_init(q);
    q->features = "minmax"; /* searches for ranges take the time of many calls */
    const char **const words[] = {&q->target,          &q->features,    &q->weights,
                                  &q->granularity,     &q->activations, &q->calibrate_with,
                                  &q->bias_correction, &q->equalize,    &q->x86,
                                  &q->weight_levels,   &q->scheme};
    for (unsigned n = next(in) % 4; n > 0; n--)
        *words[next(in) % (sizeof(words) / sizeof(words[0]))] = word(in);
    switch (next(in) % 12) {
    case 0:
        q->recipe_file = path(o, in);
        break;
    case 1:
        q->stats_file = path(o, in);
        break;
    case 2:
        q->ranges_file = path(o, in);
        break;
    case 3:
        q->weight_bits = (uint32_t)number(in);
        q->weight_clamp = (uint32_t)number(in);
        break;
    case 4:
        q->feature_clamp = (uint32_t)number(in);
        q->weight_block = (uint32_t)number(in);
        break;
    case 5:
        q->batch = next(in) % 2 != 0 ? (int64_t)small(in) : (int64_t)number(in);
        break;
    case 6:
        for (int i = 0; i < 2; i++)
            o->overrides[i] = (qn_override){word(in), word(in), word(in)};
        q->overrides = o->overrides;
        q->n_overrides = next(in) % 3;
        break;
    case 7:
        q->strict = true;
        q->input_dims = input_dims(o, in);
        break;
    default:
        break;
    }
}

static void dataset_options(objects *o, input *in, qn_dataset_options *d)
{
    qn_dataset_options_init(d);
    const unsigned kind = next(in);
    d->data_file = kind % 2 == 0 ? path(o, in) : NULL;
    d->list_file = kind % 8 == 1 ? path(o, in) : NULL;
    d->images_dir = kind % 8 == 3 ? path(o, in) : NULL;
    d->sequences_dir = kind % 8 == 5 ? path(o, in) : NULL;
    d->labels_file = next(in) % 4 == 0 ? path(o, in) : NULL;
    d->exclude_file = next(in) % 16 == 0 ? path(o, in) : NULL;
    if (next(in) % 8 == 0) {
        d->raw_type = word(in);
        d->raw_shape = word(in);
    }
    if (next(in) % 8 == 0) {
        d->count = number(in);
        d->first = number(in);
        d->use_seed = true;
        d->seed = number(in);
    }
    if (next(in) % 8 == 0) {
        qn_preprocess *const p = &d->preprocess;
        p->channels = (qn_channels)(next(in) % 8);
        p->filter = (qn_filter)(next(in) % 8);
        p->n_mean = next(in) % 8;
        p->n_normal = next(in) % 8;
        p->resize_shorter = (uint32_t)number(in);
        p->crop_width = (uint32_t)number(in);
        p->letterbox_height = (uint32_t)number(in);
        p->centre_width = (double)number(in) / 100 - 1;
    }
    d->skip_bad = next(in) % 2 != 0;
    d->input_dims = input_dims(o, in);
}

/* --- calls ------------------------------------------------------------------------------------*/
static void drop_model(objects *o, unsigned slot)
{
    for (unsigned i = 0; i < SLOTS; i++) {
        if (o->session_of[i] != o->models[slot])
            continue;
        qn_session_destroy(o->sessions[i]);
        o->sessions[i] = NULL;
        o->session_of[i] = NULL;
    }
    qn_model_destroy(o->models[slot]);
    o->models[slot] = NULL;
}

static void drop_rt_model(objects *o, unsigned slot)
{
    for (unsigned i = 0; i < SLOTS; i++) {
        if (o->rt_session_of[i] != o->rt_models[slot])
            continue;
        qn_rt_session_destroy(o->rt_sessions[i]);
        o->rt_sessions[i] = NULL;
        o->rt_session_of[i] = NULL;
    }
    qn_rt_model_destroy(o->rt_models[slot]);
    o->rt_models[slot] = NULL;
}

#define OBJECT(array) (slot = pick(in, SLOTS), slot < SLOTS ? o->array[slot] : NULL)

static void call_model(objects *o, input *in)
{
    qn_error error = {0};
    qn_model *made = NULL;
    qn_value_info info;
    char *text = NULL;
    uint64_t bytes = 0;
    unsigned slot;
    const qn_context *const some = next(in) % 16 == 0 ? NULL : ctx;
    const unsigned to = next(in) % SLOTS;
    switch (next(in) % 7) {
    case 0:
    case 1: {
        const char *const file = path(o, in);
        const qn_status status = next(in) % 4 == 0
                                     ? qn_model_load_partial(some, file, &made, &error)
                                     : qn_model_load(some, file, &made, &error);
        const bool ok = check(status, &error);
        if (gave(ok, made)) {
            drop_model(o, to);
            o->models[to] = made;
        }
        break;
    }
    case 2: {
        const qn_model *const model = OBJECT(models);
        const char *const file = path(o, in);
        (void)check(qn_model_save(model, file, (qn_save_format)(next(in) % 3), &bytes, &error),
                    &error);
        break;
    }
    case 3: {
        const qn_model *const model = OBJECT(models);
        qn_compact_options c;
        qn_compact_options_init(&c);
        c.input_dims = input_dims(o, in);
        c.batch = next(in) % 4 == 0 ? (int64_t)number(in) : (int64_t)small(in);
        c.packed = word(in);
        c.strip_names = next(in) % 2 != 0;
        (void)check(qn_model_save_compact(model, path(o, in), &c, NULL, &error), &error);
        break;
    }
    case 4: {
        const qn_model *const model = OBJECT(models);
        const bool ok = check(qn_model_describe(model, next(in) % 2 != 0, &text, &error), &error);
        if (gave(ok, text))
            qn_text_destroy(ctx, text);
        (void)check(qn_model_verify_checksum(some, path(o, in), &error), &error);
        break;
    }
    case 5: {
        const qn_model *const model = OBJECT(models);
        const uint64_t index = number(in);
        demand(qn_model_input(model, index, &info) == (index < qn_model_n_inputs(model)), "index");
        demand(qn_model_output(model, index, &info) == (index < qn_model_n_outputs(model)),
               "index");
        demand((qn_model_path(model) != NULL) == (model != NULL), "a path");
        break;
    }
    default:
        drop_model(o, to);
    }
}

static void call_session(objects *o, input *in)
{
    qn_error error = {0};
    qn_session *made = NULL;
    unsigned slot;
    const unsigned to = next(in) % SLOTS;
    switch (next(in) % 4) {
    case 0: {
        const qn_model *const model = OBJECT(models);
        qn_session_options s;
        qn_session_options_init(&s);
        s.batch = next(in) % 4 == 0 ? (int64_t)number(in) : 1 + (int64_t)small(in);
        s.simplify = next(in) % 4 != 0;
        s.saturate16 = next(in) % 2 != 0;
        s.input_dims = input_dims(o, in);
        const bool ok = check(qn_session_create(model, &s, &made, &error), &error);
        if (gave(ok, made)) {
            qn_session_destroy(o->sessions[to]);
            o->sessions[to] = made;
            o->session_of[to] = model;
        }
        break;
    }
    case 1: {
        qn_session *const session = OBJECT(sessions);
        (void)check(qn_session_run(session, inputs_of(o, in), &error), &error);
        break;
    }
    case 2: {
        qn_session *const session = OBJECT(sessions);
        const uint64_t index = number(in);
        size_t count = 0;
        uint32_t rank = 0;
        int64_t dims[QN_MODEL_MAX_RANK];
        qn_profile_entry entry;
        qn_memory_use use;
        const float *const values = qn_session_output(session, index, &count);
        demand(values != NULL || count == 0, "values");
        (void)qn_session_dims(session, next(in) % 2 != 0, index, &rank, dims);
        (void)qn_session_profile(session, index, &entry);
        qn_session_set_profiling(session, next(in) % 2 != 0);
        qn_session_memory(session, &use);
        (void)qn_session_arena_bytes(session);
        break;
    }
    default:
        qn_session_destroy(o->sessions[to]);
        o->sessions[to] = NULL;
        o->session_of[to] = NULL;
    }
}

static void call_dataset(objects *o, input *in)
{
    qn_error error = {0};
    qn_dataset *made = NULL;
    unsigned slot;
    const unsigned to = next(in) % SLOTS;
    switch (next(in) % 4) {
    case 0:
    case 1: {
        const qn_model *const model = OBJECT(models);
        qn_dataset_options d;
        dataset_options(o, in, &d);
        const bool ok = check(qn_dataset_create(ctx, model, &d, &made, &error), &error);
        if (gave(ok, made)) {
            qn_dataset_destroy(o->datasets[to]);
            o->datasets[to] = made;
        }
        break;
    }
    case 2: {
        const qn_dataset *const dataset = OBJECT(datasets);
        const uint64_t index = number(in);
        uint32_t rank = 0;
        int64_t dims[QN_MODEL_MAX_RANK];
        demand((qn_dataset_name(dataset, index) != NULL) == (index < qn_dataset_count(dataset)),
               "index");
        (void)qn_dataset_label(dataset, index);
        (void)qn_dataset_dims(dataset, index, &rank, dims);
        (void)qn_dataset_n_skipped(dataset);
        (void)check(qn_dataset_save_list(dataset, path(o, in), &error), &error);
        if (qn_dataset_sample_count(dataset, 0) <= MOST_FLOATS &&
            qn_dataset_sample_count(dataset, 1) <= MOST_FLOATS)
            (void)check(qn_dataset_load(dataset, index, o->buffers, &error), &error);
        break;
    }
    default:
        qn_dataset_destroy(o->datasets[to]);
        o->datasets[to] = NULL;
    }
}

static void call_quantize(objects *o, input *in)
{
    qn_error error = {0};
    qn_model *made = NULL;
    qn_report *report = NULL;
    qn_quantize_options q;
    qn_report_node node;
    unsigned slot;
    const unsigned to = next(in) % SLOTS;
    const unsigned kind = next(in) % 4;
    const qn_model *const model = OBJECT(models);
    const qn_dataset *const dataset = OBJECT(datasets);
    quantize_options(o, in, &q);
    if (kind < 2) {
        const bool wants = next(in) % 4 != 0;
        const qn_status status =
            qn_quantize(model, dataset, &q, &made, wants ? &report : NULL, &error);
        demand((report != NULL) == (status == QN_OK && wants), "a report");
        const bool ok = check(status, &error);
        if (gave(ok, made)) {
            drop_model(o, to);
            o->models[to] = made;
            qn_report_destroy(o->reports[to]);
            o->reports[to] = report;
        }
    } else if (kind == 2) {
        qn_stats_options s;
        qn_stats_options_init(&s);
        s.part = next(in) % 4 == 0 ? number(in) : 1 + small(in);
        s.n_parts = next(in) % 4 == 0 ? number(in) : 1 + small(in);
        s.resume = next(in) % 4 == 0;
        (void)check(qn_stats_collect(model, dataset, &q, &s, path(o, in), &error), &error);
    } else {
        const qn_report *const some = OBJECT(reports);
        const uint64_t index = number(in);
        demand(qn_report_node_at(some, index, &node) == (index < qn_report_n_nodes(some)), "index");
        (void)qn_report_note(some, index);
        (void)qn_report_method(some, word(in));
        if (qn_report_recipe(some) != NULL)
            (void)check(qn_text_save(ctx, path(o, in), qn_report_recipe(some), &error), &error);
    }
}

static void call_others(objects *o, input *in)
{
    qn_error error = {0};
    qn_comparison *made = NULL;
    qn_compare_row row;
    qn_evaluation evaluation;
    char *text = NULL;
    unsigned slot;
    const unsigned to = next(in) % SLOTS;
    switch (next(in) % 6) {
    case 0: {
        const qn_model *const model = OBJECT(models), *const other = OBJECT(models);
        const qn_dataset *const dataset = OBJECT(datasets);
        const bool ok = check(qn_compare(model, other, dataset, &made, &error), &error);
        if (gave(ok, made)) {
            qn_comparison_destroy(o->comparisons[to]);
            o->comparisons[to] = made;
        }
        break;
    }
    case 1: {
        const qn_model *const model = OBJECT(models);
        const qn_dataset *const dataset = OBJECT(datasets);
        int64_t predictions[64];
        if (qn_dataset_count(dataset) <= 64)
            (void)check(qn_evaluate(model, dataset, NULL, NULL, predictions, &evaluation, &error),
                        &error);
        break;
    }
    case 2: {
        const char *paths[2] = {path(o, in), path(o, in)};
        (void)check(qn_stats_merge(ctx, paths, next(in) % 3, path(o, in), &error), &error);
        break;
    }
    case 3: {
        const bool ok =
            check(qn_stats_describe(ctx, path(o, in), next(in) % 2 != 0, &text, &error), &error);
        if (gave(ok, text))
            qn_text_destroy(ctx, text);
        break;
    }
    case 4: {
        const uint64_t index = number(in);
        (void)qn_comparison_row(OBJECT(comparisons), index, &row);
        demand((qn_target_name(index) != NULL) == (qn_target_summary(index) != NULL), "a target");
        (void)qn_feature_method_name(index);
        (void)qn_weight_method_summary(index);
        (void)qn_quantize_default(word(in));
        demand(qn_status_name((qn_status)next(in)) != NULL, "a name");
        break;
    }
    default:
        qn_comparison_destroy(o->comparisons[to]);
        o->comparisons[to] = NULL;
    }
}

static void call_runtime(objects *o, input *in)
{
    qn_error error = {0};
    qn_rt_model *model = NULL;
    qn_rt_session *session = NULL;
    qn_rt_value value;
    unsigned slot;
    const unsigned to = next(in) % SLOTS;
    switch (next(in) % 6) {
    case 0: {
        const bool ok = check(qn_rt_model_load(path(o, in), NULL, &model, &error), &error);
        if (gave(ok, model)) {
            drop_rt_model(o, to);
            o->rt_models[to] = model;
        }
        break;
    }
    case 1: {
        const qn_rt_model *const some = OBJECT(rt_models);
        qn_rt_session_options s;
        qn_rt_session_options_init(&s);
        s.n_workers = next(in) % 4 == 0 ? (uint32_t)number(in) : 1;
        const bool ok = check(qn_rt_session_create(some, &s, &session, &error), &error);
        if (gave(ok, session)) {
            qn_rt_session_destroy(o->rt_sessions[to]);
            o->rt_sessions[to] = session;
            o->rt_session_of[to] = some;
        }
        break;
    }
    case 2: {
        qn_rt_session *const some = OBJECT(rt_sessions);
        const uint64_t index = number(in);
        const qn_rt_model *const of = slot < SLOTS ? o->rt_session_of[slot] : NULL;
        const bool known = qn_rt_input(of, index, &value) && value.count <= MOST_FLOATS;
        const size_t count = known && next(in) % 4 != 0 ? value.count : MOST_FLOATS + 1;
        (void)check(qn_rt_set_input(some, index, o->buffers[0], count, &error), &error);
        (void)check(qn_rt_set_input_raw(some, index, o->buffers[0], small(in), &error), &error);
        (void)qn_rt_input_buffer(some, index);
        break;
    }
    case 3: {
        qn_rt_session *const some = OBJECT(rt_sessions);
        const uint64_t index = number(in);
        const qn_rt_model *const of = slot < SLOTS ? o->rt_session_of[slot] : NULL;
        (void)check(qn_rt_run(some, &error), &error);
        const bool known = qn_rt_output(of, index, &value) && value.count <= MOST_FLOATS;
        (void)check(qn_rt_get_output(some, index, o->buffers[0],
                                     known ? value.count : MOST_FLOATS + 1, &error),
                    &error);
        (void)qn_rt_output_buffer(some, index);
        (void)check(qn_rt_get_output_raw(some, index, o->buffers[0], small(in), &error), &error);
        break;
    }
    case 4:
        demand(qn_rt_n_inputs(OBJECT(rt_models)) <= 8, "inputs");
        demand(qn_rt_n_outputs(OBJECT(rt_models)) <= 8, "outputs");
        (void)qn_rt_model_arena_bytes(OBJECT(rt_models));
        (void)qn_rt_model_packed_bytes(OBJECT(rt_models));
        break;
    default:
        drop_rt_model(o, to);
    }
}

/* --- the place --------------------------------------------------------------------------------*/
static const char *file_of(char out[FOLDER_BYTES + 32], size_t which)
{
    snprintf(out, FOLDER_BYTES + 32, "%s/%s", folder, FILES[which]);
    return out;
}

static int open_noted(void *ignored, const char *name, int flags, int mode)
{
    (void)ignored;
    wrote = wrote || (flags & (O_CREAT | O_WRONLY | O_RDWR)) != 0;
    return real_io.open(real_io.ctx, name, flags, mode);
}

static int sync_nothing(void *ignored, int fd)
{
    (void)ignored, (void)fd;
    return 0;
}

static void put_file(size_t which, const void *bytes, size_t size)
{
    char name[FOLDER_BYTES + 32];
    demand(qn__file_write_all(ctx, file_of(name, which), bytes, size, NULL) == QN_OK, "no file");
}

/* Samples for the first input of f.onnx. */
static void put_samples(const qn_model *model)
{
    qn_value_info info;
    char header[256] = "\x93NUMPY\1\0\x76\0{'descr': '<f4', 'fortran_order': False, 'shape': (3",
         *end;
    size_t count = SAMPLES;
    demand(qn_model_input(model, 0, &info), "no input");
    size_t at = 10 + strlen(header + 10);
    for (uint32_t d = 1; d < info.rank; d++) {
        const int64_t n = info.dims[d] > 0 ? info.dims[d] : 1;
        at += (size_t)snprintf(header + at, sizeof(header) - at, ", %d", (int)n);
        count *= (size_t)n;
    }
    at += (size_t)snprintf(header + at, sizeof(header) - at, "), }");
    demand(at < 128 && count < MOST_FLOATS, "too large");
    end = header + at;
    memset(end, ' ', 128 - at);
    header[127] = '\n';
    uint8_t *const file = malloc(128 + count * sizeof(float));
    demand(file != NULL, "no memory");
    memcpy(file, header, 128);
    for (size_t i = 0; i < count; i++) {
        const float value = (float)((int)(i * 37 % 101) - 50) / 25;
        memcpy(file + 128 + i * sizeof(float), &value, sizeof(float));
    }
    put_file(3, file, 128 + count * sizeof(float));
    free(file);
}

static void put_models(void)
{
    for (int which = 0; which < 3; which++) {
        char name[FOLDER_BYTES + 32];
        qn_graph *const graph = qnm_seed_graph(ctx, which);
        demand(graph != NULL, "no graph");
        const qn_status status =
            qn__format_write(graph, file_of(name, (size_t)which), NULL, NULL, NULL);
        demand(status == QN_OK || which == 1, "no model");
        qn__graph_destroy(graph);
    }
    char name[FOLDER_BYTES + 32];
    qn_model *model = NULL;
    demand(qn_model_load(ctx, file_of(name, 0), &model, NULL) == QN_OK, "no model");
    put_samples(model);
    qn_model_destroy(model);
    put_file(4, "0,1\n1,0\n2,1\n", 12);
    put_file(5, "row 2\nrow 0\n", 12);
    put_file(6, "{\"recipe\": 1}", 13);
}

static void keep_files(void)
{
    char name[FOLDER_BYTES + 32];
    for (size_t i = 0; i < THERE; i++) {
        FILE *const f = fopen(file_of(name, i), "rb");
        there_bytes[i] = f != NULL ? fread(there[i], 1, FILE_BYTES, f) : 0;
        demand(there_bytes[i] < FILE_BYTES, "a large file");
        if (f != NULL)
            fclose(f);
    }
}

static void restore_files(void)
{
    char name[FOLDER_BYTES + 32];
    for (size_t i = 0; i < THERE; i++) {
        unlink(file_of(name, i)); /* a folder or a name of another file */
        if (there_bytes[i] == 0)
            continue;
        FILE *const f = fopen(name, "wb");
        demand(f != NULL && fwrite(there[i], 1, there_bytes[i], f) == there_bytes[i] &&
                   fclose(f) == 0,
               "no file");
    }
}

static void remove_files(size_t from)
{
    char name[FOLDER_BYTES + 32];
    for (size_t i = from; i < sizeof(FILES) / sizeof(FILES[0]); i++)
        unlink(file_of(name, i));
}

static void leave(void)
{
    qn_context_destroy(ctx);
    remove_files(0);
    rmdir(folder);
}

static void enter(void)
{
    qn_context_options options;
    qn_limits limits;
    const char *const at = getenv("TMPDIR");
    const int n =
        snprintf(folder, sizeof(folder), "%s/quench_fuzz_api_XXXXXX", at != NULL ? at : "/tmp");
    demand(n > 0 && n < FOLDER_BYTES && mkdtemp(folder) != NULL && atexit(leave) == 0, "no folder");
    qn_io_init(&real_io);
    qn_io io = real_io;
    io.open = open_noted;
    io.fsync = sync_nothing;
    qn_limits_init(&limits);
    limits.tensor_bytes = 1 << 20;
    limits.arena_bytes = 1 << 22;
    limits.image_pixels = 1 << 16;
    qn_context_options_init(&options);
    options.io = &io;
    options.limits = &limits;
    options.n_threads = 1;
    demand(qn_context_create(&options, &ctx, NULL) == QN_OK, "no context");
    put_models();
    keep_files();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const CALLS[])(objects *, input *) = {call_model,    call_session, call_dataset,
                                                        call_quantize, call_others,  call_runtime};
    if (ctx == NULL)
        enter();
    objects o = {.n_paths = 0};
    input in = {data, data + size};
    for (size_t i = 0; i < sizeof(o.buffers) / sizeof(o.buffers[0]); i++) {
        o.buffers[i] = calloc(MOST_FLOATS, sizeof(float));
        demand(o.buffers[i] != NULL, "no memory");
    }
    for (unsigned calls = 0; in.p < in.end && calls < MOST_CALLS; calls++)
        CALLS[next(&in) % (sizeof(CALLS) / sizeof(CALLS[0]))](&o, &in);
    for (unsigned i = 0; i < SLOTS; i++) {
        drop_model(&o, i);
        drop_rt_model(&o, i);
        qn_dataset_destroy(o.datasets[i]);
        qn_report_destroy(o.reports[i]);
        qn_comparison_destroy(o.comparisons[i]);
    }
    for (size_t i = 0; i < sizeof(o.buffers) / sizeof(o.buffers[0]); i++)
        free(o.buffers[i]);
    if (wrote) { /* one input does not depend on another */
        remove_files(THERE);
        restore_files();
        wrote = false;
    }
    return 0;
}
