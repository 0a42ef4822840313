/* quench bench: latency of models on this machine in interleaved rounds, with profiles by layer. */
#include "cli.h"
#include "json.h"

#include <stdlib.h>
#include <string.h>

enum { WARM_UP = 2, PROFILED_RUNS = 10, MAX_MODELS = 8 };

typedef struct layer {
    qn_profile_entry entry; /* seconds: of the fastest run */
    double gmacs, share;    /* share of the time of all layers */
    double overhead_ms;     /* of the fastest run without kernels */
    double of_limit;        /* share of what the machine's integer instruction reaches; 0: not its
                               work */
} layer;

typedef struct contender {
    const char *file;
    qn_model *model;
    qn_session *session;
    qn_session *idle; /* NULL, or the same without kernels */
    float **inputs;
    size_t n_inputs;
    double *ms;         /* [rounds], sorted when all are done */
    double overhead_ms; /* fastest run without kernels */
    layer *layers;
    size_t n_layers;
} contender;

typedef struct limit {
    double gmacs; /* of all threads */
    const char *instruction;
} limit;

/* Of n sorted values the least that so large a share of them does not exceed. */
static double quantile(const double *sorted, uint32_t n, double share)
{
    const uint32_t rank = (uint32_t)(share * n + 0.999999);
    return sorted[rank > 0 ? rank - 1 : 0];
}

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

/* --- running ---------------------------------------------------------------------------------- */
static bool make_inputs(contender *c)
{
    c->n_inputs = qn_model_n_inputs(c->model);
    c->inputs = calloc(c->n_inputs > 0 ? c->n_inputs : 1, sizeof *c->inputs);
    for (size_t i = 0; c->inputs != NULL && i < c->n_inputs; i++) {
        uint32_t rank = 0;
        int64_t dims[QN_MODEL_MAX_RANK];
        size_t count = 1;
        qn_session_dims(c->session, false, i, &rank, dims);
        for (uint32_t d = 0; d < rank; d++)
            count *= (size_t)dims[d];
        c->inputs[i] = make_input(count);
        if (c->inputs[i] == NULL)
            return false;
    }
    return c->inputs != NULL;
}

static int load(const cli_options *o, const qn_context *ctx, contender *c)
{
    qn_error error = {0};
    qn_session_options options;
    int64_t storage[CLI_MAX_INPUTS][QN_MODEL_MAX_RANK];
    qn_session_options_init(&options);
    options.batch = o->batch;
    if (qn_model_load(ctx, c->file, &c->model, &error) != QN_OK)
        return cli_failed(&error);
    const int code = cli_input_dims(o, c->model, storage, &options.input_dims);
    if (code != EXIT_OK)
        return code;
    if (qn_session_create(c->model, &options, &c->session, &error) != QN_OK)
        return cli_failed(&error);
    options.null_kernels = true;
    if (o->per_layer && qn_session_create(c->model, &options, &c->idle, &error) != QN_OK)
        return cli_failed(&error);
    c->ms = calloc(o->rounds, sizeof *c->ms);
    if (c->ms != NULL && make_inputs(c))
        return EXIT_OK;
    cli_error("out of memory");
    return EXIT_FAILED;
}

static int run_once(contender *c, qn_session *session, double *seconds)
{
    qn_error error = {0};
    const double start = cli_seconds();
    if (qn_session_run(session, (const float *const *)c->inputs, &error) != QN_OK)
        return cli_failed(&error);
    *seconds = cli_seconds() - start;
    return EXIT_OK;
}

/* Twice: the first fetches its tensors, which kernels would have left in the caches. */
static int run_idle(contender *c, double *seconds)
{
    const int code = run_once(c, c->idle, seconds);
    return code == EXIT_OK ? run_once(c, c->idle, seconds) : code;
}

/* One run of each, round by round: what disturbs the machine disturbs all of them. */
static int time_rounds(const cli_options *o, contender *contenders, size_t n)
{
    for (uint32_t round = 0; round < o->rounds + WARM_UP; round++) {
        for (size_t i = 0; i < n; i++) {
            double seconds = 0.0;
            contender *const c = &contenders[i];
            if (run_once(c, c->session, &seconds) != EXIT_OK)
                return EXIT_FAILED;
            if (round >= WARM_UP)
                c->ms[round - WARM_UP] = 1e3 * seconds;
            if (c->idle == NULL)
                continue;
            if (run_idle(c, &seconds) != EXIT_OK)
                return EXIT_FAILED;
            if (round == 0 || 1e3 * seconds < c->overhead_ms)
                c->overhead_ms = 1e3 * seconds;
        }
    }
    for (size_t i = 0; i < n; i++)
        qsort(contenders[i].ms, o->rounds, sizeof *contenders[i].ms, compare_doubles);
    return EXIT_OK;
}

/* Every layer's fastest time of several runs. */
static int profile(contender *c, const limit *machine)
{
    qn_session_set_profiling(c->session, true);
    qn_session_set_profiling(c->idle, true);
    for (int run = 0; run < PROFILED_RUNS; run++) {
        double seconds, total = 0.0;
        qn_profile_entry entry;
        if (run_once(c, c->session, &seconds) != EXIT_OK || run_idle(c, &seconds) != EXIT_OK)
            return EXIT_FAILED;
        for (c->n_layers = 0; qn_session_profile(c->session, c->n_layers, &entry);)
            c->n_layers++;
        if (c->layers == NULL)
            c->layers = calloc(c->n_layers + 1, sizeof *c->layers);
        if (c->layers == NULL) {
            cli_error("out of memory");
            return EXIT_FAILED;
        }
        for (size_t i = 0; i < c->n_layers; i++) {
            layer *const l = &c->layers[i];
            qn_session_profile(c->session, i, &entry);
            if (run == 0 || entry.seconds < l->entry.seconds)
                l->entry = entry;
            total += l->entry.seconds;
            if (qn_session_profile(c->idle, i, &entry) &&
                (run == 0 || 1e3 * entry.seconds < l->overhead_ms))
                l->overhead_ms = 1e3 * entry.seconds;
        }
        for (size_t i = 0; i < c->n_layers; i++) {
            layer *const l = &c->layers[i];
            const double time = l->entry.seconds;
            l->gmacs = time > 0 ? (double)l->entry.macs / time * 1e-9 : 0.0;
            l->share = total > 0 ? time / total : 0.0;
            l->of_limit = strstr(l->entry.kernel, "q8_") != NULL && machine->gmacs > 0
                              ? l->gmacs / machine->gmacs
                              : 0.0;
        }
    }
    return EXIT_OK;
}

static void release(contender *c)
{
    for (size_t i = 0; c->inputs != NULL && i < c->n_inputs; i++)
        free(c->inputs[i]);
    free(c->inputs);
    free(c->ms);
    free(c->layers);
    qn_session_destroy(c->session);
    qn_session_destroy(c->idle);
    qn_model_destroy(c->model);
}

/* --- reporting -------------------------------------------------------------------------------- */
static json_t *layers_json(const contender *c, bool *complete)
{
    json_t *rows = json_array();
    for (size_t i = 0; i < c->n_layers; i++) {
        const layer *const l = &c->layers[i];
        cli_json_append(rows,
                        json_pack("{s:o, s:s, s:o, s:o, s:o, s:o, s:o}", "node",
                                  cli_json_text(l->entry.node), "kernel", l->entry.kernel, "ms",
                                  cli_json_number(1e3 * l->entry.seconds), "share",
                                  cli_json_number(l->share), "gmacs", cli_json_number(l->gmacs),
                                  "of_limit", cli_json_number(l->of_limit), "overhead_ms",
                                  cli_json_number(l->overhead_ms)),
                        complete);
    }
    return rows;
}

/* Share of a run that is not spent in kernels. */
static double overhead_of(const contender *c)
{
    return c->ms[0] > 0 ? c->overhead_ms / c->ms[0] : 0.0;
}

static json_t *contender_json(const cli_options *o, const contender *c, const limit *machine,
                              bool *complete)
{
    qn_memory_use use;
    qn_session_memory(c->session, &use);
    json_t *root = json_pack(
        "{s:o, s:i, s:o, s:o, s:o, s:I, s:I, s:I, s:I, s:I}", "file", cli_json_text(c->file),
        "rounds", (int)o->rounds, "min_ms", cli_json_number(c->ms[0]), "median_ms",
        cli_json_number(quantile(c->ms, o->rounds, 0.5)), "p95_ms",
        cli_json_number(quantile(c->ms, o->rounds, 0.95)), "memory_bytes",
        (json_int_t)qn_session_arena_bytes(c->session), "peak_bytes", (json_int_t)cli_peak_bytes(),
        "activation_bytes", (json_int_t)use.activations, "live_bytes", (json_int_t)use.live,
        "weight_bytes", (json_int_t)use.weights);
    if (o->per_layer &&
        (json_object_set_new(root, "layers", layers_json(c, complete)) != 0 ||
         json_object_set_new(root, "overhead_ms", cli_json_number(c->overhead_ms)) != 0 ||
         json_object_set_new(root, "overhead", cli_json_number(overhead_of(c))) != 0 ||
         json_object_set_new(root, "limit_gmacs", cli_json_number(machine->gmacs)) != 0 ||
         json_object_set_new(root, "limit_instruction", json_string(machine->instruction)) != 0))
        *complete = false;
    return root;
}

static int report_json(const cli_options *o, const contender *contenders, size_t n,
                       const limit *machine)
{
    bool complete = true;
    if (n == 1)
        return cli_json_print(contender_json(o, &contenders[0], machine, &complete), complete);
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++) {
        json_t *const item = contender_json(o, &contenders[i], machine, &complete);
        if (json_object_set_new(item, "times_faster",
                                cli_json_number(contenders[0].ms[0] / contenders[i].ms[0])) != 0)
            complete = false;
        cli_json_append(list, item, &complete);
    }
    return cli_json_print(json_pack("{s:o}", "models", list), complete);
}

static void print_layers(const contender *c, const limit *machine, bool quiet)
{
    if (!quiet)
        printf("%-36s %-30s %9s %7s %9s %9s %9s\n", "node", "kernel", "ms", "share", "overhead",
               "GMAC/s", "of limit");
    for (size_t i = 0; i < c->n_layers; i++) {
        const layer *const l = &c->layers[i];
        printf("%-36.36s %-30.30s %9.4f %6.1f%% %9.4f %9.2f", l->entry.node, l->entry.kernel,
               1e3 * l->entry.seconds, 100.0 * l->share, l->overhead_ms, l->gmacs);
        if (l->entry.macs > 0 && l->of_limit > 0)
            printf(" %8.1f%%\n", 100.0 * l->of_limit);
        else
            printf(" %9s\n", "-");
    }
    if (quiet)
        return;
    printf("overhead beyond kernels: %.4f ms, %.1f%% of the fastest run\n", c->overhead_ms,
           100.0 * overhead_of(c));
    printf("limit: %.1f GMAC/s of bytes (%s)\n", machine->gmacs, machine->instruction);
}

static void print_one(const cli_options *o, const contender *c, const contender *first)
{
    char a[32], b[32], d[32];
    qn_memory_use use;
    qn_session_memory(c->session, &use);
    printf("%s: min %.3f ms, median %.3f ms, p95 %.3f ms over %u runs", cli_base_name(c->file),
           c->ms[0], quantile(c->ms, o->rounds, 0.5), quantile(c->ms, o->rounds, 0.95), o->rounds);
    if (c != first)
        printf(", %.2f times faster than %s", first->ms[0] / c->ms[0], cli_base_name(first->file));
    printf("\n");
    if (o->quiet)
        return;
    printf("  activations %s (%.2f times what lives at once), weights %s, peak %s\n",
           cli_size_text(use.activations, a),
           use.live > 0 ? (double)use.activations / (double)use.live : 1.0,
           cli_size_text(use.weights, b), cli_size_text(cli_peak_bytes(), d));
}

int cmd_bench(const cli_options *options)
{
    const size_t n = options->n_positional;
    if (n < 1 || n > MAX_MODELS)
        return cli_usage_error("bench: 1 to %d model files are needed, %zu given", MAX_MODELS, n);
    qn_context *ctx = NULL;
    int code = cli_context(options, &ctx);
    if (code != EXIT_OK)
        return code;
    contender contenders[MAX_MODELS] = {{0}};
    limit machine = {0};
    for (size_t i = 0; i < n && code == EXIT_OK; i++) {
        contenders[i].file = options->positional[i];
        code = load(options, ctx, &contenders[i]);
    }
    if (code == EXIT_OK)
        code = time_rounds(options, contenders, n);
    if (code == EXIT_OK && options->per_layer) {
        machine.gmacs = 1e-9 * qn_context_integer_limit(ctx, &machine.instruction) *
                        (double)qn_context_n_threads(ctx);
        for (size_t i = 0; i < n && code == EXIT_OK; i++)
            code = profile(&contenders[i], &machine);
    }
    if (code == EXIT_OK && options->json) {
        code = report_json(options, contenders, n, &machine);
    } else if (code == EXIT_OK) {
        for (size_t i = 0; i < n && options->per_layer; i++)
            print_layers(&contenders[i], &machine, options->quiet);
        for (size_t i = 0; i < n; i++)
            print_one(options, &contenders[i], &contenders[0]);
    }
    for (size_t i = 0; i < n; i++)
        release(&contenders[i]);
    qn_context_destroy(ctx);
    return code;
}
