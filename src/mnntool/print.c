/* What MNN's quantizer prints, in its form. */
#include "mnntool/tool.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>

#include "core/strbuf.h"

#define MAX_LINE_BYTES ((size_t)1 << 20)

static void print_text(const qn_mnn_run *run, const char *prefix, const char *format, va_list args)
{
    qn_strbuf text;
    va_list copy;
    va_copy(copy, args);
    const int length = vsnprintf(NULL, 0, format, copy);
    va_end(copy);
    qn__strbuf_init(&text, run->ctx, MAX_LINE_BYTES);
    qn__strbuf_puts(&text, prefix);
    char *line = length < 0 ? NULL : qn__alloc(run->ctx, (size_t)length + 1);
    if (line != NULL) {
        vsnprintf(line, (size_t)length + 1, format, args);
        qn__strbuf_append(&text, line, (size_t)length);
    }
    qn__free(run->ctx, line);
    if (prefix[0] != '\0')
        qn__strbuf_puts(&text, "\n");
    /* Lines are for people: one that memory is too short for is not a failure. */
    if (!text.failed)
        run->print(run->print_ctx, text.data);
    qn__strbuf_free(&text);
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
