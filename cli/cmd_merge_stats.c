/* quench merge-stats: statistics of parts of the samples become those of all. */
#include "cli.h"
#include "json.h"

int cmd_merge_stats(const cli_options *options)
{
    if (options->n_positional == 0)
        return cli_usage_error("merge-stats: statistics files are needed");
    if (options->output == NULL)
        return cli_usage_error("merge-stats: -o OUT is needed");
    qn_context *ctx = NULL;
    int code = cli_context(options, &ctx);
    if (code != EXIT_OK)
        return code;
    char *text = NULL;
    qn_error error = {0};
    if (qn_stats_merge(ctx, options->positional, options->n_positional, options->output, &error) !=
            QN_OK ||
        qn_stats_describe(ctx, options->output, options->json, &text, &error) != QN_OK)
        code = cli_failed(&error);
    else if (!options->quiet || options->json)
        fputs(text, stdout);
    qn_text_destroy(ctx, text);
    qn_context_destroy(ctx);
    return code;
}
