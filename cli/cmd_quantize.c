/* quench quantize: read, simplify, calibrate, quantize, write. */
#include "cli.h"
#include "json.h"
#include "progress.h"

#include <string.h>
#include <unistd.h>

static bool is_gemm(const char *op)
{
    return strcmp(op, "Conv") == 0 || strcmp(op, "Gemm") == 0 || strcmp(op, "MatMul") == 0 ||
           strcmp(op, "ConvTranspose") == 0;
}

typedef struct summary {
    uint64_t float_bytes, int8_bytes;
    uint64_t n_gemm, n_gemm_int8, macs, macs_int8, n_float, n_narrow;
    double seconds;
} summary;

static void count_nodes(const qn_report *report, summary *out)
{
    qn_report_node node;
    for (size_t i = 0; qn_report_node_at(report, i, &node); i++) {
        out->macs += node.macs;
        if (node.quantized)
            out->macs_int8 += node.macs;
        else
            out->n_float++;
        if (is_gemm(node.op)) {
            out->n_gemm++;
            out->n_gemm_int8 += node.quantized;
            out->n_narrow += node.quantized && node.weight_bits == 7 && node.saturates;
        }
    }
}

static double share(const summary *s)
{
    return s->macs > 0 ? (double)s->macs_int8 / (double)s->macs : 0.0;
}

static int print_json(const cli_options *options, const qn_report *report, const summary *s)
{
    json_t *nodes = json_array();
    bool complete = true;
    qn_report_node node;
    for (size_t i = 0; qn_report_node_at(report, i, &node); i++) {
        json_t *row =
            json_pack("{s:o, s:s, s:I, s:b, s:s?, s:b, s:i, s:o}", "name", cli_json_text(node.name),
                      "op", node.op, "macs", (json_int_t)node.macs, "int8", node.quantized,
                      "reason", node.reason, "saturates", node.saturates, "weight_bits",
                      (int)node.weight_bits, "weight_error", cli_json_number(node.weight_error));
        cli_json_append(nodes, row, &complete);
    }
    json_t *notes = json_array();
    for (size_t i = 0; qn_report_note(report, i) != NULL; i++)
        cli_json_append(notes, cli_json_text(qn_report_note(report, i)), &complete);
    json_t *root = json_pack(
        "{s:o, s:o, s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:o, s:o, s:I, s:o, s:o}", "source",
        cli_json_text(options->positional[0]), "file",
        options->dry_run ? json_null() : cli_json_text(options->output), "target",
        qn_report_method(report, "target"), "scheme", qn_report_method(report, "scheme"),
        "features", qn_report_method(report, "features"), "weights",
        qn_report_method(report, "weights"), "granularity", qn_report_method(report, "granularity"),
        "float_bytes", (json_int_t)s->float_bytes, "int8_bytes", (json_int_t)s->int8_bytes,
        "macs_int8_share", cli_json_number(share(s)), "seconds", cli_json_number(s->seconds),
        "peak_bytes", (json_int_t)cli_peak_bytes(), "nodes", nodes, "notes", notes);
    return cli_json_print(root, complete);
}

static void print_float_nodes(const qn_report *report, bool all)
{
    enum { SHOWN = 12 };
    qn_report_node node;
    size_t n = 0;
    for (size_t i = 0; qn_report_node_at(report, i, &node); i++) {
        if (node.quantized)
            continue;
        if (n++ < SHOWN || all)
            printf("            %-18s %-24s %s\n", node.op, node.name,
                   node.reason != NULL ? node.reason : "");
    }
    if (n > SHOWN && !all)
        printf("            and %zu more (-v lists them)\n", n - SHOWN);
}

/* A very small model grows: scales and nodes weigh more than its weights. */
static void print_sizes(const summary *s)
{
    char a[32], b[32];
    const bool grew = s->int8_bytes > s->float_bytes;
    const double ratio = grew ? (double)s->int8_bytes / (double)s->float_bytes
                              : (double)s->float_bytes / (double)s->int8_bytes;
    printf("  size      %s -> %s (%.2f times %s)\n", cli_size_text(s->float_bytes, a),
           cli_size_text(s->int8_bytes, b), ratio, grew ? "larger" : "smaller");
}

static void print_methods(const qn_report *report)
{
    const char *const scheme = qn_report_method(report, "scheme");
    const char *const weights = qn_report_method(report, "weights");
    const char *const target = qn_report_method(report, "target");
    const char *const granularity = qn_report_method(report, "granularity");
    if (strcmp(scheme, "static") == 0)
        printf("  methods   features %s, weights %s, per %s, calibrated with %s, for %s\n",
               qn_report_method(report, "features"), weights, granularity,
               qn_report_method(report, "calibrate_with"), target);
    else if (strncmp(scheme, "dynamic", strlen("dynamic")) == 0)
        printf("  methods   activations at run time%s, weights %s, per %s, for %s\n",
               strcmp(scheme, "dynamic") == 0 ? "" : " by rows", weights, granularity, target);
    else
        printf("  methods   weights only, %s in blocks of %s, weights %s, for %s\n", scheme,
               qn_report_method(report, "weight_block"), weights, target);
}

/* What integers the products got. */
static const char *integers(const qn_report *report)
{
    const char *const scheme = qn_report_method(report, "scheme");
    return strstr(scheme, "int") != NULL ? scheme : "int8";
}

/* Runtimes fuse a DequantizeLinear of blocks less often than they run MatMulNBits. */
static qn_save_format format_of(const cli_options *options, const qn_report *report)
{
    const bool blocks = strstr(qn_report_method(report, "scheme"), "int") != NULL;
    return blocks && !options->has_format ? QN_SAVE_QOPERATOR : options->format;
}

static void print_summary(const cli_options *options, const qn_report *report, const summary *s)
{
    char c[32];
    printf("%s -> %s\n", cli_base_name(options->positional[0]),
           options->dry_run ? "(nothing written: --dry-run)" : options->output);
    for (size_t i = 0; qn_report_note(report, i) != NULL; i++)
        printf("  %s\n", qn_report_note(report, i));
    print_methods(report);
    if (s->int8_bytes > 0)
        print_sizes(s);
    printf("  %-9s %llu of %llu convolutions and gemms, %.1f %% of MACs\n", integers(report),
           (unsigned long long)s->n_gemm_int8, (unsigned long long)s->n_gemm, 100.0 * share(s));
    if (s->n_narrow > 0)
        printf("  7 bits    %llu %s with weights narrowed to stay exact on x86 without VNNI\n",
               (unsigned long long)s->n_narrow, s->n_narrow == 1 ? "layer" : "layers");
    if (s->n_float > 0) {
        printf("  float     %llu %s:\n", (unsigned long long)s->n_float,
               s->n_float == 1 ? "node" : "nodes");
        print_float_nodes(report, options->verbose);
    }
    printf("  cost      %.2f s, peak memory %s\n", s->seconds, cli_size_text(cli_peak_bytes(), c));
}

/* --- statistics --------------------------------------------------------------------------------*/
static bool only_statistics(const cli_options *options)
{
    return options->save_stats != NULL && options->output == NULL && !options->dry_run;
}

static int check_statistics(const cli_options *options, bool has_samples)
{
    const bool from_file = options->quantize.stats_file != NULL;
    if (from_file && (has_samples || options->save_stats != NULL || options->stats.resume))
        return cli_usage_error(
            "quantize: --stats takes the place of samples: it excludes --images, "
            "--data, --list, --labels, --save-stats and --resume");
    if (options->stats.n_parts > 1 && !only_statistics(options))
        return cli_usage_error(
            "quantize: --part needs --save-stats and no -o: the parts are merged "
            "first (quench merge-stats)");
    if ((options->save_stats != NULL || options->stats.resume) && !has_samples)
        return cli_usage_error("quantize: --save-stats and --resume need samples");
    if (options->stats.resume && options->save_stats == NULL && options->output == NULL)
        return cli_usage_error("quantize: --resume needs -o or --save-stats: what it goes on from "
                               "lies beside");
    return EXIT_OK;
}

static bool any_preprocessing(const qn_preprocess *p)
{
    return p->channels != QN_CHANNELS_RGB || p->filter != QN_FILTER_BILINEAR || p->n_mean > 0 ||
           p->n_normal > 0 || p->resize_shorter > 0 || p->resize_width > 0 || p->crop_width > 0 ||
           p->letterbox_width > 0;
}

/* Where statistics are kept, freed by the caller; *own: only until the model is written. */
static char *statistics_path(const cli_options *options, bool *own)
{
    const char *name = options->save_stats != NULL ? options->save_stats : options->output;
    const size_t bytes = strlen(name) + sizeof ".stats";
    char *path = malloc(bytes);
    *own = options->save_stats == NULL;
    if (path != NULL)
        snprintf(path, bytes, "%s%s", name, *own ? ".stats" : "");
    return path;
}

static int print_statistics(const cli_options *options, const qn_context *ctx)
{
    char *text = NULL;
    qn_error error = {0};
    if (options->quiet && !options->json)
        return EXIT_OK;
    if (qn_stats_describe(ctx, options->save_stats, options->json, &text, &error) != QN_OK)
        return cli_failed(&error);
    fwrite(text, 1, options->json || options->verbose ? strlen(text) : strcspn(text, "\n") + 1,
           stdout);
    qn_text_destroy(ctx, text);
    return EXIT_OK;
}

static int check_files(const cli_options *options)
{
    const bool has_samples = options->has_data_source || options->data.labels_file != NULL;
    if (options->n_positional != 1)
        return cli_usage_error("quantize: one model file is needed, %zu given",
                               options->n_positional);
    if (options->output == NULL && !options->dry_run && options->save_stats == NULL)
        return cli_usage_error("quantize: -o OUT is needed (or --dry-run)");
    if (options->quantize.recipe_file == NULL && options->quantize.stats_file == NULL &&
        options->quantize.ranges_file == NULL && options->quantize.scheme == NULL && !has_samples)
        return cli_usage_error("quantize: samples are needed: --images, --data, --list (or "
                               "--recipe with stored ranges, --ranges, --stats, --dynamic, "
                               "--weight-only)");
    return check_statistics(options, has_samples);
}

static bool same_outputs(const qn_model *a, const qn_model *b)
{
    qn_value_info x, y;
    bool same = qn_model_n_outputs(a) == qn_model_n_outputs(b);
    for (size_t i = 0; same && qn_model_output(a, i, &x) && qn_model_output(b, i, &y); i++)
        same = strcmp(x.name, y.name) == 0;
    return same;
}

/* Would --partial have left something of the file aside? whole: as it was loaded, or NULL. */
static bool partial_differs(const cli_options *options, const qn_context *ctx,
                            const qn_model *whole)
{
    qn_model *part = NULL;
    if (options->partial ||
        qn_model_load_partial(ctx, options->positional[0], &part, NULL) != QN_OK)
        return false;
    const bool differs = whole == NULL || !same_outputs(whole, part);
    qn_model_destroy(part);
    return differs;
}

static void tell_failure(const cli_options *options, const qn_context *ctx, const qn_model *whole,
                         qn_status status, const qn_error *error)
{
    if (status == QN_UNSUPPORTED && partial_differs(options, ctx, whole))
        cli_error("%s (--partial leaves that part as it is)", error->message);
    else
        cli_failed(error);
}

int cmd_quantize(const cli_options *options)
{
    int code = check_files(options);
    if (code != EXIT_OK)
        return code;
    if (options->output != NULL && cli_same_file(options->positional[0], options->output)) {
        cli_error("%s: the output is the model itself", options->output);
        return EXIT_FAILED;
    }
    const double started = cli_seconds();
    qn_context *ctx = NULL;
    code = cli_context(options, &ctx);
    if (code != EXIT_OK)
        return code;
    qn_model *model = NULL, *quantized = NULL;
    qn_dataset *dataset = NULL;
    qn_report *report = NULL;
    qn_error error = {0};
    summary result = {0};
    int64_t storage[CLI_MAX_INPUTS][QN_MODEL_MAX_RANK];
    char *kept = NULL; /* statistics */
    bool own = false;
    qn_quantize_options quantize = options->quantize;
    quantize.progress = cli_show_progress;
    quantize.progress_ctx = options->progress;

    code = EXIT_FAILED;
    qn_status status = (options->partial ? qn_model_load_partial : qn_model_load)(
        ctx, options->positional[0], &model, &error);
    if (status != QN_OK) {
        tell_failure(options, ctx, NULL, status, &error);
        goto done;
    }
    cli_say(options, "%-10s %.3f s", "read", cli_seconds() - started);
    code = cli_input_dims(options, model, storage, &quantize.input_dims);
    if (code != EXIT_OK)
        goto done;
    if (options->has_data_source || options->data.labels_file != NULL) {
        code = cli_dataset(options, ctx, model, &dataset);
        if (code != EXIT_OK)
            goto done;
    }
    if (options->save_stats != NULL || options->stats.resume) {
        code = EXIT_FAILED;
        kept = statistics_path(options, &own);
        if (kept == NULL ||
            qn_stats_collect(model, dataset, &quantize, &options->stats, kept, &error) != QN_OK)
            goto failed;
        if (only_statistics(options)) {
            code = print_statistics(options, ctx);
            goto done;
        }
        quantize.stats_file = kept;
        qn_dataset_destroy(dataset);
        dataset = NULL;
    } else if (quantize.stats_file != NULL && any_preprocessing(&options->data.preprocess)) {
        quantize.stats_preprocess = &options->data.preprocess;
    }
    code = EXIT_FAILED;
    status = qn_quantize(model, dataset, &quantize, &quantized, &report, &error);
    if (status != QN_OK) {
        tell_failure(options, ctx, model, status, &error);
        goto done;
    }
    if (options->requantize != QN_REQUANTIZE_DEFAULT &&
        qn_model_set_requantize(quantized, options->requantize, &error) != QN_OK)
        goto failed;
    const double writing = cli_seconds();
    if (!options->dry_run && qn_model_save(quantized, options->output, format_of(options, report),
                                           &result.int8_bytes, &error) != QN_OK)
        goto failed;
    if (options->save_recipe != NULL &&
        qn_text_save(ctx, options->save_recipe, qn_report_recipe(report), &error) != QN_OK)
        goto failed;
    cli_say(options, "%-10s %.3f s", "write", cli_seconds() - writing);
    if (own)
        unlink(kept);
    result.float_bytes = qn_model_file_bytes(model);
    result.seconds = cli_seconds() - started;
    count_nodes(report, &result);
    code = EXIT_OK;
    if (options->json)
        code = print_json(options, report, &result);
    else if (!options->quiet)
        print_summary(options, report, &result);
    goto done;
failed:
    cli_failed(&error);
done:
    free(kept);
    qn_report_destroy(report);
    qn_model_destroy(quantized);
    qn_dataset_destroy(dataset);
    qn_model_destroy(model);
    qn_context_destroy(ctx);
    return code;
}
