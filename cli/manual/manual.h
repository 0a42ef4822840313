/* The manual page and the completions of the shells, made at build time from the tables that the
 * program itself is made from: commands.def, options.def and the library's methods. */
#ifndef QN_CLI_MANUAL_H
#define QN_CLI_MANUAL_H

#include "cli.h"

typedef struct manual_command {
    const char *name, *usage, *summary;
    unsigned bit;
} manual_command;

typedef struct manual_option {
    const char *name;
    char letter;
    const char *argument; /* NULL: takes none */
    unsigned commands;
    const char *group, *help;
} manual_option;

extern const manual_command manual_commands[];
extern const size_t manual_n_commands;
extern const manual_option manual_options[];
extern const size_t manual_n_options;

/* What the value of an option is. */
typedef enum manual_kind {
    VALUE_NONE,
    VALUE_FILE,
    VALUE_DIR,
    VALUE_WORDS,
    VALUE_OTHER
} manual_kind;
/* words: for VALUE_WORDS, separated by blanks. */
manual_kind manual_value(const manual_option *option, char *words, size_t size);
bool manual_repeats(const manual_option *option);

void manual_page(FILE *out);
void manual_bash(FILE *out);
void manual_zsh(FILE *out);
void manual_fish(FILE *out);

#endif
