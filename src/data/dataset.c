#include "data/dataset_internal.h"

#include <string.h>

#include "core/checked.h"
#include "core/strbuf.h"
#include "core/threads.h"
#include "data/paths.h"

void qn_preprocess_init(qn_preprocess *preprocess)
{
    *preprocess = (qn_preprocess){.struct_size = sizeof(*preprocess)};
}

void qn_dataset_options_init(qn_dataset_options *options)
{
    *options = (qn_dataset_options){.struct_size = sizeof(*options)};
    qn_preprocess_init(&options->preprocess);
}

/* --- creation ----------------------------------------------------------------------------------*/

static bool has_preprocessing(const qn_preprocess *p)
{
    return p->n_mean != 0 || p->n_normal != 0 || p->resize_shorter != 0 || p->resize_width != 0 ||
           p->resize_height != 0 || p->crop_width != 0 || p->crop_height != 0 ||
           p->letterbox_width != 0 || p->letterbox_height != 0 || p->centre_width != 0 ||
           p->centre_height != 0;
}

static qn_status check_options(const qn_dataset_options *o, qn_error *error)
{
    const int sources = (o->data_file != NULL) + (o->n_files > 0) + (o->sequences_dir != NULL) +
                        (o->images_dir != NULL || (o->list_file != NULL && o->data_file == NULL));
    QN_FAIL_IF(
        sources > 1, error, QN_INVALID_ARGUMENT,
        "samples come from pictures (--images, --list), from --data, from --sequences or from "
        "named files: give one of them");
    QN_FAIL_IF(sources == 0 && o->labels_file == NULL, error, QN_INVALID_ARGUMENT,
               "no samples: give --images, --list, --data, --sequences or --labels");
    QN_FAIL_IF(o->n_files > 0 && o->files == NULL, error, QN_INVALID_ARGUMENT, "files is NULL");
    QN_FAIL_IF(o->data_file == NULL && o->list_file == NULL &&
                   (o->raw_type != NULL || o->raw_shape != NULL),
               error, QN_INVALID_ARGUMENT, "--raw-type and --raw-shape need --data or --list");
    QN_FAIL_IF(o->raw_type == NULL && o->raw_shape != NULL, error, QN_INVALID_ARGUMENT,
               "--raw-shape needs --raw-type");
    QN_FAIL_IF(o->first != 0 && o->count != 0, error, QN_INVALID_ARGUMENT,
               "--first and --count exclude each other");
    QN_FAIL_IF(o->use_seed && o->count == 0, error, QN_INVALID_ARGUMENT, "--seed needs --count");
    QN_FAIL_IF(o->sequences_dir != NULL &&
                   (o->labels_file != NULL || o->exclude_file != NULL || o->skip_bad),
               error, QN_INVALID_ARGUMENT,
               "--labels, --exclude and --skip-bad do not go with --sequences");
    QN_FAIL_IF(
        (o->data_file != NULL || o->sequences_dir != NULL) && has_preprocessing(&o->preprocess),
        error, QN_INVALID_ARGUMENT,
        "--mean, --normal, --resize, --crop and --letterbox are for pictures, not for --data "
        "and --sequences");
    return QN_OK;
}

static bool copy_string(qn_arena *arena, const char **text)
{
    if (*text != NULL)
        *text = qn__arena_strdup(arena, *text);
    return *text != NULL;
}

static qn_status copy_options(qn_dataset *dataset, const qn_dataset_options *options,
                              qn_error *error)
{
    qn_dataset_options *o = &dataset->options;
    *o = *options;
    o->input_dims = NULL; /* in the specs already */
    const char **const strings[] = {&o->images_dir,  &o->data_file,    &o->list_file,
                                    &o->raw_type,    &o->raw_shape,    &o->exclude_file,
                                    &o->labels_file, &o->sequences_dir};
    for (size_t i = 0; i < sizeof(strings) / sizeof(strings[0]); i++)
        if (*strings[i] != NULL && !copy_string(&dataset->arena, strings[i]))
            return QN_NOMEM(error);
    if (o->n_files == 0) {
        o->files = NULL;
        return QN_OK;
    }
    const char **files = qn__arena_calloc(&dataset->arena, o->n_files, sizeof(*files));
    if (files == NULL)
        return QN_NOMEM(error);
    for (size_t i = 0; i < o->n_files; i++) {
        QN_FAIL_IF(options->files[i] == NULL, error, QN_INVALID_ARGUMENT, "files[%zu] is NULL", i);
        files[i] = options->files[i];
        if (!copy_string(&dataset->arena, &files[i]))
            return QN_NOMEM(error);
    }
    o->files = files;
    return QN_OK;
}

static qn_status copy_inputs(qn_dataset *dataset, const qn_input_spec *specs, size_t n_specs,
                             qn_error *error)
{
    QN_FAIL_IF(n_specs == 0, error, QN_INVALID_ARGUMENT, "the model has no inputs");
    dataset->inputs = qn__calloc(dataset->ctx, n_specs, sizeof(*dataset->inputs));
    if (dataset->inputs == NULL)
        return QN_NOMEM(error);
    dataset->n_inputs = n_specs;
    for (size_t i = 0; i < n_specs; i++) {
        QN_FAIL_IF(specs[i].rank > QN_MODEL_MAX_RANK, error, QN_LIMIT,
                   "input \"%s\" has rank %u, at most %d", specs[i].name, specs[i].rank,
                   QN_MODEL_MAX_RANK);
        dataset->inputs[i].name = specs[i].name;
        if (!copy_string(&dataset->arena, &dataset->inputs[i].name))
            return QN_NOMEM(error);
    }
    return QN_OK;
}

static qn_status plan_pictures(qn_dataset *dataset, const qn_input_spec *specs, qn_error *error)
{
    const qn_preprocess *p = &dataset->options.preprocess;
    for (size_t i = 1; i < dataset->n_inputs; i++) {
        qn_dataset_input *input = &dataset->inputs[i];
        QN_FAIL_IF(!specs[i].filled, error, QN_INVALID_ARGUMENT,
                   "the model has %zu inputs: pictures fit models of one input (use --data)",
                   dataset->n_inputs);
        input->fill = specs[i].fill;
        input->rank = specs[i].rank;
        memcpy(input->dims, specs[i].dims, sizeof(input->dims));
        QN_FAIL_IF(!qn_shape_count(&input->count, input->dims, input->rank), error,
                   QN_INVALID_ARGUMENT, "input \"%s\" has no fixed shape", input->name);
    }
    QN_TRY(qn__picture_plan_init(dataset->ctx, &dataset->plan, &specs[0], p, error));
    const qn_picture_plan *plan = &dataset->plan;
    if (!has_preprocessing(p))
        qn__log(dataset->ctx, QN_LOG_WARNING,
                "no preprocessing given: pictures are resized to %u x %u, values stay 0..255",
                plan->out_width, plan->out_height);
    qn_dataset_input *input = &dataset->inputs[0];
    const int64_t c = plan->n_channels, h = plan->out_height, w = plan->out_width;
    const int64_t nchw[4] = {1, c, h, w}, nhwc[4] = {1, h, w, c};
    input->rank = 4;
    memcpy(input->dims, plan->channels_last ? nhwc : nchw, sizeof(nchw));
    QN_FAIL_IF(!qn_shape_count(&input->count, input->dims, 4), error, QN_LIMIT,
               "input \"%s\" is too large", input->name);
    return QN_OK;
}

/* --- samples that cannot be decoded ------------------------------------------------------------*/

typedef struct qn_sample_check {
    const qn_dataset *dataset;
    qn_status *statuses; /* by sample */
} qn_sample_check;

static qn_status try_sample(const qn_dataset *dataset, size_t index, qn_error *error)
{
    float *floats = qn__calloc(dataset->ctx, dataset->inputs[0].count, sizeof(*floats));
    if (floats == NULL)
        return QN_NOMEM(error);
    const qn_status status =
        qn__picture_load(dataset->ctx, &dataset->plan, dataset->samples[index].path, floats, error);
    qn__free(dataset->ctx, floats);
    return status;
}

static void check_sample(void *arg, size_t index)
{
    const qn_sample_check *check = arg;
    check->statuses[index] = try_sample(check->dataset, index, NULL);
}

static qn_status drop_bad_samples(qn_dataset *dataset, qn_error *error)
{
    const size_t n = dataset->n_samples;
    qn_status status = QN_OK;
    qn_error reason;
    const qn_sample_check check = {dataset, qn__calloc(dataset->ctx, n, sizeof(*check.statuses))};
    if (check.statuses == NULL)
        return QN_NOMEM(error);
    qn__parallel(dataset->ctx->pool, check_sample, (void *)&check, n);
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        if (check.statuses[i] == QN_NO_MEMORY) {
            status = QN_NOMEM(error);
            goto done;
        }
        if (check.statuses[i] != QN_OK && try_sample(dataset, i, &reason) != QN_OK) {
            qn__log(dataset->ctx, QN_LOG_WARNING, "skipped: %s", reason.message);
            dataset->n_skipped++;
        } else {
            dataset->samples[kept++] = dataset->samples[i];
        }
    }
    dataset->n_samples = kept;
    if (kept == 0)
        status =
            qn__error_set(error, QN_CORRUPT, "none of the %zu pictures can be used; the last: %s",
                          n, reason.message);
done:
    qn__free(dataset->ctx, check.statuses);
    return status;
}

static qn_status keep_pictures(qn_dataset *dataset, qn_error *error)
{
    const size_t bytes = dataset->inputs[0].count, room = bytes > 0 ? QN_KEPT_BYTES / bytes : 0;
    qn_kept_pictures *kept = qn__calloc(dataset->ctx, 1, sizeof(*kept));
    dataset->kept = kept;
    if (kept == NULL)
        return QN_NOMEM(error);
    kept->n_slots = room < dataset->n_samples ? room : dataset->n_samples;
    kept->pixels = qn__calloc(dataset->ctx, dataset->n_samples, sizeof(*kept->pixels));
    kept->slots = qn__alloc(dataset->ctx, kept->n_slots * bytes);
    return kept->pixels != NULL && kept->slots != NULL ? QN_OK : QN_NOMEM(error);
}

static void free_kept(qn_dataset *dataset)
{
    if (dataset->kept == NULL)
        return;
    qn__free(dataset->ctx, dataset->kept->slots);
    qn__free(dataset->ctx, (void *)dataset->kept->pixels);
    qn__free(dataset->ctx, dataset->kept);
}

static qn_status dataset_fill(qn_dataset *dataset, const qn_input_spec *inputs, size_t n_inputs,
                              const qn_dataset_options *options, qn_error *error)
{
    QN_TRY(check_options(options, error));
    QN_TRY(copy_options(dataset, options, error));
    QN_TRY(copy_inputs(dataset, inputs, n_inputs, error));
    dataset->is_data = options->data_file != NULL;
    dataset->is_sequence = options->sequences_dir != NULL;
    QN_TRY(qn__tensor_list_detect(dataset, &dataset->is_list, error));
    QN_FAIL_IF(dataset->is_list && (options->skip_bad || has_preprocessing(&options->preprocess)),
               error, QN_INVALID_ARGUMENT,
               "%s: a list of arrays: --skip-bad, --mean, --normal, --resize, --crop and "
               "--letterbox are for pictures",
               options->list_file);
    const bool pictures = !dataset->is_data && !dataset->is_sequence && !dataset->is_list;
    size_t n_rows = 0;
    if (dataset->is_data)
        QN_TRY(qn__dataset_open_data(dataset, inputs, &n_rows, error));
    else if (pictures)
        QN_TRY(plan_pictures(dataset, inputs, error));
    QN_TRY(qn__dataset_gather(dataset, n_rows, error));
    if (dataset->is_sequence)
        QN_TRY(qn__sequences_open(dataset, inputs, error));
    if (dataset->is_list)
        QN_TRY(qn__tensor_list_open(dataset, inputs, error));
    if (!dataset->is_data && options->skip_bad)
        QN_TRY(drop_bad_samples(dataset, error));
    return pictures ? keep_pictures(dataset, error) : QN_OK;
}

qn_status qn__dataset_create(const qn_context *ctx, const qn_input_spec *inputs, size_t n_inputs,
                             const qn_dataset_options *options, qn_dataset **out, qn_error *error)
{
    QN_FAIL_IF(options == NULL || out == NULL, error, QN_INVALID_ARGUMENT,
               "qn_dataset_create: NULL argument");
    qn_dataset *dataset = qn__calloc(ctx, 1, sizeof(*dataset));
    if (dataset == NULL)
        return QN_NOMEM(error);
    dataset->ctx = ctx;
    qn__arena_init(&dataset->arena, ctx);
    const qn_status status = dataset_fill(dataset, inputs, n_inputs, options, error);
    if (status != QN_OK) {
        qn_dataset_destroy(dataset);
        return status;
    }
    *out = dataset;
    return QN_OK;
}

void qn_dataset_destroy(qn_dataset *dataset)
{
    if (dataset == NULL)
        return;
    const qn_context *ctx = dataset->ctx;
    for (size_t i = 0; i < dataset->n_inputs; i++)
        qn__tensor_file_close(&dataset->inputs[i].file);
    free_kept(dataset);
    qn__free(ctx, dataset->inputs);
    qn__free(ctx, dataset->samples);
    qn__arena_free(&dataset->arena);
    qn__free(ctx, dataset);
}

/* --- access ------------------------------------------------------------------------------------*/

size_t qn_dataset_count(const qn_dataset *dataset)
{
    return dataset != NULL ? dataset->n_samples : 0;
}

size_t qn_dataset_n_skipped(const qn_dataset *dataset)
{
    return dataset != NULL ? dataset->n_skipped : 0;
}

const qn_dataset_options *qn__dataset_options(const qn_dataset *dataset)
{
    return &dataset->options;
}

const char *qn_dataset_name(const qn_dataset *dataset, size_t index)
{
    return dataset != NULL && index < dataset->n_samples ? dataset->samples[index].name : NULL;
}

int64_t qn_dataset_label(const qn_dataset *dataset, size_t index)
{
    return dataset != NULL && index < dataset->n_samples ? dataset->samples[index].label : -1;
}

bool qn_dataset_dims(const qn_dataset *dataset, size_t input, uint32_t *rank,
                     int64_t dims[QN_MODEL_MAX_RANK])
{
    if (dataset == NULL || rank == NULL || dims == NULL || input >= dataset->n_inputs)
        return false;
    *rank = dataset->inputs[input].rank;
    memcpy(dims, dataset->inputs[input].dims, *rank * sizeof(*dims));
    return true;
}

size_t qn_dataset_sample_count(const qn_dataset *dataset, size_t input)
{
    if (dataset == NULL || input >= dataset->n_inputs)
        return 0;
    const qn_dataset_input *i = &dataset->inputs[input];
    return i->most > i->count ? i->most : i->count;
}

static void keep_picture(const qn_dataset *dataset, size_t index, const uint8_t *pixels)
{
    qn_kept_pictures *kept = dataset->kept;
    const size_t bytes = dataset->inputs[0].count;
    if (kept->n_used >= kept->n_slots)
        return;
    const size_t slot = kept->n_used++;
    if (slot >= kept->n_slots) /* another thread took the last one */
        return;
    memcpy(kept->slots + slot * bytes, pixels, bytes);
    kept->pixels[index] = kept->slots + slot * bytes;
}

static qn_status load_picture(const qn_dataset *dataset, size_t index, float *dst, qn_error *error)
{
    const uint8_t *kept = dataset->kept->pixels[index];
    qn_image image;
    if (kept != NULL) {
        qn__picture_values(&dataset->plan, kept, dst);
        return QN_OK;
    }
    QN_TRY(qn__picture_pixels(dataset->ctx, &dataset->plan, dataset->samples[index].path, &image,
                              error));
    qn__picture_values(&dataset->plan, image.pixels, dst);
    keep_picture(dataset, index, image.pixels);
    qn__image_free(&image);
    return QN_OK;
}

qn_status qn_dataset_load(const qn_dataset *dataset, size_t index, float *const *dst,
                          qn_error *error)
{
    QN_FAIL_IF(dataset == NULL || dst == NULL, error, QN_INVALID_ARGUMENT,
               "qn_dataset_load: NULL argument");
    QN_FAIL_IF(index >= dataset->n_samples, error, QN_INVALID_ARGUMENT, "sample %zu of %zu", index,
               dataset->n_samples);
    const qn_sample *sample = &dataset->samples[index];
    if (dataset->stored != NULL)
        return qn__stored_load(dataset, sample, dst, error);
    if (dataset->is_sequence)
        return qn__sequence_load(dataset, sample, dst, error);
    if (dataset->is_list)
        return qn__tensor_list_load(dataset, sample, dst, error);
    if (!dataset->is_data) {
        for (size_t i = 1; i < dataset->n_inputs; i++)
            for (size_t k = 0; k < dataset->inputs[i].count; k++)
                dst[i][k] = dataset->inputs[i].fill;
        return load_picture(dataset, index, dst[0], error);
    }
    for (size_t i = 0; i < dataset->n_inputs; i++) {
        const qn_dataset_input *input = &dataset->inputs[i];
        qn__tensor_file_read(&input->file, (size_t)sample->row * input->count, input->count,
                             dst[i]);
    }
    return QN_OK;
}

static uint64_t fnv1a(uint64_t hash, const uint8_t *bytes, size_t size_bytes)
{
    for (size_t i = 0; i < size_bytes; i++)
        hash = (hash ^ bytes[i]) * 0x100000001b3u;
    return hash;
}

qn_status qn__dataset_hash(const qn_dataset *dataset, size_t index, uint64_t *out, qn_error *error)
{
    QN_FAIL_IF(index >= dataset->n_samples, error, QN_INVALID_ARGUMENT, "sample %zu of %zu", index,
               dataset->n_samples);
    const qn_sample *sample = &dataset->samples[index];
    uint64_t hash = 0xcbf29ce484222325u;
    if (dataset->stored != NULL) {
        hash = dataset->stored->hash(dataset->stored->arg, (size_t)sample->row);
    } else if (dataset->is_data) {
        for (size_t i = 0; i < dataset->n_inputs; i++) {
            const qn_tensor_file *file = &dataset->inputs[i].file;
            const size_t bytes = dataset->inputs[i].count * file->element_bytes;
            hash = fnv1a(hash, file->data + (size_t)sample->row * bytes, bytes);
        }
    } else if (dataset->is_sequence) {
        QN_TRY(qn__sequence_hash(dataset, sample, fnv1a, &hash, error));
    } else {
        for (size_t i = 0; i < (sample->files != NULL ? dataset->n_inputs : 1); i++) {
            const char *path = sample->files != NULL ? sample->files[i] : sample->path;
            qn_file_view view;
            QN_TRY(qn__file_open(dataset->ctx, path, &view, error));
            hash = fnv1a(hash, view.data, view.size_bytes);
            qn__file_close(dataset->ctx, &view);
        }
    }
    *out = hash;
    return QN_OK;
}

/* A sample as a line of a list in folder dir. NULL: out of memory. */
static const char *line_of(const qn_dataset *dataset, qn_arena *arena, const char *dir,
                           const qn_sample *sample)
{
    if (dataset->is_data)
        return sample->name;
    const char *line = qn__path_relative(arena, dir, sample->path);
    for (size_t i = 1; line != NULL && sample->files != NULL && i < dataset->n_inputs; i++) {
        const char *next = qn__path_relative(arena, dir, sample->files[i]);
        line = next != NULL ? qn__arena_printf(arena, "%s,%s", line, next) : NULL;
    }
    return line;
}

qn_status qn_dataset_save_list(const qn_dataset *dataset, const char *path, qn_error *error)
{
    qn_status status = QN_OK;
    qn_arena arena;
    qn_strbuf text;
    QN_FAIL_IF(dataset == NULL || path == NULL, error, QN_INVALID_ARGUMENT,
               "qn_dataset_save_list: NULL argument");
    qn__arena_init(&arena, dataset->ctx);
    qn__strbuf_init(&text, dataset->ctx, SIZE_MAX / 2);
    const char *dir = qn__path_dir(&arena, path);
    for (size_t i = 0; dir != NULL && i < dataset->n_samples; i++) {
        const char *line = line_of(dataset, &arena, dir, &dataset->samples[i]);
        if (line == NULL || text.failed) {
            status = QN_NOMEM(error);
            goto done;
        }
        qn__strbuf_printf(&text, "%s\n", line);
    }
    if (dir == NULL || text.failed) {
        status = QN_NOMEM(error);
        goto done;
    }
    status = qn__file_write_all(dataset->ctx, path, text.data, text.length, error);
done:
    qn__strbuf_free(&text);
    qn__arena_free(&arena);
    return status;
}
