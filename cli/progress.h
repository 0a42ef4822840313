/* How far a long command is, on standard error: a bar on a terminal, now and then a line in a log.
 */
#ifndef QN_CLI_PROGRESS_H
#define QN_CLI_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

typedef struct cli_progress {
    bool quiet;
    double started, last;
    const char *phase;
} cli_progress;

/* A qn_progress_fn; ctx: a cli_progress. */
bool cli_show_progress(void *ctx, const char *phase, uint64_t done, uint64_t total);

#endif
