/* Bytes as the JSON configuration of MNN's quantizer: an error of one line, or settings within
 * their bounds. With clang's libFuzzer (QN_FUZZ) this is a fuzzer; otherwise replay.c calls it. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/context.h"
#include "mnntool/tool.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The one file there is. */
typedef struct memory_file {
    const uint8_t *data;
    size_t size, at;
} memory_file;

static int open_memory(void *ctx, const char *path, int flags, int mode)
{
    memory_file *file = ctx;
    (void)path, (void)mode;
    if ((flags & O_CREAT) != 0)
        abort(); /* reading writes nothing */
    file->at = 0;
    return 1000;
}

static int close_memory(void *ctx, int fd)
{
    (void)ctx, (void)fd;
    return 0;
}

static int64_t read_memory(void *ctx, int fd, void *out, size_t size)
{
    memory_file *file = ctx;
    (void)fd;
    if (size > file->size - file->at)
        size = file->size - file->at;
    memcpy(out, file->data + file->at, size);
    file->at += size;
    return (int64_t)size;
}

static int64_t size_memory(void *ctx, int fd, bool *is_regular)
{
    const memory_file *file = ctx;
    (void)fd;
    *is_regular = true;
    return (int64_t)file->size;
}

static void *map_nothing(void *ctx, int fd, size_t size)
{
    (void)ctx, (void)fd, (void)size;
    return NULL;
}

static void demand(bool holds)
{
    if (!holds)
        abort();
}

static void check(const qn_mnn_config *c)
{
    demand(c->path != NULL && c->format != NULL);
    demand(c->channels == 1 || c->channels == 3 || c->channels == 4);
    demand(c->width <= 65535 && c->height <= 65535);
    demand(c->center_crop_h > 0 && c->center_crop_h <= 1);
    demand(c->center_crop_w > 0 && c->center_crop_w <= 1);
    demand(c->bits >= 2 && c->bits <= 8 && c->batch >= 0);
    demand(c->feature_clamp >= 1 && c->feature_clamp <= 127);
    demand(c->weight_clamp >= 1 && c->weight_clamp <= 127);
    for (int i = 0; i < 4; i++)
        demand(isfinite(c->mean[i]) && isfinite(c->normal[i]));
    for (size_t i = 0; i < c->n_inputs; i++)
        demand(c->inputs[i].name != NULL && c->inputs[i].rank <= QN_MAX_RANK);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static qn_context *ctx;
    static memory_file file;
    file = (memory_file){data, size, 0};
    if (ctx == NULL) {
        qn_context_options options;
        qn_io io;
        qn_io_init(&io);
        io.open = open_memory;
        io.close = close_memory;
        io.read = read_memory;
        io.size = size_memory;
        io.map = map_nothing;
        io.ctx = &file;
        qn_context_options_init(&options);
        options.io = &io;
        options.n_threads = 1;
        demand(qn_context_create(&options, &ctx, NULL) == QN_OK);
    }
    qn_mnn_config config;
    qn_error error = {0};
    if (qn__mnn_config_read(ctx, "config.json", 0, &config, &error) == QN_OK) {
        check(&config);
        qn__mnn_config_free(&config);
    } else {
        demand(error.message[0] != '\0' && strchr(error.message, '\n') == NULL);
    }
    return 0;
}
