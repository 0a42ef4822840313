/* quench run: one inference per input file. */
#include "cli.h"
#include "json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Lines of a text file, for class names. */
typedef struct names {
    char *text;
    char **lines;
    size_t count;
} names;

static void names_free(names *n)
{
    free(n->text);
    free(n->lines);
}

static int names_load(const char *path, names *out)
{
    *out = (names){0};
    if (path == NULL)
        return EXIT_OK;
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        cli_error("%s: cannot open", path);
        return EXIT_FAILED;
    }
    size_t used = 0, capacity = 0;
    bool whole = true;
    for (;;) {
        if (capacity - used < 4096) {
            char *bigger = realloc(out->text, capacity * 2 + 65536);
            if (bigger == NULL || capacity > (64u << 20)) {
                whole = false;
                free(bigger == NULL ? NULL : bigger);
                out->text = bigger == NULL ? out->text : NULL;
                break;
            }
            out->text = bigger;
            capacity = capacity * 2 + 65536;
        }
        const size_t n = fread(out->text + used, 1, capacity - used - 1, file);
        if (n == 0)
            break;
        used += n;
    }
    whole = whole && ferror(file) == 0;
    fclose(file);
    if (!whole) {
        cli_error("%s: cannot read", path);
        names_free(out);
        *out = (names){0};
        return EXIT_FAILED;
    }
    out->text[used] = '\0';
    size_t lines = 1;
    for (size_t i = 0; i < used; i++)
        lines += out->text[i] == '\n';
    out->lines = calloc(lines, sizeof *out->lines);
    if (out->lines == NULL) {
        cli_error("out of memory");
        return EXIT_FAILED;
    }
    for (char *line = out->text; line != NULL && *line != '\0';) {
        char *end = strchr(line, '\n');
        if (end != NULL)
            *end = '\0';
        line[strcspn(line, "\r")] = '\0';
        out->lines[out->count++] = line;
        line = end != NULL ? end + 1 : NULL;
    }
    return EXIT_OK;
}

static const char *class_name(const names *n, size_t index)
{
    return index < n->count ? n->lines[index] : "";
}

static void dims_text(const qn_session *session, bool is_output, size_t index, char text[128])
{
    uint32_t rank = 0;
    int64_t dims[QN_MODEL_MAX_RANK];
    size_t used = 0;
    text[0] = '\0';
    if (!qn_session_dims(session, is_output, index, &rank, dims))
        return;
    for (uint32_t d = 0; d < rank && used < 100; d++)
        used += (size_t)snprintf(text + used, 128 - used, "%s%lld", d > 0 ? "x" : "",
                                 (long long)dims[d]);
}

static void print_io(const qn_model *model, const qn_session *session)
{
    qn_value_info info;
    char text[128];
    for (size_t i = 0; qn_model_input(model, i, &info); i++) {
        dims_text(session, false, i, text);
        printf("input   %-24s %s %s\n", info.name, info.dtype, text);
    }
    for (size_t i = 0; qn_model_output(model, i, &info); i++) {
        dims_text(session, true, i, text);
        printf("output  %-24s %s %s\n", info.name, info.dtype, text);
    }
}

/* Indices of the k largest values, largest first; the lower index wins a tie. */
static size_t top_indices(const float *values, size_t count, size_t k, size_t *out)
{
    size_t n = 0;
    for (size_t i = 0; i < count; i++) {
        if (isnan(values[i]))
            continue;
        size_t at = n;
        while (at > 0 && values[out[at - 1]] < values[i])
            at--;
        if (at >= k)
            continue;
        const size_t last = n < k ? n++ : n - 1;
        memmove(out + at + 1, out + at, (last - at) * sizeof *out);
        out[at] = i;
    }
    return n;
}

typedef struct runner {
    const cli_options *options;
    const qn_model *model;
    qn_session *session;
    const qn_dataset *dataset;
    float **inputs;
    size_t *top;
    names classes;
    json_t *rows;
    bool incomplete;                                 /* a row could not be made */
    int64_t dims[CLI_MAX_INPUTS][QN_MODEL_MAX_RANK]; /* of the session */
} runner;

static int report_outputs(runner *r, size_t sample, double ms)
{
    const cli_options *const o = r->options;
    json_t *outputs = json_array();
    bool complete = true;
    if (!o->json)
        printf("%s: %.3f ms, best of %u\n", qn_dataset_name(r->dataset, sample), ms, o->rounds);
    qn_value_info info;
    for (size_t i = 0; qn_model_output(r->model, i, &info); i++) {
        size_t count = 0;
        const float *values = qn_session_output(r->session, i, &count);
        const size_t n = top_indices(values, count, o->top, r->top);
        json_t *best = json_array();
        if (!o->json && qn_model_n_outputs(r->model) > 1)
            printf("  %s, largest values:\n", info.name);
        for (size_t k = 0; k < n; k++) {
            const size_t index = r->top[k];
            if (o->json)
                cli_json_append(best,
                                json_pack("{s:I, s:o, s:o}", "index", (json_int_t)index, "value",
                                          cli_json_number((double)values[index]), "name",
                                          cli_json_text(class_name(&r->classes, index))),
                                &complete);
            else
                printf("  %8zu  %12.6g%s%s\n", index, (double)values[index],
                       index < r->classes.count ? "  " : "", class_name(&r->classes, index));
        }
        cli_json_append(outputs,
                        json_pack("{s:o, s:o}", "name", cli_json_text(info.name), "top", best),
                        &complete);
    }
    cli_json_append(r->rows,
                    json_pack("{s:o, s:o, s:o}", "input",
                              cli_json_text(qn_dataset_name(r->dataset, sample)), "ms",
                              cli_json_number(ms), "outputs", outputs),
                    &complete);
    r->incomplete |= !complete;
    return EXIT_OK;
}

/* A session for the sizes of a sample, which is kept while these stay the same. */
static int fit_session(runner *r, size_t sample)
{
    const size_t n = qn_model_n_inputs(r->model);
    int64_t dims[CLI_MAX_INPUTS][QN_MODEL_MAX_RANK] = {{0}};
    qn_error error = {0};
    if (n > CLI_MAX_INPUTS) {
        cli_error("%s: more than %d inputs", qn_model_path(r->model), CLI_MAX_INPUTS);
        return EXIT_FAILED;
    }
    for (size_t i = 0; i < n; i++) {
        qn_value_info info;
        uint32_t rank = 0;
        qn_model_input(r->model, i, &info);
        if (!qn_dataset_sample_dims(r->dataset, sample, i, &rank, dims[i]) || rank != info.rank) {
            cli_error("%s: the samples do not fit input \"%s\"", qn_model_path(r->model),
                      info.name);
            return EXIT_FAILED;
        }
    }
    if (r->session != NULL && memcmp(dims, r->dims, sizeof(dims)) == 0)
        return EXIT_OK;
    qn_session_options options;
    qn_session_options_init(&options);
    options.saturate16 = r->options->saturate16;
    options.requantize = r->options->requantize;
    memcpy(r->dims, dims, sizeof(dims));
    options.input_dims = (const int64_t(*)[QN_MODEL_MAX_RANK])r->dims;
    qn_session_destroy(r->session);
    r->session = NULL;
    return qn_session_create(r->model, &options, &r->session, &error) == QN_OK ? EXIT_OK
                                                                               : cli_failed(&error);
}

static int run_samples(runner *r)
{
    qn_error error = {0};
    const size_t n_inputs = qn_model_n_inputs(r->model);
    r->inputs = calloc(n_inputs > 0 ? n_inputs : 1, sizeof *r->inputs);
    r->top = calloc((size_t)r->options->top + 1, sizeof *r->top);
    if (r->inputs == NULL || r->top == NULL) {
        cli_error("out of memory");
        return EXIT_FAILED;
    }
    for (size_t i = 0; i < n_inputs; i++) {
        r->inputs[i] = calloc(qn_dataset_sample_count(r->dataset, i) + 1, sizeof(float));
        if (r->inputs[i] == NULL) {
            cli_error("out of memory");
            return EXIT_FAILED;
        }
    }
    for (size_t s = 0; s < qn_dataset_count(r->dataset); s++) {
        const int fits = fit_session(r, s);
        if (fits != EXIT_OK)
            return fits;
        if (qn_dataset_load(r->dataset, s, r->inputs, &error) != QN_OK)
            return cli_failed(&error);
        double best = INFINITY;
        for (uint32_t round = 0; round < r->options->rounds; round++) {
            const double start = cli_seconds();
            if (qn_session_run(r->session, (const float *const *)r->inputs, &error) != QN_OK)
                return cli_failed(&error);
            const double seconds = cli_seconds() - start;
            best = seconds < best ? seconds : best;
        }
        if (s == 0 && !r->options->json && !r->options->quiet)
            print_io(r->model, r->session); /* shapes of outputs are known after a run */
        const int code = report_outputs(r, s, 1e3 * best);
        if (code != EXIT_OK)
            return code;
        if (ferror(stdout) != 0)
            break; /* main says so: nobody reads any more */
    }
    return EXIT_OK;
}

/* INPUT arguments: pictures, or one .npy, .npz, .csv or raw tensor file. */
static void name_inputs(const cli_options *options, cli_options *with_inputs)
{
    *with_inputs = *options;
    if (options->n_positional < 2)
        return;
    const char *first = options->positional[1];
    const size_t length = strlen(first);
    const char *ending = length > 4 ? first + length - 4 : "";
    const bool is_array =
        strcmp(ending, ".npy") == 0 || strcmp(ending, ".npz") == 0 || strcmp(ending, ".csv") == 0;
    if (is_array || options->data.raw_type != NULL) {
        with_inputs->data.data_file = first;
    } else {
        with_inputs->data.files = options->positional + 1;
        with_inputs->data.n_files = options->n_positional - 1;
    }
}

int cmd_run(const cli_options *options)
{
    if (options->n_positional < 1)
        return cli_usage_error("run: a model file is needed");
    if (options->n_positional < 2 && !options->has_data_source)
        return cli_usage_error(
            "run: an input is needed: picture files, a .npy, .npz or .csv file or --images");
    if (options->n_positional >= 2 && options->has_data_source)
        return cli_usage_error(
            "run: input files and --images, --data or --list exclude each other");
    qn_context *ctx = NULL;
    int code = cli_context(options, &ctx);
    if (code != EXIT_OK)
        return code;
    cli_options with_inputs;
    name_inputs(options, &with_inputs);
    qn_model *model = NULL;
    qn_dataset *dataset = NULL;
    qn_error error = {0};
    runner r = {.options = options, .rows = json_array()};

    code = names_load(options->labels_text, &r.classes);
    if (code != EXIT_OK)
        goto done;
    if (qn_model_load(ctx, options->positional[0], &model, &error) != QN_OK) {
        code = cli_failed(&error);
        goto done;
    }
    code = cli_dataset(&with_inputs, ctx, model, &dataset);
    if (code != EXIT_OK)
        goto done;
    r.model = model;
    r.dataset = dataset;
    code = run_samples(&r);
    if (code == EXIT_OK && options->json)
        code = cli_json_print(json_pack("{s:O}", "runs", r.rows), !r.incomplete);
done:
    for (size_t i = 0; r.inputs != NULL && i < qn_model_n_inputs(model); i++)
        free(r.inputs[i]);
    free(r.inputs);
    free(r.top);
    names_free(&r.classes);
    json_decref(r.rows);
    qn_session_destroy(r.session);
    qn_dataset_destroy(dataset);
    qn_model_destroy(model);
    qn_context_destroy(ctx);
    return code;
}
