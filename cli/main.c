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
     "calibrate and quantize a float model"},
    {"eval", CMD_EVAL, cmd_eval, "MODEL... --labels labels.csv",
     "top-1, top-5, agreement, size and time, a row for each model"},
    {"compare", CMD_COMPARE, cmd_compare, "FLOAT QUANTIZED [--images DIR]",
     "every tensor of both models against each other, worst first"},
    {"run", CMD_RUN, cmd_run, "MODEL INPUT...",
     "one inference: inputs, outputs, time, top answers"},
    {"inspect", CMD_INSPECT, cmd_inspect, "MODEL", "inputs, outputs, nodes, shapes, sizes"},
    {"bench", CMD_BENCH, cmd_bench, "MODEL", "latency, profile by layer, memory"},
};
enum { N_COMMANDS = sizeof commands / sizeof commands[0] };

static void print_commands(FILE *out)
{
    fprintf(out, "usage: quench COMMAND [options]\n\n");
    for (size_t i = 0; i < N_COMMANDS; i++)
        fprintf(out, "  %-9s %s\n", commands[i].name, commands[i].summary);
    fprintf(out, "\nquench COMMAND --help lists a command's options; quench --version.\n");
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
        if (cli_parse(argc - 2, argv + 2, commands[i].bit, &options)) {
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
