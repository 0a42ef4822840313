#include "core/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *qn_status_name(qn_status status)
{
    switch (status) {
    case QN_OK:
        return "OK";
    case QN_INVALID_ARGUMENT:
        return "INVALID_ARGUMENT";
    case QN_NO_MEMORY:
        return "NO_MEMORY";
    case QN_IO:
        return "IO";
    case QN_CORRUPT:
        return "CORRUPT";
    case QN_UNSUPPORTED:
        return "UNSUPPORTED";
    case QN_LIMIT:
        return "LIMIT";
    case QN_UNSAFE_PATH:
        return "UNSAFE_PATH";
    case QN_NONFINITE:
        return "NONFINITE";
    case QN_STATE:
        return "STATE";
    case QN_CANCELLED:
        return "CANCELLED";
    case QN_INTERNAL:
        return "INTERNAL";
    }
    return "UNKNOWN";
}

/* Bytes above 0x7F are left alone (UTF-8). */
void qn__keep_one_line(char *text)
{
    for (; *text != '\0'; text++) {
        const unsigned char c = (unsigned char)*text;
        if (c < 0x20 || c == 0x7F)
            *text = '?';
    }
}

qn_status qn__error_set(qn_error *error, qn_status status, const char *format, ...)
{
    if (error != NULL) {
        error->status = status;
        va_list args;
        va_start(args, format);
        vsnprintf(error->message, sizeof error->message, format, args);
        va_end(args);
        qn__keep_one_line(error->message);
    }
    return status;
}

qn_status qn__check_struct(size_t struct_size, size_t wanted, const char *init, qn_error *error)
{
    QN_FAIL_IF(struct_size != wanted, error, QN_INVALID_ARGUMENT,
               "struct_size is %zu, not %zu: call %s first", struct_size, wanted, init);
    return QN_OK;
}

qn_status qn__error_prefix(qn_error *error, qn_status status, const char *format, ...)
{
    if (error == NULL)
        return status;
    char message[sizeof error->message];
    va_list args;
    va_start(args, format);
    const int written = vsnprintf(message, sizeof message, format, args);
    va_end(args);
    const size_t length = written < 0 ? 0 : (size_t)written;
    if (length + 3 < sizeof message) {
        memcpy(message + length, ": ", 2);
        if (memcmp(error->message, message, length + 2) == 0)
            return status;
        const size_t room = sizeof message - length - 3;
        const size_t rest = strlen(error->message);
        const size_t kept = rest < room ? rest : room;
        memcpy(message + length + 2, error->message, kept);
        message[length + 2 + kept] = '\0';
    }
    memcpy(error->message, message, sizeof message);
    qn__keep_one_line(error->message);
    return status;
}
