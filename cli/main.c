/* quench - the command line tool. Each command is one file, cmd_NAME.c. */
#include "cli.h"
#include "progress.h"
#include "core/nearest.h"
#include "response.h"
#include "streams.h"

#include <string.h>

static const struct {
    const char *name;
    unsigned bit;
    int (*run)(const cli_options *options);
    const char *usage, *summary;
} commands[] = {
#define CLI_COMMAND(name, bit, function, usage, summary) {name, bit, function, usage, summary},
#include "commands.def"
#undef CLI_COMMAND
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
                 "version; @FILE stands for the lines of FILE.\n");
}

static int find_command(const char *name)
{
    for (size_t i = 0; i < N_COMMANDS; i++)
        if (strcmp(name, commands[i].name) == 0)
            return (int)i;
    char guess[64];
    qn_nearest nearest;
    qn__nearest_init(&nearest, name, strlen(name));
    for (size_t i = 0; i < N_COMMANDS; i++)
        qn__nearest_try(&nearest, commands[i].name);
    if (nearest.best != NULL)
        cli_usage_error("unknown command \"%s\"%s", name,
                        qn__nearest_text(&nearest, guess, sizeof guess));
    else
        cli_usage_error("unknown command \"%s\" (see quench --help)", name);
    return -1;
}

static void print_help(size_t index)
{
    cli_print_help(stdout, commands[index].bit, commands[index].name, commands[index].usage,
                   commands[index].summary);
}

static int run_command(size_t index, int argc, char **argv)
{
    static cli_options options;
    cli_progress progress = {0};
    response arguments;
    int code = EXIT_USAGE;
    if (!response_expand(argc, argv, &arguments)) {
        code = arguments.code;
    } else if (cli_parse(arguments.argc, arguments.argv, commands[index].bit, commands[index].name,
                         &options)) {
        code = EXIT_OK;
        progress.quiet = options.quiet;
        options.progress = &progress;
        if (options.help)
            print_help(index);
        else
            code = commands[index].run(&options);
    }
    cli_options_free(&options);
    response_free(&arguments);
    return code;
}

static bool is_one_of(const char *word, const char *a, const char *b, const char *c)
{
    return strcmp(word, a) == 0 || strcmp(word, b) == 0 || strcmp(word, c) == 0;
}

int main(int argc, char **argv)
{
    cli_open_streams();
    if (argc < 2) {
        print_commands(stderr);
        return EXIT_USAGE;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("quench %s\n", QN_VERSION_STRING);
        return cli_close_output(EXIT_OK);
    }
    const bool help = is_one_of(argv[1], "--help", "-h", "help");
    if (help && argc < 3) {
        print_commands(stdout);
        return cli_close_output(EXIT_OK);
    }
    const int index = find_command(argv[help ? 2 : 1]);
    if (index < 0)
        return EXIT_USAGE;
    if (!help)
        return cli_close_output(run_command((size_t)index, argc - 2, argv + 2));
    print_help((size_t)index);
    return cli_close_output(EXIT_OK);
}
