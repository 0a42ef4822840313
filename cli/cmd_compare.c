/* quench compare: where the quantized model departs from the float one. */
#include "cli.h"
#include "json.h"

#include <math.h>

static int print_json(const qn_comparison *comparison)
{
    json_t *rows = json_array();
    bool complete = true;
    qn_compare_row row;
    for (size_t i = 0; qn_comparison_row(comparison, i, &row); i++)
        cli_json_append(
            rows,
            json_pack(
                "{s:o, s:o, s:o, s:o, s:o, s:o, s:{s:o, s:o}}", "name", cli_json_text(row.name),
                "node", cli_json_text(row.node), "cosine", cli_json_number(row.cosine), "sqnr_db",
                cli_json_number(row.sqnr_db), "max_abs", cli_json_number(row.max_abs), "overflow",
                cli_json_number(row.overflow), "alone", "cosine", cli_json_number(row.alone_cosine),
                "sqnr_db", cli_json_number(row.alone_sqnr_db)),
            &complete);
    return cli_json_print(json_pack("{s:o}", "tensors", rows), complete);
}

#define NO_ERROR_DB 200.0 /* what the library says when there is no error at all */

static void print_db(double value)
{
    if (value < NO_ERROR_DB)
        printf(" %8.2f", value);
    else
        printf(" %8s", isnan(value) ? "-" : "exact");
}

static void print_table(const qn_comparison *comparison, bool heading)
{
    if (heading)
        printf("%-36s %-28s %10s %8s %10s %9s %10s %8s\n", "tensor", "node", "cosine", "SQNR dB",
               "max error", "overflow", "alone", "SQNR dB");
    qn_compare_row row;
    for (size_t i = 0; qn_comparison_row(comparison, i, &row); i++) {
        printf("%-36.36s %-28.28s %10.6f", row.name, row.node, row.cosine);
        print_db(row.sqnr_db);
        printf(" %10.4g %8.3f %%", row.max_abs, 100.0 * row.overflow);
        if (isnan(row.alone_cosine))
            printf(" %10s", "-");
        else
            printf(" %10.6f", row.alone_cosine);
        print_db(row.alone_sqnr_db);
        putchar('\n');
    }
}

int cmd_compare(const cli_options *options)
{
    if (options->n_positional != 2)
        return cli_usage_error("compare: a float and a quantized model are needed, %zu given",
                               options->n_positional);
    if (!options->has_data_source && options->data.labels_file == NULL)
        return cli_usage_error("compare: samples are needed: --images, --data or --list");
    qn_context *ctx = NULL;
    int code = cli_context(options, &ctx);
    if (code != EXIT_OK)
        return code;
    qn_model *model = NULL, *quantized = NULL;
    qn_dataset *dataset = NULL;
    qn_comparison *comparison = NULL;
    qn_error error = {0};
    code = EXIT_FAILED;
    if (qn_model_load(ctx, options->positional[0], &model, &error) != QN_OK ||
        qn_model_load(ctx, options->positional[1], &quantized, &error) != QN_OK) {
        cli_failed(&error);
        goto done;
    }
    code = cli_dataset(options, ctx, model, &dataset);
    if (code != EXIT_OK)
        goto done;
    if (qn_compare(model, quantized, dataset, &comparison, &error) != QN_OK) {
        code = cli_failed(&error);
        goto done;
    }
    if (options->json)
        code = print_json(comparison);
    else
        print_table(comparison, !options->quiet);
done:
    qn_comparison_destroy(comparison);
    qn_dataset_destroy(dataset);
    qn_model_destroy(quantized);
    qn_model_destroy(model);
    qn_context_destroy(ctx);
    return code;
}
