/* Bytes as the JSON configuration of MNN's quantizer: an error of one line, or settings within
 * their bounds. With clang's libFuzzer (QN_FUZZ) this is a fuzzer; otherwise replay.c calls it. */
#include <math.h>

#include "memory_file.h"
#include "mnntool/tool.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

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
    file = (memory_file){.data = (uint8_t *)data, .size = size};
    if (ctx == NULL)
        ctx = memory_context(&file, 0, NULL, NULL);
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
