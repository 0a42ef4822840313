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

/* Of files with other names the format would be the source's: a copy, and not what was meant. */
static bool names_format(const char *path)
{
    const char *dot = strrchr(path, '.');
    return dot != NULL && (strcasecmp(dot, ".onnx") == 0 || strcasecmp(dot, ".mnn") == 0);
}

int cmd_convert(const cli_options *options)
{
    if (options->n_positional != 1)
        return cli_usage_error("convert: one model file is needed, %zu given",
                               options->n_positional);
    if (options->output == NULL)
        return cli_usage_error("convert: -o OUT is needed");
    if (!names_format(options->output))
        return cli_usage_error("convert: %s: the name must end in .onnx or .mnn", options->output);
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
    if (qn_model_load(ctx, options->positional[0], &model, &error) != QN_OK ||
        qn_model_save(model, options->output, options->format, &bytes, &error) != QN_OK)
        code = cli_failed(&error);
    else
        code = report(options, qn_model_file_bytes(model), bytes);
    qn_model_destroy(model);
    qn_context_destroy(ctx);
    return code;
}
