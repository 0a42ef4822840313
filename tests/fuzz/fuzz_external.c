/* Bytes as the place of a weight outside an ONNX file: two give its number of elements, then lines
 * KEY=VALUE in the order of the file. Nothing outside the model's folder is opened; what is
 * accepted lies in the file of that name, and comes back the same when it is written beside a new
 * model. With clang's libFuzzer (QN_FUZZ) this is a fuzzer; otherwise replay.c calls it. */
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "format/external_model.h"
#include "format/format.h"
#include "format/onnx/onnx_read.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { DATA_BYTES = 8192, MOST_ENTRIES = 8, MOST_KEY = 32, PATH_BYTES = 96 };

static char top[] = "/tmp/quench_fuzz_external_XXXXXX";
static char inside[PATH_BYTES];
static const char *const FILES[] = {"secret", "model/w.bin", "model/sub/w.bin", "model/out.onnx",
                                    "model/out.onnx.data"};
static const char *const LINKS[][2] = {
    {"model/in", "w.bin"}, {"model/out", "../secret"}, {"model/up", ".."}, {"model/loop", "loop"}};
static qn_context *ctx;
static qn_io real_io;
static size_t n_read;

static void demand(bool holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "%s\n", what);
        abort();
    }
}

static const char *path_of(char path[PATH_BYTES], const char *name)
{
    demand(snprintf(path, PATH_BYTES, "%s/%s", top, name) < PATH_BYTES, "a long name");
    return path;
}

static int open_counted(void *ignored, const char *path, int flags, int mode)
{
    (void)ignored;
    demand(strncmp(path, inside, strlen(inside)) == 0 && strstr(path, "/../") == NULL,
           "opened outside");
    n_read += (flags & (O_CREAT | O_DIRECTORY)) == 0;
    return real_io.open(real_io.ctx, path, flags, mode);
}

static int sync_nothing(void *ignored, int fd)
{
    (void)ignored, (void)fd;
    return 0;
}

static void leave(void)
{
    char path[PATH_BYTES];
    qn_context_destroy(ctx);
    for (size_t i = 0; i < sizeof(LINKS) / sizeof(LINKS[0]); i++)
        unlink(path_of(path, LINKS[i][0]));
    for (size_t i = 0; i < sizeof(FILES) / sizeof(FILES[0]); i++)
        unlink(path_of(path, FILES[i]));
    rmdir(path_of(path, "model/sub"));
    rmdir(inside);
    rmdir(top);
}

static void enter(void)
{
    char path[PATH_BYTES];
    qn_context_options options;
    qn_limits limits;
    demand(mkdtemp(top) != NULL && atexit(leave) == 0, "no folder");
    path_of(inside, "model");
    demand(mkdir(inside, 0700) == 0 && mkdir(path_of(path, "model/sub"), 0700) == 0, "no folder");
    for (size_t i = 0; i < 3; i++) {
        FILE *const file = fopen(path_of(path, FILES[i]), "wb");
        demand(file != NULL, "no file");
        for (int k = 0; k < DATA_BYTES; k++)
            fputc(k % 4 == 3 ? 0x40 : k / 4 % 251, file);
        demand(fclose(file) == 0, "no file");
    }
    for (size_t i = 0; i < sizeof(LINKS) / sizeof(LINKS[0]); i++)
        demand(symlink(LINKS[i][1], path_of(path, LINKS[i][0])) == 0, "no link");
    qn_io_init(&real_io);
    qn_io io = real_io;
    io.open = open_counted;
    io.fsync = sync_nothing;
    qn_limits_init(&limits);
    limits.model_bytes = 1; /* weights go beside what is written */
    qn_context_options_init(&options);
    options.io = &io;
    options.limits = &limits;
    options.n_threads = 1;
    demand(qn_context_create(&options, &ctx, NULL) == QN_OK, "no context");
}

/* Keys and values of the lines; keys are kept in `keys`. */
static size_t split(const uint8_t *data, size_t size, external_entry *entries,
                    char keys[][MOST_KEY], char *values)
{
    size_t n = 0;
    for (size_t at = 0; at < size && n < MOST_ENTRIES; n++) {
        const uint8_t *const line = data + at, *const end = memchr(line, '\n', size - at);
        const size_t length = end != NULL ? (size_t)(end - line) : size - at;
        const uint8_t *const sign = memchr(line, '=', length);
        size_t key = sign != NULL ? (size_t)(sign - line) : length;
        const size_t value = sign != NULL ? length - key - 1 : 0;
        key = key < MOST_KEY ? key : MOST_KEY - 1;
        memcpy(keys[n], line, key);
        keys[n][key] = '\0';
        if (value > 0)
            memcpy(values + at, sign + 1, value);
        values[at + value] = '\0';
        entries[n] = (external_entry){keys[n], values + at, value};
        at += length + 1;
    }
    return n;
}

/* Written with its weight beside it, and read from there. */
static void write_and_read(const qn_graph *graph, const qn_tensor *weight)
{
    char path[PATH_BYTES];
    qn_graph *again = NULL;
    qn_error error = {0};
    path_of(path, "model/out.onnx");
    const qn_status status = qn__format_write(graph, path, NULL, NULL, &error);
    if (status == QN_INVALID_ARGUMENT) /* the weight is read from what would be replaced */
        return;
    if (status != QN_OK || qn__format_read(ctx, path, &again, &error) != QN_OK) {
        fprintf(stderr, "%s\n", error.message);
        abort();
    }
    const qn_tensor *const same = qn__graph_find_tensor(again, weight->name);
    demand(same != NULL && same->constant->size_bytes == weight->constant->size_bytes &&
               memcmp(same->constant->data, weight->constant->data, weight->constant->size_bytes) ==
                   0,
           "another weight");
    qn__graph_destroy(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    external_entry entries[MOST_ENTRIES];
    char keys[MOST_ENTRIES][MOST_KEY], path[PATH_BYTES];
    if (ctx == NULL)
        enter();
    if (size < 2)
        return 0;
    char *const values = malloc(size);
    demand(values != NULL, "no memory");
    const size_t n_entries = split(data + 2, size - 2, entries, keys, values);
    qn_blob *const blob = external_model(ctx, data[0] | data[1] << 8, entries, n_entries);
    demand(blob != NULL, "no memory");
    qn_graph *graph = NULL;
    qn_error error = {0};
    n_read = 0;
    const qn_status status =
        qn__onnx_read(ctx, path_of(path, "model/m.onnx"), blob, &graph, &error);
    if (status == QN_OK) {
        const qn_tensor *const weight = qn__graph_find_tensor(graph, "w");
        demand(weight != NULL && weight->constant->size_bytes <= DATA_BYTES, "no weight");
        demand(n_read <= 1, "several files");
        write_and_read(graph, weight);
    } else {
        demand(graph == NULL && error.status == status && status != QN_INTERNAL, "the status");
        demand(strstr(error.message, "m.onnx") != NULL && strchr(error.message, '\n') == NULL,
               error.message);
    }
    qn__graph_destroy(graph);
    qn__blob_unref(blob);
    free(values);
    return 0;
}
