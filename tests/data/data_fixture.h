/* Context, folder and files of the dataset tests. */
#ifndef QN_TESTS_DATA_FIXTURE_H
#define QN_TESTS_DATA_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <unistd.h>

#include "core/context.h"
#include "core/io.h"
#include "data/data.h"

#define FILES QN_SOURCE_DIR "/tests/data/files/"

typedef struct data_fixture {
    qn_context *ctx;
    qn_error error;
    char folder[64];
    char path[128]; /* of the last made_file */
    size_t warnings;
    char warning[1024]; /* the last */
} data_fixture;

static inline void fixture_log(void *ctx, qn_log_level level, const char *line)
{
    data_fixture *f = ctx;
    if (level != QN_LOG_WARNING)
        return;
    f->warnings++;
    snprintf(f->warning, sizeof(f->warning), "%s", line);
}

static inline int fixture_setup(void **state)
{
    data_fixture *f = calloc(1, sizeof(*f));
    qn_context_options options;
    qn_context_options_init(&options);
    options.n_threads = 2;
    options.log = fixture_log;
    options.log_ctx = f;
    assert_int_equal(qn_context_create(&options, &f->ctx, &f->error), QN_OK);
    strcpy(f->folder, "/tmp/quench-data-XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    *state = f;
    return 0;
}

static inline int fixture_teardown(void **state)
{
    data_fixture *f = *state;
    char command[128];
    snprintf(command, sizeof(command), "rm -rf %s", f->folder);
    const int code = system(command);
    qn_context_destroy(f->ctx);
    free(f);
    return code;
}

/* Writes a file into the fixture's folder; returns its path, valid until the next call. */
static inline const char *make_file(data_fixture *f, const char *name, const void *data,
                                    size_t size_bytes)
{
    snprintf(f->path, sizeof(f->path), "%s/%s", f->folder, name);
    FILE *file = fopen(f->path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, size_bytes, file), size_bytes);
    fclose(file);
    return f->path;
}

static inline const char *make_text(data_fixture *f, const char *name, const char *text)
{
    return make_file(f, name, text, strlen(text));
}

static inline void copy_file(data_fixture *f, const char *from, const char *name)
{
    qn_file_view view;
    assert_int_equal(qn__file_open(f->ctx, from, &view, &f->error), QN_OK);
    make_file(f, name, view.data, view.size_bytes);
    qn__file_close(f->ctx, &view);
}

static inline void assert_message_has(const data_fixture *f, const char *text)
{
    if (strstr(f->error.message, text) == NULL)
        fail_msg("\"%s\" does not contain \"%s\"", f->error.message, text);
}

#endif
