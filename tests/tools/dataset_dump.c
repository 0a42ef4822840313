/* dataset_dump DIMS KEY=VALUE...: makes a dataset for one input of DIMS ("1,3,224,224", ? unknown)
 * and writes all samples as float32 to stdout, their names and labels to stderr. Keys: images data
 * list labels exclude raw-type raw-shape count first seed skip-bad channels mean normal resize crop
 * letterbox filter save-list. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/data.h"

static uint32_t parse_floats(const char *text, float values[4])
{
    uint32_t n = 0;
    for (char *end; n < 4; text = end + 1) {
        values[n++] = strtof(text, &end);
        if (*end != ',')
            break;
    }
    return n;
}

static void parse_size(const char *text, uint32_t *width, uint32_t *height)
{
    if (sscanf(text, "%ux%u", width, height) == 1)
        *height = *width;
}

static int index_of(const char *text, const char *const *names, int n)
{
    for (int i = 0; i < n; i++)
        if (strcmp(text, names[i]) == 0)
            return i;
    exit(2);
}

static void parse_option(char *arg, qn_dataset_options *o, const char **save_list)
{
    static const char *const channels[] = {"RGB", "BGR", "GRAY"};
    static const char *const filters[] = {"bilinear", "bilinear-plain", "bicubic", "nearest"};
    char *value = strchr(arg, '=');
    if (value == NULL)
        exit(2);
    *value++ = '\0';
    qn_preprocess *p = &o->preprocess;
    if (strcmp(arg, "images") == 0)
        o->images_dir = value;
    else if (strcmp(arg, "data") == 0)
        o->data_file = value;
    else if (strcmp(arg, "list") == 0)
        o->list_file = value;
    else if (strcmp(arg, "labels") == 0)
        o->labels_file = value;
    else if (strcmp(arg, "exclude") == 0)
        o->exclude_file = value;
    else if (strcmp(arg, "raw-type") == 0)
        o->raw_type = value;
    else if (strcmp(arg, "raw-shape") == 0)
        o->raw_shape = value;
    else if (strcmp(arg, "count") == 0)
        o->count = strtoull(value, NULL, 10);
    else if (strcmp(arg, "first") == 0)
        o->first = strtoull(value, NULL, 10);
    else if (strcmp(arg, "seed") == 0) {
        o->use_seed = true;
        o->seed = strtoull(value, NULL, 10);
    } else if (strcmp(arg, "skip-bad") == 0)
        o->skip_bad = *value == '1';
    else if (strcmp(arg, "channels") == 0)
        p->channels = (qn_channels)index_of(value, channels, 3);
    else if (strcmp(arg, "filter") == 0)
        p->filter = (qn_filter)index_of(value, filters, 4);
    else if (strcmp(arg, "mean") == 0)
        p->n_mean = parse_floats(value, p->mean);
    else if (strcmp(arg, "normal") == 0)
        p->n_normal = parse_floats(value, p->normal);
    else if (strcmp(arg, "resize") == 0 && strchr(value, 'x') == NULL)
        p->resize_shorter = (uint32_t)strtoul(value, NULL, 10);
    else if (strcmp(arg, "resize") == 0)
        parse_size(value, &p->resize_width, &p->resize_height);
    else if (strcmp(arg, "crop") == 0)
        parse_size(value, &p->crop_width, &p->crop_height);
    else if (strcmp(arg, "letterbox") == 0)
        parse_size(value, &p->letterbox_width, &p->letterbox_height);
    else if (strcmp(arg, "save-list") == 0)
        *save_list = value;
    else
        exit(2);
}

static qn_status dump(const qn_context *ctx, const qn_input_spec *spec,
                      const qn_dataset_options *options, const char *save_list, qn_error *error)
{
    qn_dataset *dataset = NULL;
    QN_TRY(qn__dataset_create(ctx, spec, 1, options, &dataset, error));
    const size_t count = qn_dataset_sample_count(dataset, 0);
    float *floats = malloc(count * sizeof(*floats));
    qn_status status = QN_OK;
    for (size_t i = 0; i < qn_dataset_count(dataset) && status == QN_OK; i++) {
        status = qn_dataset_load(dataset, i, &floats, error);
        if (status != QN_OK)
            break;
        fwrite(floats, sizeof(*floats), count, stdout);
        fprintf(stderr, "%s\t%lld\n", qn_dataset_name(dataset, i),
                (long long)qn_dataset_label(dataset, i));
    }
    if (status == QN_OK && save_list != NULL)
        status = qn_dataset_save_list(dataset, save_list, error);
    free(floats);
    qn_dataset_destroy(dataset);
    return status;
}

static void print_log(void *ctx, qn_log_level level, const char *line)
{
    (void)ctx;
    fprintf(stderr, "%s: %s\n", level == QN_LOG_WARNING ? "warning" : "note", line);
}

int main(int argc, char **argv)
{
    qn_error error;
    qn_context *ctx = NULL;
    qn_context_options context_options;
    qn_dataset_options options;
    qn_input_spec spec = {.name = "x"};
    const char *save_list = NULL;
    if (argc < 3)
        return 2;
    for (char *p = strtok(argv[1], ","); p != NULL && spec.rank < 8; p = strtok(NULL, ","))
        spec.dims[spec.rank++] = *p == '?' ? -1 : atoll(p);
    qn_dataset_options_init(&options);
    for (int i = 2; i < argc; i++)
        parse_option(argv[i], &options, &save_list);
    qn_context_options_init(&context_options);
    context_options.log = print_log;
    if (qn_context_create(&context_options, &ctx, &error) != QN_OK)
        return 1;
    const qn_status status = dump(ctx, &spec, &options, save_list, &error);
    if (status != QN_OK)
        fprintf(stderr, "%s: %s\n", qn_status_name(status), error.message);
    qn_context_destroy(ctx);
    return status == QN_OK ? 0 : 1;
}
