/* Raising and forwarding errors. Results leave through out-parameters, written only on success. */
#ifndef QN_CORE_STATUS_H
#define QN_CORE_STATUS_H

#include "quench/base.h"

/* Writes status and a formatted one-line message to error (may be NULL); returns status. */
qn_status qn__error_set(qn_error *error, qn_status status, const char *format, ...) QN_PRINTF(3, 4);
/* Puts "prefix: " in front of a message (file name, node...) that does not begin so already;
 * returns its status. */
qn_status qn__error_prefix(qn_error *error, qn_status status, const char *format, ...)
    QN_PRINTF(3, 4);

/* INVALID_ARGUMENT where a struct of the caller is not one that init, of this very library, filled:
 * nothing behind its first field may be read then. */
qn_status qn__check_struct(size_t struct_size, size_t wanted, const char *init, qn_error *error);

/* Names come from files: a message stays one printable line whatever they hold. */
void qn__keep_one_line(char *text);

/* return a new error:  QN_FAIL(error, QN_CORRUPT, "node %zu: ...", i); */
#define QN_FAIL(error, status, ...) return qn__error_set((error), (status), __VA_ARGS__)
#define QN_FAIL_IF(cond, error, status, ...)                                                       \
    do {                                                                                           \
        if (cond)                                                                                  \
            return qn__error_set((error), (status), __VA_ARGS__);                                  \
    } while (0)
/* return what failed below */
#define QN_TRY(expr)                                                                               \
    do {                                                                                           \
        const qn_status qn_try_status_ = (expr);                                                   \
        if (qn_try_status_ != QN_OK)                                                               \
            return qn_try_status_;                                                                 \
    } while (0)
/* For functions with a single exit: needs a local `qn_status status` and a label `done`. */
#define QN_TRY_GOTO(expr)                                                                          \
    do {                                                                                           \
        status = (expr);                                                                           \
        if (status != QN_OK)                                                                       \
            goto done;                                                                             \
    } while (0)
#define QN_FAIL_GOTO(error, code, ...)                                                             \
    do {                                                                                           \
        status = qn__error_set((error), (code), __VA_ARGS__);                                      \
        goto done;                                                                                 \
    } while (0)

#define QN_NOMEM(error) qn__error_set((error), QN_NO_MEMORY, "out of memory")

#endif
