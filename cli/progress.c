#include "progress.h"

#include "cli.h"
#include "streams.h"

#include <string.h>

/* "1:02:03", "2:03" or "3 s" */
static const char *time_text(double seconds, char text[32])
{
    const unsigned long long s = seconds < 1e15 ? (unsigned long long)(seconds + 0.5) : 0;
    if (s >= 3600)
        snprintf(text, 32, "%llu:%02llu:%02llu", s / 3600, s / 60 % 60, s % 60);
    else if (s >= 60)
        snprintf(text, 32, "%llu:%02llu", s / 60, s % 60);
    else
        snprintf(text, 32, "%llu s", s);
    return text;
}

bool cli_show_progress(void *ctx, const char *phase, uint64_t done, uint64_t total)
{
    enum { WIDTH = 30 };
    cli_progress *const state = ctx;
    if (state->quiet)
        return true;
    const bool terminal = cli_on_terminal();
    const double now = cli_seconds();
    if (state->phase == NULL || strcmp(state->phase, phase) != 0) {
        state->phase = phase;
        state->started = state->last = now;
    }
    if (done >= total) {
        cli_clear_status();
        state->phase = NULL; /* the same phase may begin again */
        return true;
    }
    if (now - state->last < (terminal ? 0.1 : 10.0))
        return true;
    state->last = now;
    char line[160], left[32];
    const double seconds =
        done > 0 ? (now - state->started) * (double)(total - done) / (double)done : 0;
    time_text(seconds, left);
    if (terminal) {
        const int filled = (int)(WIDTH * done / total);
        snprintf(line, sizeof line, "%-9.20s [%.*s%*s] %llu/%llu %s left", phase, filled,
                 "##############################", WIDTH - filled, "", (unsigned long long)done,
                 (unsigned long long)total, left);
        cli_show_status(line);
    } else {
        fprintf(stderr, "%s: %llu of %llu, %s left\n", phase, (unsigned long long)done,
                (unsigned long long)total, left);
    }
    return true;
}
