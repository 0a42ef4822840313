/* What the units that fail calls of the library share: files as they were, and a call that fails is
 * made again. Included behind cmocka.h. */
#ifndef QN_TESTS_FAULT_CALLS_H
#define QN_TESTS_FAULT_CALLS_H

#include "fault/fault.h"

#include <stdio.h>
#include <string.h>

enum { MAX_FILE = 1 << 18 };

typedef struct file_bytes { /* too large for the stack of a sanitized build */
    bool exists;
    size_t count;
    uint8_t data[MAX_FILE];
} file_bytes;

static inline void write_file(const char *path, const void *data, size_t size)
{
    FILE *const file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

static inline void read_if_there(const char *path, file_bytes *out)
{
    FILE *const file = fopen(path, "rb");
    out->exists = file != NULL;
    out->count = file == NULL ? 0 : fread(out->data, 1, sizeof(out->data), file);
    assert_true(out->count < sizeof(out->data));
    if (file != NULL)
        fclose(file);
}

static inline void read_file(const char *path, file_bytes *out)
{
    read_if_there(path, out);
    assert_true(out->exists);
}

/* Is a call that returned `status` to be made again? Only the call that was to fail may, once, and
 * with one line. first: the failure that was retried, QN_OK: none. */
static inline bool failed_as_wanted(const fault *f, bool fail_io, const qn_error *error,
                                    qn_status *first, qn_status status, const char *what,
                                    const char *call)
{
    if (status == QN_OK)
        return false;
    const qn_status wanted = fail_io ? QN_IO : QN_NO_MEMORY;
    if (f->fail_at == 0 || f->calls < f->fail_at || *first != QN_OK)
        fail_msg("%s: %s fails without a cause or twice: %s", what, call, error->message);
    if (status != wanted || error->status != wanted || error->message[0] == '\0' ||
        strchr(error->message, '\n') != NULL)
        fail_msg("%s: %s: call %llu failed: status %d \"%s\"", what, call,
                 (unsigned long long)f->fail_at, (int)status, error->message);
    if (f->persistent)
        return false;
    *first = status;
    return true;
}

/* r: a run with `fail_io`, `error` and `first`; f: what fails. Needs `status`, and a label `done`
 * for a failure that persists. */
#define FAULT_STEP(r, f, what, call)                                                               \
    do {                                                                                           \
        status = (call);                                                                           \
        if (failed_as_wanted((f), (r)->fail_io, &(r)->error, &(r)->first, status, (what), #call))  \
            status = (call);                                                                       \
        if (status != QN_OK && !(f)->persistent)                                                   \
            fail_msg("%s: %s: the second try fails: %s", (what), #call, (r)->error.message);       \
        if (status != QN_OK)                                                                       \
            goto done;                                                                             \
    } while (0)

#endif
