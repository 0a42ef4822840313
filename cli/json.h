/* JSON output of the commands: whole or not at all. */
#ifndef QN_CLI_JSON_H
#define QN_CLI_JSON_H

#include <jansson.h>
#include <stdbool.h>

/* Text from a file or a path; bytes that are not UTF-8 become '?'. NULL: out of memory. */
json_t *cli_json_text(const char *text);
/* JSON has no infinity and no NaN: null. */
json_t *cli_json_number(double value);
/* Appends, taking value, which may be NULL; *complete becomes false when anything is missing. */
void cli_json_append(json_t *list, json_t *value, bool *complete);
/* Prints root, taking it, and returns an exit code; only an error when it is NULL or not complete.
 */
int cli_json_print(json_t *root, bool complete);

#endif
