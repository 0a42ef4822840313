/* manual page|bash|zsh|fish FILE: writes one of them. */
#include "manual.h"

#include <string.h>

const manual_command manual_commands[] = {
#define CLI_COMMAND(name, bit, function, usage, summary) {name, usage, summary, bit},
#include "commands.def"
#undef CLI_COMMAND
};
const size_t manual_n_commands = sizeof manual_commands / sizeof manual_commands[0];

const manual_option manual_options[] = {
#define CLI_OPTION(name, letter, argument, commands, group, help, ...)                             \
    {name, letter, argument, commands, group, help},
#include "options.def"
#undef CLI_OPTION
};
const size_t manual_n_options = sizeof manual_options / sizeof manual_options[0];

static void list_names(const char *(*name_at)(size_t), char *words, size_t size)
{
    size_t used = 0;
    words[0] = '\0';
    for (size_t i = 0; name_at(i) != NULL && used < size; i++)
        used += (size_t)snprintf(words + used, size - used, "%s%s", i > 0 ? " " : "", name_at(i));
}

manual_kind manual_value(const manual_option *option, char *words, size_t size)
{
    static const struct {
        const char *option, *words;
    } values[] = {
#define CLI_VALUES(name, list) {name, list},
#include "values.def"
#undef CLI_VALUES
    };
    static const struct {
        const char *option;
        const char *(*name_at)(size_t);
    } methods[] = {{"target", qn_target_name},
                   {"features", qn_feature_method_name},
                   {"weights", qn_weight_method_name}};
    const char *const argument = option->argument;
    words[0] = '\0';
    if (argument == NULL)
        return VALUE_NONE;
    for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++)
        if (strcmp(methods[i].option, option->name) == 0) {
            list_names(methods[i].name_at, words, size);
            return VALUE_WORDS;
        }
    const char *list = strcmp(argument, "on|off") == 0 ? "on off" : NULL;
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++)
        if (strcmp(values[i].option, option->name) == 0)
            list = values[i].words;
    if (list != NULL) {
        snprintf(words, size, "%s", list);
        return VALUE_WORDS;
    }
    if (strcmp(argument, "DIR") == 0)
        return VALUE_DIR;
    return strcmp(argument, "FILE") == 0 || strcmp(argument, "CSV") == 0 ? VALUE_FILE : VALUE_OTHER;
}

bool manual_repeats(const manual_option *option)
{
    return strstr(option->help, "may be repeated") != NULL;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*write)(FILE *out);
    } kinds[] = {
        {"page", manual_page}, {"bash", manual_bash}, {"zsh", manual_zsh}, {"fish", manual_fish}};
    for (size_t i = 0; argc == 3 && i < sizeof kinds / sizeof kinds[0]; i++) {
        if (strcmp(argv[1], kinds[i].name) != 0)
            continue;
        FILE *const out = fopen(argv[2], "w");
        if (out == NULL) {
            fprintf(stderr, "error: %s: cannot be written\n", argv[2]);
            return EXIT_FAILED;
        }
        kinds[i].write(out);
        const bool failed = ferror(out) != 0;
        if (fclose(out) == 0 && !failed)
            return EXIT_OK;
        fprintf(stderr, "error: %s: cannot be written\n", argv[2]);
        return EXIT_FAILED;
    }
    fprintf(stderr, "usage: %s page|bash|zsh|fish FILE\n", argv[0]);
    return EXIT_USAGE;
}
