/* The text of --help, from the table of options. */
#include "cli.h"

#include <string.h>

enum { HELP_COLUMN = 27, HELP_WIDTH = 96 };

/* Text from HELP_COLUMN on, broken between words. */
static void print_wrapped(FILE *out, const char *text)
{
    size_t column = HELP_COLUMN;
    while (*text != '\0') {
        const size_t word = strcspn(text, " ");
        if (column > HELP_COLUMN && column + 1 + word > HELP_WIDTH) {
            fprintf(out, "\n%*s", HELP_COLUMN, "");
            column = HELP_COLUMN;
        } else if (column > HELP_COLUMN) {
            fputc(' ', out);
            column++;
        }
        fwrite(text, 1, word, out);
        column += word;
        text += word;
        text += strspn(text, " ");
    }
    fputc('\n', out);
}

static void print_methods(FILE *out, const char *option, const char *key,
                          const char *(*name_at)(size_t), const char *(*summary_at)(size_t))
{
    const char *chosen = qn_quantize_default(key);
    fprintf(out, "\n%s (default: %s)\n", option, chosen);
    for (size_t i = 0; name_at(i) != NULL; i++) {
        fprintf(out, "  %-*s", HELP_COLUMN - 2, name_at(i));
        print_wrapped(out, summary_at(i));
    }
}

void cli_print_help(FILE *out, unsigned command, const char *name, const char *usage,
                    const char *summary)
{
    static const char *const groups[] = {"samples",    "pictures", "quantization",
                                         "statistics", "running",  "output"};
    fprintf(out, "usage: quench %s %s [options]\n\n%s\n", name, usage, summary);
    for (size_t g = 0; g < sizeof groups / sizeof groups[0]; g++) {
        bool first = true;
        const cli_option_row *row;
        for (size_t i = 0; (row = cli_option_at(i)) != NULL; i++) {
            if ((row->commands & command) == 0 || strcmp(row->group, groups[g]) != 0)
                continue;
            if (first)
                fprintf(out, "\n%s\n", groups[g]);
            first = false;
            char head[64];
            snprintf(head, sizeof head, "--%s%s%s", row->name, row->argument != NULL ? " " : "",
                     row->argument != NULL ? row->argument : "");
            if (row->letter != 0)
                fprintf(out, "  -%c, %-*s", row->letter, HELP_COLUMN - 6, head);
            else
                fprintf(out, "  %-*s", HELP_COLUMN - 2, head);
            print_wrapped(out, row->help);
        }
    }
    if (command == CMD_QUANTIZE) {
        print_methods(out, "--target", "target", qn_target_name, qn_target_summary);
        print_methods(out, "--features", "features", qn_feature_method_name,
                      qn_feature_method_summary);
        print_methods(out, "--weights", "weights", qn_weight_method_name, qn_weight_method_summary);
    }
}
