/* quench convert: the same model in another format. */
#include "cli.h"
#include "json.h"

#include <string.h>
#include <strings.h>

static int report(const cli_options *options, uint64_t source_bytes, uint64_t bytes)
{
    char a[32], b[32];
    if (options->json) {
        json_t *root = json_pack("{s:o, s:I, s:I}", "file", cli_json_text(options->output), "bytes",
                                 (json_int_t)bytes, "source_bytes", (json_int_t)source_bytes);
        return cli_json_print(root, true);
    }
    if (!options->quiet)
        printf("%s -> %s\n  size      %s -> %s\n", cli_base_name(options->positional[0]),
               options->output, cli_size_text(source_bytes, a), cli_size_text(bytes, b));
    return EXIT_OK;
}

static bool is_compact(const char *path)
{
    const char *dot = strrchr(path, '.');
    return dot != NULL && strcasecmp(dot, ".qnm") == 0;
}

static int save(const cli_options *options, qn_model *model, uint64_t *bytes)
{
    qn_error error = {0};
    if (options->requantize != QN_REQUANTIZE_DEFAULT &&
        qn_model_set_requantize(model, options->requantize, &error) != QN_OK)
        return cli_failed(&error);
    if (!is_compact(options->output))
        return qn_model_save(model, options->output, options->format, bytes, &error) == QN_OK
                   ? EXIT_OK
                   : cli_failed(&error);
    int64_t storage[CLI_MAX_INPUTS][QN_MODEL_MAX_RANK];
    qn_compact_options compact;
    qn_compact_options_init(&compact);
    compact.batch = options->batch;
    compact.packed = options->packed;
    compact.strip_names = options->strip_names;
    const int code = cli_input_dims(options, model, storage, &compact.input_dims);
    if (code != EXIT_OK)
        return code;
    const qn_status status = qn_model_save_compact(model, options->output, &compact, bytes, &error);
    if (status == QN_OK)
        return EXIT_OK;
    cli_failed(&error);
    return status == QN_INVALID_ARGUMENT ? EXIT_USAGE : EXIT_FAILED;
}

/* Of files with other names the format would be the source's: a copy, and not what was meant. */
static bool names_format(const char *path)
{
    const char *dot = strrchr(path, '.');
    return dot != NULL &&
           (strcasecmp(dot, ".onnx") == 0 || strcasecmp(dot, ".mnn") == 0 || is_compact(path));
}

int cmd_convert(const cli_options *options)
{
    if (options->n_positional != 1)
        return cli_usage_error("convert: one model file is needed, %zu given",
                               options->n_positional);
    if (options->output == NULL)
        return cli_usage_error("convert: -o OUT is needed");
    if (!names_format(options->output))
        return cli_usage_error("convert: %s: the name must end in .onnx, .mnn or .qnm",
                               options->output);
    if (!is_compact(options->output) && (options->packed != NULL || options->strip_names ||
                                         options->n_input_shapes > 0 || options->batch != 1))
        return cli_usage_error("convert: --packed, --strip-names, --input-shape and --batch are "
                               "for .qnm files");
    if (cli_same_file(options->positional[0], options->output)) {
        cli_error("%s: the output is the model itself", options->output);
        return EXIT_FAILED;
    }
    qn_context *ctx = NULL;
    int code = cli_context(options, &ctx);
    if (code != EXIT_OK)
        return code;
    qn_model *model = NULL;
    qn_error error = {0};
    uint64_t bytes = 0;
    if (qn_model_load(ctx, options->positional[0], &model, &error) != QN_OK)
        code = cli_failed(&error);
    else
        code = save(options, model, &bytes);
    if (code == EXIT_OK)
        code = report(options, qn_model_file_bytes(model), bytes);
    qn_model_destroy(model);
    qn_context_destroy(ctx);
    return code;
}
