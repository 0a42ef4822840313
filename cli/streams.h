/* Standard input, output and error of a tool. */
#ifndef QN_CLI_STREAMS_H
#define QN_CLI_STREAMS_H

#include <stdbool.h>
#include <stdio.h>

/* Before anything is opened: a closed pipe or a full file is a failed write, reported like any
 * other, and no file that is opened can become a standard stream that was closed. */
void cli_open_streams(void);
/* After the last output: code, or why what was printed did not arrive. Says so unless an error was
 * said already (code not 0) or the reader of a pipe has gone, which wants no more. */
int cli_close_output(int code);

typedef enum cli_color { CLI_COLOR_AUTO, CLI_COLOR_ALWAYS, CLI_COLOR_NEVER } cli_color;
void cli_set_color(cli_color color); /* for all of standard error */
/* A line that the next one, or anything else that is said, replaces. */
void cli_show_status(const char *line);
void cli_clear_status(void);
void cli_abandon_status(void); /* leaves it where it is; for signal handlers */
/* "error" or "warning" in front of a message. */
void cli_print_kind(const char *kind);
/* Standard error is a terminal that can move its cursor. */
bool cli_on_terminal(void);

#endif
