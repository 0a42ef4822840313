/* The calibration samples as MNN's tool chooses and prepares them: entries of the folder by name,
 * hidden ones left out, the first N; pictures with MNN's geometry, or sequences. */
#include <string.h>

#include "data/paths.h"
#include "mnntool/tool.h"

/* Axis of the channels, height and width of an input that takes pictures. */
typedef struct picture_axes {
    uint32_t channels, height, width;
} picture_axes;

static bool is_channels(int64_t dim)
{
    return dim == 1 || dim == 3 || dim == 4;
}

static picture_axes axes_of(const int64_t dims[4])
{
    if (!is_channels(dims[1]) && is_channels(dims[3]))
        return (picture_axes){3, 1, 2};
    return (picture_axes){1, 2, 3};
}

static const qn_mnn_input *configured(const qn_mnn_config *config, const char *name)
{
    for (size_t i = 0; i < config->n_inputs; i++)
        if (strcmp(config->inputs[i].name, name) == 0)
            return &config->inputs[i];
    return NULL;
}

static qn_status check_names(const qn_graph *graph, const qn_mnn_config *config, qn_error *error)
{
    for (size_t i = 0; i < config->n_inputs; i++) {
        bool found = false;
        for (size_t k = 0; k < graph->n_inputs; k++)
            found |= strcmp(graph->inputs[k]->name, config->inputs[i].name) == 0;
        QN_FAIL_IF(!found, error, QN_INVALID_ARGUMENT, "%s: \"inputs\": %s has no input \"%.80s\"",
                   config->file, graph->file != NULL ? graph->file : "the model",
                   config->inputs[i].name);
    }
    return QN_OK;
}

/* The first input: one picture of the configured size. */
static qn_status picture_dims(const qn_mnn_config *config, const qn_tensor *t, int64_t *dims,
                              qn_error *error)
{
    QN_FAIL_IF(t->rank != 4, error, QN_INVALID_ARGUMENT,
               "%s: input \"%s\" has %u dimensions: pictures need 4 (\"input_type\": \"sequence\" "
               "takes others)",
               config->file, t->name, (unsigned)t->rank);
    const picture_axes axes = axes_of(dims);
    const int64_t channels = dims[axes.channels];
    QN_FAIL_IF(channels >= 0 && channels != config->channels, error, QN_INVALID_ARGUMENT,
               "%s: \"format\" %s gives %u channels, input \"%s\" takes %lld", config->file,
               config->format, config->channels, t->name, (long long)channels);
    dims[0] = 1;
    dims[axes.channels] = config->channels;
    if (config->height != 0)
        dims[axes.height] = config->height;
    if (config->width != 0)
        dims[axes.width] = config->width;
    QN_FAIL_IF(dims[axes.height] < 1 || dims[axes.width] < 1, error, QN_INVALID_ARGUMENT,
               "%s: \"width\" and \"height\" are missing, and input \"%s\" has no fixed size",
               config->file, t->name);
    return QN_OK;
}

qn_status qn__mnn_input_dims(const qn_graph *graph, const qn_mnn_config *config,
                             int64_t (*dims)[QN_MAX_RANK], bool *changed, qn_error *error)
{
    *changed = false;
    QN_TRY(check_names(graph, config, error));
    for (size_t i = 0; i < graph->n_inputs; i++) {
        const qn_tensor *t = graph->inputs[i];
        const qn_mnn_input *given = configured(config, t->name);
        QN_FAIL_IF(!t->has_shape, error, QN_UNSUPPORTED, "input \"%s\" has no shape", t->name);
        QN_FAIL_IF(given != NULL && given->rank != t->rank, error, QN_INVALID_ARGUMENT,
                   "%s: \"inputs\": \"%s\" has %u dimensions, not %zu", config->file, t->name,
                   (unsigned)t->rank, given->rank);
        int64_t before[QN_MAX_RANK];
        for (uint32_t d = 0; d < t->rank; d++) {
            before[d] = t->dims[d].kind == QN_DIM_CONST ? t->dims[d].value : -1;
            dims[i][d] = given != NULL ? given->dims[d] : before[d];
        }
        if (i == 0 && !config->sequence && given == NULL)
            QN_TRY(picture_dims(config, t, dims[i], error));
        for (uint32_t d = 0; d < t->rank && !config->sequence; d++) {
            if (dims[i][d] < 0 && d == 0)
                dims[i][d] = 1;
            QN_FAIL_IF(dims[i][d] < 0, error, QN_INVALID_ARGUMENT,
                       "input \"%s\" has no fixed shape: give it in \"inputs\" of %s", t->name,
                       config->file);
            *changed |= dims[i][d] != before[d];
        }
        /* sequences bring their shapes along, which the network is resized for */
        for (uint32_t d = 0; d < t->rank && config->sequence; d++)
            dims[i][d] = -1;
    }
    return QN_OK;
}

static qn_status open_pictures(const qn_context *ctx, const qn_mnn_config *config,
                               const qn_input_spec *specs, size_t n_specs,
                               qn_dataset_options *options, qn_dataset **out, qn_error *error)
{
    static const struct {
        const char *name;
        qn_channels channels;
    } formats[] = {{"RGB", QN_CHANNELS_RGB},
                   {"BGR", QN_CHANNELS_BGR},
                   {"GRAY", QN_CHANNELS_GRAY},
                   {"RGBA", QN_CHANNELS_RGBA},
                   {"BGRA", QN_CHANNELS_BGRA}};
    qn_preprocess *p = &options->preprocess;
    for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]); i++)
        if (strcmp(formats[i].name, config->format) == 0)
            p->channels = formats[i].channels;
    p->filter = (config->exact & QN_MNN_EXACT_RESIZE) != 0 ? QN_FILTER_MNN_TRUNCATE : QN_FILTER_MNN;
    p->centre_width = config->center_crop_w;
    p->centre_height = config->center_crop_h;
    p->n_mean = p->n_normal = config->channels;
    memcpy(p->mean, config->mean, sizeof(p->mean));
    memcpy(p->normal, config->normal, sizeof(p->normal));
    const picture_axes axes = axes_of(specs[0].dims);
    p->resize_height = config->height != 0 ? config->height : (uint32_t)specs[0].dims[axes.height];
    p->resize_width = config->width != 0 ? config->width : (uint32_t)specs[0].dims[axes.width];

    qn_arena arena;
    const char **names = NULL;
    size_t count = 0;
    qn__arena_init(&arena, ctx);
    qn_status status = qn__dir_entries(ctx, &arena, config->path, &names, &count, error);
    if (status != QN_OK)
        goto done;
    if (count == 0)
        QN_FAIL_GOTO(error, QN_IO, "%s: no pictures", config->path);
    for (size_t i = 0; i < count; i++) {
        names[i] = qn__path_join(&arena, config->path, names[i]);
        if (names[i] == NULL)
            QN_FAIL_GOTO(error, QN_NO_MEMORY, "out of memory");
    }
    options->files = names;
    options->n_files = count;
    status = qn__dataset_create(ctx, specs, n_specs, options, out, error);
done:
    qn__free(ctx, names);
    qn__arena_free(&arena);
    return status;
}

qn_status qn__mnn_dataset(const qn_context *ctx, const qn_graph *graph, const qn_mnn_config *config,
                          const int64_t (*dims)[QN_MAX_RANK], qn_dataset **out, qn_error *error)
{
    qn_dataset_options options;
    qn_dataset_options_init(&options);
    options.first = config->used_number;
    qn_input_spec *specs = qn__calloc(ctx, graph->n_inputs, sizeof(*specs));
    if (specs == NULL)
        return QN_NOMEM(error);
    for (size_t i = 0; i < graph->n_inputs; i++) {
        const qn_mnn_input *given = configured(config, graph->inputs[i]->name);
        specs[i].name = graph->inputs[i]->name;
        specs[i].rank = graph->inputs[i]->rank;
        memcpy(specs[i].dims, dims[i], sizeof(specs[i].dims));
        specs[i].filled = i > 0;
        specs[i].fill = given == NULL ? 0.0f : given->value;
    }
    qn_status status;
    if (config->sequence) {
        options.sequences_dir = config->path;
        status = qn__dataset_create(ctx, specs, graph->n_inputs, &options, out, error);
    } else {
        status = open_pictures(ctx, config, specs, graph->n_inputs, &options, out, error);
    }
    qn__free(ctx, specs);
    return status;
}
