/* quench inspect: what is in a model. Of a compact file, which has a checksum, every byte is looked
 * at: commands that run it look at the structure alone. */
#include "cli.h"

#include <string.h>

static bool whole(const qn_context *ctx, const char *path, qn_error *error)
{
    const qn_status status = qn_model_verify_checksum(ctx, path, error);
    return status == QN_OK || status == QN_UNSUPPORTED; /* other formats have none */
}

/* The text without its last line, which sums up. */
static void print_nodes(const char *text)
{
    size_t length = strlen(text);
    if (length > 0 && text[length - 1] == '\n')
        length--;
    while (length > 0 && text[length - 1] != '\n')
        length--;
    fwrite(text, 1, length, stdout);
}

int cmd_inspect(const cli_options *options)
{
    if (options->n_positional != 1)
        return cli_usage_error("inspect: one model file is needed, %zu given",
                               options->n_positional);
    qn_context *ctx = NULL;
    int code = cli_context(options, &ctx);
    if (code != EXIT_OK)
        return code;
    qn_model *model = NULL;
    char *text = NULL;
    qn_error error = {0};
    code = EXIT_OK;
    const qn_status stats =
        qn_stats_describe(ctx, options->positional[0], options->json, &text, &error);
    if (stats == QN_OK)
        fputs(text, stdout);
    else if (stats != QN_INVALID_ARGUMENT && stats != QN_IO) /* a damaged one */
        code = cli_failed(&error);
    else if (qn_model_load(ctx, options->positional[0], &model, &error) != QN_OK ||
             !whole(ctx, options->positional[0], &error) ||
             qn_model_describe(model, options->json, &text, &error) != QN_OK)
        code = cli_failed(&error);
    else if (options->json)
        puts(text);
    else if (options->quiet)
        print_nodes(text);
    else
        fputs(text, stdout);
    qn_text_destroy(ctx, text);
    qn_model_destroy(model);
    qn_context_destroy(ctx);
    return code;
}
