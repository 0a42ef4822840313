/* Completions for bash, zsh and fish. */
#include "manual.h"

#include <string.h>

enum { WORDS_BYTES = 1024, HELP_BYTES = 1024 };

/* The help of an option without what stands in --help alone. */
static const char *short_help(const manual_option *o, char *text, size_t size)
{
    static const char below[] = " (listed below)";
    snprintf(text, size, "%s", o->help);
    char *const at = strstr(text, below);
    if (at != NULL)
        memmove(at, at + sizeof below - 1, strlen(at + sizeof below - 1) + 1);
    return text;
}

/* --- bash ------------------------------------------------------------------------------------- */
static void bash_options(FILE *out)
{
    for (size_t c = 0; c < manual_n_commands; c++) {
        fprintf(out, "        %s) options='", manual_commands[c].name);
        const char *blank = "";
        for (size_t i = 0; i < manual_n_options; i++) {
            const manual_option *const o = &manual_options[i];
            if ((o->commands & manual_commands[c].bit) == 0)
                continue;
            fprintf(out, "%s--%s", blank, o->name);
            if (o->letter != 0)
                fprintf(out, " -%c", o->letter);
            blank = " ";
        }
        fputs("' ;;\n", out);
    }
}

static void bash_values(FILE *out)
{
    char words[WORDS_BYTES];
    for (size_t i = 0; i < manual_n_options; i++) {
        const manual_option *const o = &manual_options[i];
        const manual_kind kind = manual_value(o, words, sizeof words);
        if (kind == VALUE_NONE)
            continue;
        fprintf(out, "        --%s", o->name);
        if (o->letter != 0)
            fprintf(out, " | -%c", o->letter);
        if (kind == VALUE_WORDS)
            fprintf(out, ") words='%s' ;;\n", words);
        else
            fprintf(out, ") kind=%s ;;\n",
                    kind == VALUE_FILE  ? "file"
                    : kind == VALUE_DIR ? "directory"
                                        : "other");
    }
}

void manual_bash(FILE *out)
{
    fputs("# bash completion of quench, made from its option table\n"
          "_quench()\n"
          "{\n"
          "    local current=${COMP_WORDS[COMP_CWORD]} option=${COMP_WORDS[COMP_CWORD - 1]}\n"
          "    local command=${COMP_WORDS[1]} options='' words='' kind=''\n"
          "    COMPREPLY=()\n"
          "    if [ \"$COMP_CWORD\" -eq 1 ]; then\n"
          "        COMPREPLY=($(compgen -W '",
          out);
    for (size_t c = 0; c < manual_n_commands; c++)
        fprintf(out, "%s ", manual_commands[c].name);
    fputs("help --help --version' -- \"$current\"))\n"
          "        return\n"
          "    fi\n"
          "    if [ \"$COMP_CWORD\" -eq 2 ] && [ \"$command\" = help ]; then\n"
          "        COMPREPLY=($(compgen -W '",
          out);
    for (size_t c = 0; c < manual_n_commands; c++)
        fprintf(out, "%s%s", c > 0 ? " " : "", manual_commands[c].name);
    fputs("' -- \"$current\"))\n"
          "        return\n"
          "    fi\n"
          "    # --option=value comes as three words where '=' breaks words\n"
          "    if [ \"$current\" = = ]; then\n"
          "        current=''\n"
          "    elif [ \"$option\" = = ] && [ \"$COMP_CWORD\" -ge 3 ]; then\n"
          "        option=${COMP_WORDS[COMP_CWORD - 2]}\n"
          "    fi\n"
          "    case $command in\n",
          out);
    bash_options(out);
    fputs("        *) return ;;\n    esac\n    case $option in\n", out);
    bash_values(out);
    fputs("    esac\n"
          "    if [ -n \"$words\" ]; then\n"
          "        COMPREPLY=($(compgen -W \"$words\" -- \"$current\"))\n"
          "    elif [ \"$kind\" = directory ]; then\n"
          "        compopt -o filenames 2>/dev/null\n"
          "        mapfile -t COMPREPLY < <(compgen -d -- \"$current\")\n"
          "    elif [ -z \"$kind\" ] && [[ $current == -* ]]; then\n"
          "        COMPREPLY=($(compgen -W \"$options\" -- \"$current\"))\n"
          "    elif [ \"$kind\" != other ]; then\n"
          "        compopt -o filenames 2>/dev/null\n"
          "        mapfile -t COMPREPLY < <(compgen -f -- \"$current\")\n"
          "    fi\n"
          "}\n"
          "complete -F _quench quench\n",
          out);
}

/* --- zsh -------------------------------------------------------------------------------------- */
/* Inside '...' of an _arguments or _describe specification. */
static void zsh_text(FILE *out, const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == '\'')
            fputs("'\\'", out);
        else if (strchr("[]:\\", *text) != NULL)
            fputc('\\', out);
        fputc(*text, out);
    }
}

static void zsh_option(FILE *out, const manual_option *o)
{
    char words[WORDS_BYTES];
    const manual_kind kind = manual_value(o, words, sizeof words);
    const char *const equals = kind != VALUE_NONE ? "=" : "";
    fputs(" \\\n            ", out);
    if (o->letter != 0)
        fprintf(out, "'(-%c --%s)'{-%c,--%s%s}'", o->letter, o->name, o->letter, o->name, equals);
    else
        fprintf(out, "'%s--%s%s", manual_repeats(o) ? "*" : "", o->name, equals);
    fputc('[', out);
    char help[HELP_BYTES];
    zsh_text(out, short_help(o, help, sizeof help));
    fputc(']', out);
    if (kind != VALUE_NONE) {
        fputc(':', out);
        zsh_text(out, o->argument);
        if (kind == VALUE_WORDS)
            fprintf(out, ":(%s)", words);
        else
            fputs(kind == VALUE_FILE ? ":_files" : kind == VALUE_DIR ? ":_files -/" : ": ", out);
    }
    fputc('\'', out);
}

void manual_zsh(FILE *out)
{
    fputs("#compdef quench\n"
          "# zsh completion of quench, made from its option table\n"
          "_quench() {\n"
          "    local -a commands\n"
          "    commands=(\n",
          out);
    for (size_t c = 0; c < manual_n_commands; c++) {
        fprintf(out, "        '%s:", manual_commands[c].name);
        zsh_text(out, manual_commands[c].summary);
        fputs("'\n", out);
    }
    fputs("    )\n"
          "    if ((CURRENT == 2)) || [[ $CURRENT == 3 && $words[2] == help ]]; then\n"
          "        _describe command commands\n"
          "        return\n"
          "    fi\n"
          "    local command=$words[2]\n"
          "    shift words\n"
          "    ((CURRENT--))\n"
          "    case $command in\n",
          out);
    for (size_t c = 0; c < manual_n_commands; c++) {
        fprintf(out, "    %s)\n        _arguments -S", manual_commands[c].name);
        for (size_t i = 0; i < manual_n_options; i++)
            if ((manual_options[i].commands & manual_commands[c].bit) != 0)
                zsh_option(out, &manual_options[i]);
        fputs(" \\\n            '*:file:_files'\n        ;;\n", out);
    }
    fputs("    esac\n}\n_quench \"$@\"\n", out);
}

/* --- fish ------------------------------------------------------------------------------------- */
static void fish_text(FILE *out, const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == '\'' || *text == '\\')
            fputc('\\', out);
        fputc(*text, out);
    }
}

static void fish_option(FILE *out, const manual_option *o)
{
    char words[WORDS_BYTES];
    const manual_kind kind = manual_value(o, words, sizeof words);
    fputs("complete -c quench -n '__fish_seen_subcommand_from", out);
    for (size_t c = 0; c < manual_n_commands; c++)
        if ((o->commands & manual_commands[c].bit) != 0)
            fprintf(out, " %s", manual_commands[c].name);
    fprintf(out, "' -l %s", o->name);
    if (o->letter != 0)
        fprintf(out, " -s %c", o->letter);
    if (kind == VALUE_WORDS)
        fprintf(out, " -x -a '%s'", words);
    else if (kind != VALUE_NONE)
        fputs(kind == VALUE_FILE  ? " -r -F"
              : kind == VALUE_DIR ? " -x -a '(__fish_complete_directories)'"
                                  : " -x",
              out);
    fputs(" -d '", out);
    char help[HELP_BYTES];
    fish_text(out, short_help(o, help, sizeof help));
    fputs("'\n", out);
}

void manual_fish(FILE *out)
{
    fputs("# fish completion of quench, made from its option table\n", out);
    for (size_t c = 0; c < manual_n_commands; c++) {
        fprintf(out, "complete -c quench -n __fish_use_subcommand -f -a %s -d '",
                manual_commands[c].name);
        fish_text(out, manual_commands[c].summary);
        fputs("'\n", out);
    }
    fputs("complete -c quench -n __fish_use_subcommand -f -l version -d 'print the version'\n"
          "complete -c quench -n __fish_use_subcommand -f -l help -d 'list the commands'\n",
          out);
    for (size_t i = 0; i < manual_n_options; i++)
        fish_option(out, &manual_options[i]);
}
