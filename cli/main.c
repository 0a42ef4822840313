/* quench - the command line tool. Each command is one file, cmd_NAME.c. */
#include "cli.h"

#include <signal.h>
#include <string.h>

static const struct {
    const char *name;
    unsigned bit;
    int (*run)(const cli_options *options);
    const char *usage, *summary;
} commands[] = {
    {"quantize", CMD_QUANTIZE, cmd_quantize,
     "MODEL -o OUT [--images DIR | --data FILE | --list FILE]",
     "make a float model int8: read, calibrate on samples, quantize, write"},
    {"eval", CMD_EVAL, cmd_eval, "MODEL... --labels labels.csv",
     "accuracy on labelled samples, agreement, size and time: a row for each model"},
    {"compare", CMD_COMPARE, cmd_compare, "FLOAT QUANTIZED [--images DIR]",
     "where the quantized model departs from the float one, tensor by tensor, worst first"},
    {"run", CMD_RUN, cmd_run, "MODEL INPUT...",
     "run pictures or tensors through a model: outputs, time, best answers"},
    {"inspect", CMD_INSPECT, cmd_inspect, "MODEL",
     "what is in a model: inputs, outputs, nodes, shapes, types, sizes; or in a statistics file"},
    {"bench", CMD_BENCH, cmd_bench, "MODEL...", "latency on this machine, time by layer, memory"},
    {"convert", CMD_CONVERT, cmd_convert, "MODEL -o OUT",
     "write a model in the format that OUT's extension names: .onnx, .mnn or .qnm"},
    {"merge-stats", CMD_MERGE_STATS, cmd_merge_stats, "STATS... -o OUT",
     "add statistics of parts of the samples (quantize --save-stats) to those of all"},
};
enum { N_COMMANDS = sizeof commands / sizeof commands[0] };

static void print_commands(FILE *out)
{
    fprintf(out,
            "usage: quench COMMAND [options]\n\n"
            "Makes a trained float network (ONNX, MNN) an int8 one, and shows what that cost.\n\n");
    for (size_t i = 0; i < N_COMMANDS; i++)
        fprintf(out, "  %-11s %s\n", commands[i].name, commands[i].summary);
    fprintf(out, "\nFor example:\n"
                 "  quench quantize model.onnx -o model.int8.onnx --images pictures --mean 127.5 "
                 "--normal 0.00784\n"
                 "  quench eval model.onnx model.int8.onnx --labels labels.csv --mean 127.5 "
                 "--normal 0.00784\n"
                 "\nquench COMMAND --help lists the options of a command, quench --version the "
                 "version.\n");
}

int main(int argc, char **argv)
{
    /* A closed pipe or a file at its size limit is a failed write, reported like any other. */
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
    if (argc < 2) {
        print_commands(stderr);
        return EXIT_USAGE;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("quench %s\n", QN_VERSION_STRING);
        return EXIT_OK;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
        strcmp(argv[1], "help") == 0) {
        print_commands(stdout);
        return EXIT_OK;
    }
    for (size_t i = 0; i < N_COMMANDS; i++) {
        if (strcmp(argv[1], commands[i].name) != 0)
            continue;
        static cli_options options;
        int code = EXIT_USAGE;
        if (cli_parse(argc - 2, argv + 2, commands[i].bit, commands[i].name, &options)) {
            if (options.help) {
                cli_print_help(stdout, commands[i].bit, commands[i].name, commands[i].usage,
                               commands[i].summary);
                code = EXIT_OK;
            } else {
                code = commands[i].run(&options);
            }
        }
        cli_options_free(&options);
        if (fflush(stdout) != 0 || ferror(stdout) != 0) {
            cli_error("cannot write to standard output");
            return EXIT_FAILED;
        }
        return code;
    }
    return cli_usage_error("unknown command \"%s\" (see quench --help)", argv[1]);
}
