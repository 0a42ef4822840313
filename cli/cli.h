/* What the commands share: options, messages, exit codes. The CLI uses public headers only, but for
 * core/nearest.h. */
#ifndef QN_CLI_H
#define QN_CLI_H

#include "quench/quantize.h"

#include <stdio.h>

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

enum {
    CMD_QUANTIZE = 1 << 0,
    CMD_EVAL = 1 << 1,
    CMD_COMPARE = 1 << 2,
    CMD_RUN = 1 << 3,
    CMD_INSPECT = 1 << 4,
    CMD_BENCH = 1 << 5,
    CMD_CONVERT = 1 << 6,
    CMD_MERGE_STATS = 1 << 7,
    CMD_DATA = CMD_QUANTIZE | CMD_EVAL | CMD_COMPARE | CMD_RUN, /* commands that read samples */
    CMD_ALL = CMD_DATA | CMD_INSPECT | CMD_BENCH | CMD_CONVERT | CMD_MERGE_STATS
};

enum { CLI_MAX_POSITIONAL = 64, CLI_MAX_OVERRIDES = 256, CLI_MAX_INPUTS = 16 };

typedef struct cli_options {
    const char *positional[CLI_MAX_POSITIONAL];
    size_t n_positional;
    const char *output;
    qn_dataset_options data;
    bool has_data_source;
    bool has_format;
    const char *save_list, *save_recipe, *save_stats;
    qn_stats_options stats;
    qn_quantize_options quantize;
    qn_override overrides[CLI_MAX_OVERRIDES];
    char *owned[CLI_MAX_OVERRIDES]; /* copies that overrides point into */
    size_t n_overrides, n_owned;
    qn_save_format format;
    qn_requantize requantize;
    struct cli_progress *progress; /* main's; shown unless --quiet */
    bool dry_run, json, verbose, quiet, saturate16, per_layer, strip_names, partial;
    uint32_t threads;
    int64_t batch;
    struct {
        const char *name; /* points into owned */
        uint32_t rank;
        int64_t dims[QN_MODEL_MAX_RANK];
    } input_shapes[CLI_MAX_INPUTS];
    size_t n_input_shapes;
    uint32_t top, rounds;
    const char *labels_text;
    const char *cpu_mask;
    const char *packed;
    bool help;
} cli_options;

/* A row of options.def. */
typedef struct cli_option_row {
    const char *name;
    char letter;
    const char *argument; /* NULL: takes none */
    unsigned commands;
    const char *group, *help;
    bool (*apply)(cli_options *o, const char *value);
} cli_option_row;
const cli_option_row *cli_option_at(size_t index); /* NULL past the end */

/* Parses argv after the command's name. False: an error was printed, exit 2. */
bool cli_parse(int argc, char **argv, unsigned command, const char *command_name, cli_options *out);
void cli_options_free(cli_options *options);
void cli_print_help(FILE *out, unsigned command, const char *name, const char *usage,
                    const char *summary);

void cli_error(const char *format, ...) QN_PRINTF(1, 2);
int cli_usage_error(const char *format, ...) QN_PRINTF(1, 2); /* prints, returns EXIT_USAGE */
/* A line of -v. */
void cli_say(const cli_options *options, const char *format, ...) QN_PRINTF(2, 3);
int cli_failed(const qn_error *error); /* prints, returns EXIT_FAILED */

/* Context with log and threads as the options ask; an exit code after printing the reason. */
int cli_context(const cli_options *options, qn_context **out);
/* Dims per model input from --input-shape, or NULL in *dims when none was given. */
int cli_input_dims(const cli_options *options, const qn_model *model,
                   int64_t storage[CLI_MAX_INPUTS][QN_MODEL_MAX_RANK],
                   const int64_t (**dims)[QN_MODEL_MAX_RANK]);
/* Opens the samples that the options name. */
int cli_dataset(const cli_options *options, const qn_context *ctx, const qn_model *model,
                qn_dataset **out);
double cli_seconds(void);
uint64_t cli_peak_bytes(void);
/* Writing the output would replace the model it is made from. */
bool cli_same_file(const char *a, const char *b);
const char *cli_base_name(const char *path);
/* "1.23 MiB" into buffer, returned. */
const char *cli_size_text(uint64_t bytes, char buffer[32]);

int cmd_quantize(const cli_options *options);
int cmd_eval(const cli_options *options);
int cmd_compare(const cli_options *options);
int cmd_run(const cli_options *options);
int cmd_inspect(const cli_options *options);
int cmd_bench(const cli_options *options);
int cmd_convert(const cli_options *options);
int cmd_merge_stats(const cli_options *options);

#endif
