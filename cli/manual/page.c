/* quench(1) for man. */
#include "manual.h"

#include <ctype.h>
#include <string.h>

/* Text that troff shows as it is. */
static void put(FILE *out, const char *text, size_t length)
{
    if (length > 0 && (text[0] == '.' || text[0] == '\''))
        fputs("\\&", out);
    for (size_t i = 0; i < length; i++) {
        if (text[i] == '\\')
            fputs("\\e", out);
        else if (text[i] == '-')
            fputs("\\-", out);
        else
            fputc(text[i], out);
    }
}

static void name(FILE *out, const char *text)
{
    put(out, text, strlen(text));
}

/* A paragraph, in lines of a page's width. */
static void prose(FILE *out, const char *text)
{
    enum { WIDTH = 70 };
    size_t column = 0;
    while (*text != '\0') {
        const size_t word = strcspn(text, " ");
        if (column > 0 && column + word > WIDTH) {
            fputc('\n', out);
            column = 0;
        } else if (column > 0) {
            fputc(' ', out);
        }
        put(out, text, word);
        column += word + 1;
        text += word;
        text += strspn(text, " ");
    }
    fputc('\n', out);
}

static void section(FILE *out, const char *title)
{
    fputs(".SH ", out);
    for (; *title != '\0'; title++)
        fputc(toupper((unsigned char)*title), out);
    fputc('\n', out);
}

static void commands(FILE *out)
{
    section(out, "commands");
    for (size_t i = 0; i < manual_n_commands; i++) {
        const manual_command *const c = &manual_commands[i];
        fputs(".TP\n\\fBquench ", out);
        name(out, c->name);
        fputs("\\fR ", out);
        name(out, c->usage);
        fputs(" [options]\n", out);
        prose(out, c->summary);
    }
}

/* "quantize, eval." behind the text of an option; nothing when every command has it. */
static void users(FILE *out, unsigned mask)
{
    bool all = true, first = true;
    for (size_t i = 0; i < manual_n_commands; i++)
        all &= (mask & manual_commands[i].bit) != 0;
    if (all)
        return;
    fputs(".br\nCommands: ", out);
    for (size_t i = 0; i < manual_n_commands; i++) {
        if ((mask & manual_commands[i].bit) == 0)
            continue;
        fprintf(out, "%s%s", first ? "" : ", ", manual_commands[i].name);
        first = false;
    }
    fputs(".\n", out);
}

static void options(FILE *out)
{
    section(out, "options");
    prose(out, "Options may stand before or after files. --name VALUE and --name=VALUE are "
               "the same; after -- everything is a file. A default is in brackets.");
    for (size_t i = 0; i < manual_n_options; i++) {
        const char *const group = manual_options[i].group;
        bool seen = false;
        for (size_t j = 0; j < i; j++)
            seen |= strcmp(manual_options[j].group, group) == 0;
        if (seen)
            continue;
        fprintf(out, ".SS Options: %s\n", group);
        for (size_t j = i; j < manual_n_options; j++) {
            const manual_option *const o = &manual_options[j];
            if (strcmp(o->group, group) != 0)
                continue;
            fputs(".TP\n", out);
            if (o->letter != 0)
                fprintf(out, "\\fB\\-%c\\fR, ", o->letter);
            fputs("\\fB\\-\\-", out);
            name(out, o->name);
            fputs("\\fR", out);
            if (o->argument != NULL) {
                fputs(" \\fI", out);
                name(out, o->argument);
                fputs("\\fR", out);
            }
            fputc('\n', out);
            prose(out, o->help);
            users(out, o->commands);
        }
    }
}

static void methods(FILE *out, const char *title, const char *option, const char *key,
                    const char *(*name_at)(size_t), const char *(*summary_at)(size_t))
{
    section(out, title);
    fputs("Values of \\fB", out);
    name(out, option);
    fputs("\\fR; without it \\fB", out);
    name(out, qn_quantize_default(key));
    fputs("\\fR.\n", out);
    for (size_t i = 0; name_at(i) != NULL; i++) {
        fputs(".TP\n\\fB", out);
        name(out, name_at(i));
        fputs("\\fR\n", out);
        prose(out, summary_at(i));
    }
}

static void rows(FILE *out, const char *const (*list)[2], size_t count)
{
    for (size_t i = 0; i < count; i++) {
        fputs(".TP\n\\fB", out);
        name(out, list[i][0]);
        fputs("\\fR\n", out);
        prose(out, list[i][1]);
    }
}

static void surroundings(FILE *out)
{
    static const char *const codes[][2] = {
        {"0", "It was done."},
        {"1", "It could not be done: one line on standard error, error: FILE: element: reason. "
              "Outputs are as they were."},
        {"2", "The command line is wrong."},
        {"128+n", "Signal n came; there are no temporary files left."}};
    static const char *const variables[][2] = {
        {"QN_CPU_MASK", "What --cpu-mask is when it is not given."},
        {"NO_COLOR", "When set and not empty, messages have no colour unless --color always."},
        {"TERM", "dumb: no colour, and progress in plain lines."}};
    static const char *const examples[] = {
        "quench quantize model.onnx -o model.int8.onnx --images pictures --mean 127.5",
        "quench eval model.onnx model.int8.onnx --labels labels.csv --mean 127.5",
        "quench compare model.onnx model.int8.onnx --images pictures --mean 127.5",
        "quench bench model.onnx model.int8.onnx --layers"};
    section(out, "exit status");
    rows(out, codes, sizeof codes / sizeof codes[0]);
    section(out, "environment");
    rows(out, variables, sizeof variables / sizeof variables[0]);
    section(out, "examples");
    for (size_t i = 0; i < sizeof examples / sizeof examples[0]; i++) {
        fputs(i == 0 ? ".nf\n" : "", out);
        name(out, examples[i]);
        fputc('\n', out);
    }
    fputs(".fi\n", out);
    section(out, "see also");
    fputs(".BR quantized.out (1)\n", out);
}

void manual_page(FILE *out)
{
    fputs(".\\\" Made from the option table of the program.\n", out);
    fprintf(out, ".TH QUENCH 1 %s \"quench %s\" \"User Commands\"\n", QN_MANUAL_DATE,
            QN_VERSION_STRING);
    fputs(".SH NAME\nquench \\- quantize neural networks and run them\n", out);
    fputs(".SH SYNOPSIS\n.B quench\n.I COMMAND\n[options]\n.br\n.B quench\n.I COMMAND\n"
          ".B \\-\\-help\n.br\n.B quench \\-\\-version\n",
          out);
    section(out, "description");
    fputs("Makes a trained float network (ONNX, MNN) an int8 one, and shows what that cost.\n",
          out);
    commands(out);
    options(out);
    methods(out, "targets", "--target", "target", qn_target_name, qn_target_summary);
    methods(out, "feature methods", "--features", "features", qn_feature_method_name,
            qn_feature_method_summary);
    methods(out, "weight methods", "--weights", "weights", qn_weight_method_name,
            qn_weight_method_summary);
    surroundings(out);
}
