/* Arguments from files: @FILE stands for the lines of FILE. */
#include "cli.h"
#include "response.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_BYTES = 1 << 20, MAX_ARGUMENTS = 65536 };

static bool add(response *r, char *argument)
{
    if (r->argc == r->capacity) {
        const int more = r->capacity * 2 + 64;
        if (more > MAX_ARGUMENTS) {
            cli_error("too many arguments");
            return false;
        }
        char **bigger = realloc(r->argv, (size_t)more * sizeof *bigger);
        if (bigger == NULL) {
            cli_error("out of memory");
            r->code = EXIT_FAILED;
            return false;
        }
        r->argv = bigger;
        r->capacity = more;
    }
    r->argv[r->argc++] = argument;
    return true;
}

/* The whole file as text, kept until the response is freed. */
static char *read_text(response *r, const char *path)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        cli_error("%s: cannot open: %s", path, strerror(errno));
        return NULL;
    }
    char *text = malloc(MAX_BYTES + 2);
    const size_t n = text == NULL ? 0 : fread(text, 1, MAX_BYTES + 1, file);
    const bool failed = ferror(file) != 0;
    fclose(file);
    char **texts = realloc(r->texts, (r->n_texts + 1) * sizeof *texts);
    if (texts != NULL)
        r->texts = texts;
    if (text == NULL || texts == NULL)
        r->code = EXIT_FAILED;
    if (text == NULL || texts == NULL || failed || n > MAX_BYTES || memchr(text, 0, n) != NULL) {
        cli_error("%s: %s", path,
                  text == NULL || texts == NULL ? "out of memory"
                  : failed                      ? "cannot read"
                  : n > MAX_BYTES               ? "more than 1 MiB of arguments"
                                                : "arguments with a NUL byte");
        free(text);
        return NULL;
    }
    text[n] = '\0';
    r->texts[r->n_texts++] = text;
    return text;
}

/* "..." with \" and \\ inside, in place. NULL: no closing quote, or something behind it. */
static char *unquote(char *line)
{
    char *to = line, *p = line + 1;
    for (; *p != '"'; p++) {
        if (*p == '\\' && (p[1] == '"' || p[1] == '\\'))
            p++;
        if (*p == '\0')
            return NULL;
        *to++ = *p;
    }
    if (p[1] != '\0')
        return NULL;
    *to = '\0';
    return line;
}

static bool add_lines(response *r, const char *path)
{
    char *line = read_text(r, path);
    if (line == NULL)
        return false;
    for (size_t number = 1; line != NULL; number++) {
        char *next = strchr(line, '\n');
        if (next != NULL)
            *next++ = '\0';
        line += strspn(line, " \t");
        size_t n = strlen(line);
        while (n > 0 && strchr(" \t\r", line[n - 1]) != NULL)
            line[--n] = '\0';
        if (n > 0 && line[0] != '#') {
            char *argument = line[0] == '"' ? unquote(line) : line;
            if (argument == NULL) {
                cli_error("%s: line %zu: quotes go around a whole argument", path, number);
                return false;
            }
            if (!add(r, argument))
                return false;
        }
        line = next;
    }
    return true;
}

bool response_expand(int argc, char **argv, response *out)
{
    *out = (response){.code = EXIT_USAGE};
    bool only_files = false;
    for (int i = 0; i < argc; i++) {
        only_files = only_files || strcmp(argv[i], "--") == 0;
        const bool from_file = !only_files && argv[i][0] == '@' && argv[i][1] != '\0';
        if (from_file ? !add_lines(out, argv[i] + 1) : !add(out, argv[i]))
            return false;
    }
    return true;
}

void response_free(response *r)
{
    for (size_t i = 0; i < r->n_texts; i++)
        free(r->texts[i]);
    free(r->texts);
    free(r->argv);
    *r = (response){0};
}
