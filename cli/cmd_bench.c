/* quench bench: latency of a model on this machine, with a profile by layer. */
#include "cli.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static int compare_doubles(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Inputs in [-1, 1) from a small generator: timing must not depend on denormals or constants. */
static float *make_input(size_t count)
{
    float *values = malloc((count > 0 ? count : 1) * sizeof *values);
    uint32_t state = 12345;
    for (size_t i = 0; values != NULL && i < count; i++) {
        state = state * 1664525u + 1013904223u;
        values[i] = (float)(state >> 8) / 8388608.0f - 1.0f;
    }
    return values;
}

static json_t *layers_json(const qn_session *session)
{
    json_t *rows = json_array();
    qn_profile_entry entry;
    for (size_t i = 0; qn_session_profile(session, i, &entry); i++)
        json_array_append_new(
            rows, json_pack("{s:s, s:s, s:f, s:f}", "node", entry.node, "kernel", entry.kernel,
                            "ms", 1e3 * entry.seconds, "gmacs",
                            entry.seconds > 0 ? (double)entry.macs / entry.seconds * 1e-9 : 0.0));
    return rows;
}

static void print_layers(const qn_session *session)
{
    double total = 0.0;
    qn_profile_entry entry;
    for (size_t i = 0; qn_session_profile(session, i, &entry); i++)
        total += entry.seconds;
    printf("%-36s %-36s %9s %7s %9s\n", "node", "kernel", "ms", "share", "GMAC/s");
    for (size_t i = 0; qn_session_profile(session, i, &entry); i++)
        printf("%-36.36s %-36.36s %9.4f %6.1f%% %9.2f\n", entry.node, entry.kernel,
               1e3 * entry.seconds, total > 0 ? 100.0 * entry.seconds / total : 0.0,
               entry.seconds > 0 ? (double)entry.macs / entry.seconds * 1e-9 : 0.0);
}

static int time_rounds(const cli_options *o, qn_session *session, float **inputs, double *ms)
{
    qn_error error = {0};
    const float *const *views = (const float *const *)inputs;
    for (uint32_t i = 0; i < o->rounds + 2; i++) { /* two rounds to warm up */
        const double start = cli_seconds();
        if (qn_session_run(session, views, &error) != QN_OK)
            return cli_failed(&error);
        if (i >= 2)
            ms[i - 2] = 1e3 * (cli_seconds() - start);
    }
    qsort(ms, o->rounds, sizeof *ms, compare_doubles);
    if (o->per_layer) {
        qn_session_set_profiling(session, true);
        if (qn_session_run(session, views, &error) != QN_OK)
            return cli_failed(&error);
    }
    return EXIT_OK;
}

static void report(const cli_options *o, const qn_session *session, const double *ms)
{
    const double median = ms[o->rounds / 2], p95 = ms[(size_t)(0.95 * (o->rounds - 1))];
    const size_t memory = qn_session_arena_bytes(session);
    if (o->json) {
        json_t *root = json_pack("{s:s, s:i, s:f, s:f, s:f, s:I, s:I}", "file", o->positional[0],
                                 "rounds", (int)o->rounds, "min_ms", ms[0], "median_ms", median,
                                 "p95_ms", p95, "memory_bytes", (json_int_t)memory, "peak_bytes",
                                 (json_int_t)cli_peak_bytes());
        if (o->per_layer)
            json_object_set_new(root, "layers", layers_json(session));
        json_dumpf(root, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(9));
        putchar('\n');
        json_decref(root);
        return;
    }
    char a[32], b[32];
    if (o->per_layer)
        print_layers(session);
    printf(
        "%s: min %.3f ms, median %.3f ms, p95 %.3f ms over %u runs; tensors and weights %s, peak "
        "%s\n",
        cli_base_name(o->positional[0]), ms[0], median, p95, o->rounds, cli_size_text(memory, a),
        cli_size_text(cli_peak_bytes(), b));
}

int cmd_bench(const cli_options *options)
{
    if (options->n_positional != 1)
        return cli_usage_error("bench: one model file is needed, %zu given", options->n_positional);
    qn_context *ctx = NULL;
    int code = cli_context(options, &ctx);
    if (code != EXIT_OK)
        return code;
    qn_model *model = NULL;
    qn_session *session = NULL;
    qn_error error = {0};
    qn_session_options session_options;
    qn_session_options_init(&session_options);
    session_options.batch = options->batch;
    int64_t storage[CLI_MAX_INPUTS][QN_MODEL_MAX_RANK];
    float **inputs = NULL;
    double *ms = calloc(options->rounds, sizeof *ms);
    size_t n_inputs = 0;
    code = EXIT_FAILED;
    if (qn_model_load(ctx, options->positional[0], &model, &error) != QN_OK) {
        cli_failed(&error);
        goto done;
    }
    code = cli_input_dims(options, model, storage, &session_options.input_dims);
    if (code != EXIT_OK)
        goto done;
    if (qn_session_create(model, &session_options, &session, &error) != QN_OK) {
        code = cli_failed(&error);
        goto done;
    }
    n_inputs = qn_model_n_inputs(model);
    inputs = calloc(n_inputs > 0 ? n_inputs : 1, sizeof *inputs);
    bool ready = inputs != NULL && ms != NULL;
    for (size_t i = 0; ready && i < n_inputs; i++) {
        uint32_t rank = 0;
        int64_t dims[QN_MODEL_MAX_RANK];
        size_t count = 1;
        qn_session_dims(session, false, i, &rank, dims);
        for (uint32_t d = 0; d < rank; d++)
            count *= (size_t)dims[d];
        inputs[i] = make_input(count);
        ready = inputs[i] != NULL;
    }
    if (!ready) {
        cli_error("out of memory");
        code = EXIT_FAILED;
        goto done;
    }
    code = time_rounds(options, session, inputs, ms);
    if (code == EXIT_OK)
        report(options, session, ms);
done:
    for (size_t i = 0; inputs != NULL && i < n_inputs; i++)
        free(inputs[i]);
    free(inputs);
    free(ms);
    qn_session_destroy(session);
    qn_model_destroy(model);
    qn_context_destroy(ctx);
    return code;
}
