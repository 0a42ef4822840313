#include "cli.h"
#include "core/nearest.h"
#include "interrupt.h"
#include "progress.h"
#include "streams.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>

static void print_line(const char *kind, const char *format, va_list args)
{
    cli_print_kind(kind);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
}

void cli_error(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    print_line("error", format, args);
    va_end(args);
}

int cli_usage_error(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    print_line("error", format, args);
    va_end(args);
    return EXIT_USAGE;
}

int cli_failed(const qn_error *error)
{
    cli_error("%s", error->message);
    return EXIT_FAILED;
}

void cli_say(const cli_options *options, const char *format, ...)
{
    if (!options->verbose || options->quiet)
        return;
    va_list args;
    cli_clear_status();
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
}

static void log_to_stderr(void *ctx, qn_log_level level, const char *line)
{
    const cli_options *const options = ctx;
    if (level == QN_LOG_WARNING) {
        /* every model of one command reads the same samples: say what is wrong with them once */
        static char last[1024];
        if (strncmp(last, line, sizeof last - 1) != 0) {
            cli_print_kind("warning");
            fprintf(stderr, "%s\n", line);
        }
        snprintf(last, sizeof last, "%s", line);
    } else {
        cli_say(options, "%s", line);
    }
}

int cli_context(const cli_options *options, qn_context **out)
{
    qn_context_options context;
    qn_io io;
    qn_context_options_init(&context);
    cli_handle_interrupts(&io);
    context.io = &io;
    context.log = log_to_stderr;
    context.log_ctx = (void *)options;
    context.progress = cli_show_progress;
    context.progress_ctx = options->progress;
    context.n_threads = options->threads;
    context.cpu_mask = options->cpu_mask != NULL ? options->cpu_mask : getenv("QN_CPU_MASK");
    qn_error error;
    const qn_status status = qn_context_create(&context, out, &error);
    if (status == QN_OK)
        return EXIT_OK;
    cli_error("%s", error.message);
    return status == QN_INVALID_ARGUMENT ? EXIT_USAGE : EXIT_FAILED;
}

int cli_input_dims(const cli_options *options, const qn_model *model,
                   int64_t storage[CLI_MAX_INPUTS][QN_MODEL_MAX_RANK],
                   const int64_t (**dims)[QN_MODEL_MAX_RANK])
{
    *dims = NULL;
    if (options->n_input_shapes == 0)
        return EXIT_OK;
    const size_t n = qn_model_n_inputs(model);
    if (n > CLI_MAX_INPUTS) {
        cli_error("%s: --input-shape: more than %d inputs", qn_model_path(model), CLI_MAX_INPUTS);
        return EXIT_FAILED;
    }
    bool used[CLI_MAX_INPUTS] = {false};
    for (size_t i = 0; i < n; i++) {
        qn_value_info info;
        qn_model_input(model, i, &info);
        for (uint32_t d = 0; d < info.rank; d++)
            storage[i][d] = info.dims[d];
        for (size_t s = 0; s < options->n_input_shapes; s++) {
            if (strcmp(options->input_shapes[s].name, info.name) != 0)
                continue;
            used[s] = true;
            if (options->input_shapes[s].rank != info.rank) {
                cli_error("%s: --input-shape %s: %u dimensions, the model has %u",
                          qn_model_path(model), info.name, options->input_shapes[s].rank,
                          info.rank);
                return EXIT_FAILED;
            }
            for (uint32_t d = 0; d < info.rank; d++) {
                if (info.dims[d] >= 0 && info.dims[d] != options->input_shapes[s].dims[d]) {
                    cli_error("%s: --input-shape %s: dimension %u is %lld, in the model %lld",
                              qn_model_path(model), info.name, d,
                              (long long)options->input_shapes[s].dims[d], (long long)info.dims[d]);
                    return EXIT_FAILED;
                }
            }
            memcpy(storage[i], options->input_shapes[s].dims, info.rank * sizeof storage[i][0]);
        }
    }
    for (size_t s = 0; s < options->n_input_shapes; s++) {
        if (!used[s]) {
            char guess[600];
            qn_nearest nearest;
            qn_value_info info;
            qn__nearest_init(&nearest, options->input_shapes[s].name,
                             strlen(options->input_shapes[s].name));
            for (size_t i = 0; qn_model_input(model, i, &info); i++)
                qn__nearest_try(&nearest, info.name);
            cli_error("%s: --input-shape: no input is named \"%s\"%s", qn_model_path(model),
                      options->input_shapes[s].name,
                      qn__nearest_text(&nearest, guess, sizeof guess));
            return EXIT_FAILED;
        }
    }
    *dims = (const int64_t(*)[QN_MODEL_MAX_RANK])storage;
    return EXIT_OK;
}

int cli_dataset(const cli_options *options, const qn_context *ctx, const qn_model *model,
                qn_dataset **out)
{
    qn_error error;
    qn_dataset_options data = options->data;
    int64_t storage[CLI_MAX_INPUTS][QN_MODEL_MAX_RANK];
    const int code = cli_input_dims(options, model, storage, &data.input_dims);
    if (code != EXIT_OK)
        return code;
    if (qn_dataset_create(ctx, model, &data, out, &error) != QN_OK)
        return cli_failed(&error);
    if (options->save_list != NULL &&
        qn_dataset_save_list(*out, options->save_list, &error) != QN_OK) {
        qn_dataset_destroy(*out);
        *out = NULL;
        return cli_failed(&error);
    }
    return EXIT_OK;
}

double cli_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

uint64_t cli_peak_bytes(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (uint64_t)usage.ru_maxrss * 1024;
}

const char *cli_base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

const char *cli_size_text(uint64_t bytes, char buffer[32])
{
    if (bytes < 10 * 1024)
        snprintf(buffer, 32, "%llu B", (unsigned long long)bytes);
    else if (bytes < 10 * 1024 * 1024)
        snprintf(buffer, 32, "%.1f KiB", (double)bytes / 1024);
    else
        snprintf(buffer, 32, "%.1f MiB", (double)bytes / (1024 * 1024));
    return buffer;
}

bool cli_same_file(const char *a, const char *b)
{
    struct stat sa, sb;
    return stat(a, &sa) == 0 && stat(b, &sb) == 0 && sa.st_dev == sb.st_dev &&
           sa.st_ino == sb.st_ino;
}
