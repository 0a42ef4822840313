/* What MNN's quantizer prints, in its form. */
#include "mnntool/tool.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static void print_text(const qn_mnn_run *run, const char *prefix, const char *format, va_list args)
{
    char usual[1024];
    char *line = usual;
    va_list copy;
    va_copy(copy, args);
    const int length = vsnprintf(NULL, 0, format, copy);
    va_end(copy);
    const size_t before = strlen(prefix), size = before + (size_t)(length < 0 ? 0 : length) + 2;
    if (size > sizeof(usual))
        line = qn__alloc(run->ctx, size);
    /* Lines are for people: one that memory is too short for is not a failure. */
    if (line == NULL)
        return;
    memcpy(line, prefix, before + 1);
    if (length > 0)
        vsnprintf(line + before, size - before, format, args);
    if (prefix[0] != '\0')
        memcpy(line + strlen(line), "\n", 2);
    run->print(run->print_ctx, line);
    if (line != usual)
        qn__free(run->ctx, line);
}

void qn__mnn_log(const qn_mnn_run *run, int line, const char *format, ...)
{
    char prefix[64];
    struct tm now = {0};
    const time_t seconds = time(NULL);
    localtime_r(&seconds, &now);
    snprintf(prefix, sizeof(prefix), "[%02d:%02d:%02d] @ %d: ", now.tm_hour, now.tm_min, now.tm_sec,
             line);
    va_list args;
    va_start(args, format);
    print_text(run, prefix, format, args);
    va_end(args);
}

void qn__mnn_progress(const qn_mnn_run *run, const char *label, size_t done, size_t total)
{
    const double percent = total == 0 ? 100.0 : 100.0 * (double)done / (double)total;
    qn__mnn_print(run, "\r%s: %.2f %%", label, percent);
    if (done >= total)
        qn__mnn_print(run, "\n");
}

void qn__mnn_print(const qn_mnn_run *run, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    print_text(run, "", format, args);
    va_end(args);
}
