/* quench eval: accuracy, size and time of any number of models on labelled samples. */
#include "cli.h"
#include "json.h"

#include <stdlib.h>
#include <string.h>

static json_t *row_json(const char *file, uint64_t bytes, const qn_evaluation *e, bool first)
{
    const double n = e->n > 0 ? (double)e->n : 1.0;
    return json_pack("{s:o, s:I, s:o, s:o, s:[o,o], s:o, s:o, s:I, s:o}", "file",
                     cli_json_text(file), "n", (json_int_t)e->n, "top1",
                     cli_json_number((double)e->top1 / n), "top5",
                     cli_json_number((double)e->top5 / n), "ci95", cli_json_number(e->ci95_lo),
                     cli_json_number(e->ci95_hi), "changed",
                     first ? json_integer(0) : json_integer((json_int_t)e->changed), "agreement",
                     first ? json_real(1.0) : cli_json_number(e->agreement), "bytes",
                     (json_int_t)bytes, "ms", cli_json_number(e->ms));
}

enum { WIDEST_NAME = 60 };

/* Models are shown without their folders, unless that would make two of them look the same; of a
 * long name the end. */
static const char *shown_name(const cli_options *o, size_t index)
{
    const char *name = cli_base_name(o->positional[index]);
    bool twin = false;
    for (size_t i = 0; i < o->n_positional; i++)
        twin |= i != index && strcmp(cli_base_name(o->positional[i]), name) == 0;
    name = twin ? o->positional[index] : name;
    const size_t length = strlen(name);
    return length > WIDEST_NAME ? name + length - WIDEST_NAME : name;
}

static int name_width(const cli_options *o)
{
    size_t widest = strlen("model");
    for (size_t i = 0; i < o->n_positional; i++) {
        const size_t length = strlen(shown_name(o, i));
        widest = length > widest ? length : widest;
    }
    return (int)widest;
}

static void print_row(const char *file, int width, uint64_t bytes, const qn_evaluation *e,
                      bool first)
{
    char size[32], agreement[32] = "-", changed[32] = "-";
    const double n = e->n > 0 ? (double)e->n : 1.0;
    if (!first) {
        snprintf(agreement, sizeof agreement, "%.2f %%", 100.0 * e->agreement);
        snprintf(changed, sizeof changed, "%llu", (unsigned long long)e->changed);
    }
    printf("%-*s %7.2f %%  %6.2f .. %6.2f %7.2f %% %10s %8s %11s %9.2f\n", width, file,
           100.0 * (double)e->top1 / n, 100.0 * e->ci95_lo, 100.0 * e->ci95_hi,
           100.0 * (double)e->top5 / n, agreement, changed, cli_size_text(bytes, size), e->ms);
}

/* Evaluates one model; reference predictions are filled by the first. */
static int eval_one(const cli_options *options, const qn_context *ctx, const char *path,
                    int64_t **reference, qn_evaluation *out, uint64_t *bytes)
{
    qn_model *model = NULL;
    qn_dataset *dataset = NULL;
    qn_error error = {0};
    int64_t storage[CLI_MAX_INPUTS][QN_MODEL_MAX_RANK];
    qn_session_options session;
    qn_session_options_init(&session);
    session.saturate16 = options->saturate16;
    session.requantize = options->requantize;
    int code = EXIT_FAILED;
    if (qn_model_load(ctx, path, &model, &error) != QN_OK)
        return cli_failed(&error);
    code = cli_input_dims(options, model, storage, &session.input_dims);
    if (code == EXIT_OK)
        code = cli_dataset(options, ctx, model, &dataset);
    if (code != EXIT_OK)
        goto done;
    const size_t n = qn_dataset_count(dataset);
    const bool first = *reference == NULL;
    if (first)
        *reference = calloc(n > 0 ? n : 1, sizeof **reference);
    if (*reference == NULL) {
        cli_error("out of memory");
        code = EXIT_FAILED;
        goto done;
    }
    if (qn_evaluate(model, dataset, &session, first ? NULL : *reference, first ? *reference : NULL,
                    out, &error) != QN_OK)
        code = cli_failed(&error);
    *bytes = qn_model_file_bytes(model);
done:
    qn_dataset_destroy(dataset);
    qn_model_destroy(model);
    return code;
}

int cmd_eval(const cli_options *options)
{
    if (options->n_positional == 0)
        return cli_usage_error("eval: model files are needed");
    if (options->data.labels_file == NULL)
        return cli_usage_error("eval: --labels CSV is needed");
    qn_context *ctx = NULL;
    int code = cli_context(options, &ctx);
    if (code != EXIT_OK)
        return code;
    int64_t *reference = NULL;
    json_t *rows = json_array();
    bool complete = true;
    const int width = name_width(options);
    code = EXIT_OK;
    cli_options again = *options; /* save the list once only */
    for (size_t i = 0; i < options->n_positional && code == EXIT_OK; i++) {
        qn_evaluation result;
        uint64_t bytes = 0;
        code = eval_one(&again, ctx, options->positional[i], &reference, &result, &bytes);
        if (code != EXIT_OK)
            break;
        again.save_list = NULL;
        if (options->json) {
            cli_json_append(rows, row_json(options->positional[i], bytes, &result, i == 0),
                            &complete);
            continue;
        }
        if (i == 0 && !options->quiet) {
            printf("%llu samples; agreement and changed answers are against the first model\n",
                   (unsigned long long)result.n);
            printf("%-*s %9s  %16s %9s %10s %8s %11s %9s\n", width, "model", "top-1",
                   "95 % interval", "top-5", "agreement", "changed", "size", "ms each");
        }
        print_row(shown_name(options, i), width, bytes, &result, i == 0);
        fflush(stdout);
    }
    if (options->json && code == EXIT_OK)
        code = cli_json_print(json_pack("{s:O}", "models", rows), complete);
    json_decref(rows);
    free(reference);
    qn_context_destroy(ctx);
    return code;
}
