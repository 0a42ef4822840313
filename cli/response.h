#ifndef QN_CLI_RESPONSE_H
#define QN_CLI_RESPONSE_H

#include <stdbool.h>
#include <stddef.h>

typedef struct response {
    int argc, capacity;
    char **argv;
    char **texts; /* that argv points into */
    size_t n_texts;
    int code; /* to leave with where it cannot be made */
} response;

/* argv with each @FILE replaced by the lines of FILE: one argument a line, blank lines and those
 * that begin with # left out, "..." around an argument that begins or ends with a blank, a # or a
 * quote. What stands in a file is not looked into again, and nothing behind "--" is. False: an
 * error was printed. */
bool response_expand(int argc, char **argv, response *out);
void response_free(response *r);

#endif
