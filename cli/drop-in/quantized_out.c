/* quantized.out SRC.mnn DST.mnn CONFIG.json: MNN's offline quantizer under its own name. */
#include "quench/mnn.h"

#include "interrupt.h"
#include "streams.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

static void print_text(void *ctx, const char *text)
{
    (void)ctx;
    fputs(text, stdout);
    fflush(stdout);
}

static void print_log(void *ctx, qn_log_level level, const char *line)
{
    (void)ctx;
    if (level == QN_LOG_WARNING)
        fprintf(stderr, "warning: %s\n", line);
}

static int print_usage(void)
{
    struct tm now = {0};
    const time_t seconds = time(NULL);
    localtime_r(&seconds, &now);
    printf("[%02d:%02d:%02d] @ 1719: Usage: ./quantized.out src.mnn dst.mnn preTreatConfig.json\n",
           now.tm_hour, now.tm_min, now.tm_sec);
    return cli_close_output(EXIT_USAGE);
}

int main(int argc, char **argv)
{
    const char *files[3] = {NULL};
    size_t n_files = 0;
    cli_open_streams();
    qn_mnn_options options;
    qn_mnn_options_init(&options);
    options.print = print_text;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--exact-mnn") == 0)
            options.exact = "all";
        else if (strncmp(argv[i], "--exact-mnn=", 12) == 0)
            options.exact = argv[i] + 12;
        else if (strncmp(argv[i], "--", 2) == 0) {
            fprintf(stderr, "error: unknown option \"%s\" (there is --exact-mnn[=LIST])\n",
                    argv[i]);
            return EXIT_USAGE;
        } else if (n_files < 3)
            files[n_files++] = argv[i]; /* more are ignored, as ever */
    }
    if (n_files < 3)
        return print_usage();
    qn_context_options context_options;
    qn_context_options_init(&context_options);
    qn_io io;
    cli_handle_interrupts(&io);
    context_options.io = &io;
    context_options.log = print_log;
    context_options.cpu_mask = getenv("QN_CPU_MASK");
    const char *threads = getenv("QN_THREADS");
    if (threads != NULL)
        context_options.n_threads = (uint32_t)strtoul(threads, NULL, 10);
    qn_context *ctx = NULL;
    qn_error error;
    qn_status status = qn_context_create(&context_options, &ctx, &error);
    if (status == QN_OK)
        status = qn_mnn_quantize(ctx, files[0], files[1], files[2], &options, &error);
    fflush(stdout);
    if (status != QN_OK)
        fprintf(stderr, "error: %s\n", error.message);
    qn_context_destroy(ctx);
    return cli_close_output(status == QN_OK ? EXIT_OK : EXIT_FAILED);
}
