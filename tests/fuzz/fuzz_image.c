/* Bytes as a picture: the first byte says how many channels are wanted and whose JPEG arithmetic.
 * Refused with one line, or pixels within the limits, all of them written. With clang's libFuzzer
 * (QN_FUZZ) this is a fuzzer; otherwise replay.c calls it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/data.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MOST_PIXELS = 1 << 16 };

static void demand(bool holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "%s\n", what);
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static qn_context *ctx;
    uint64_t sum = 0;
    static const uint32_t CHANNELS[] = {3, 1, 4};
    if (ctx == NULL) {
        qn_context_options options;
        qn_limits limits;
        qn_limits_init(&limits);
        limits.image_pixels = MOST_PIXELS;
        qn_context_options_init(&options);
        options.limits = &limits;
        options.n_threads = 1;
        demand(qn_context_create(&options, &ctx, NULL) == QN_OK, "no context");
    }
    if (size == 0)
        return 0;
    const uint32_t channels = CHANNELS[data[0] % 3];
    qn_image image = {0};
    qn_error error = {0};
    const qn_status status =
        data[0] & 0x80
            ? qn__image_decode_as_mnn(ctx, data + 1, size - 1, "p", channels, &image, &error)
            : qn__image_decode(ctx, data + 1, size - 1, "p", channels, &image, &error);
    if (status == QN_OK) {
        demand(image.channels == channels && image.width > 0 && image.height > 0 &&
                   (uint64_t)image.width * image.height <= MOST_PIXELS,
               "a picture above the limits");
        for (size_t i = 0; i < (size_t)image.width * image.height * channels; i++)
            sum += image.pixels[i];
        demand(sum <= (uint64_t)MOST_PIXELS * 4 * 255, "the sum");
    } else {
        demand(status != QN_INTERNAL && error.status == status, "the status");
        demand(strncmp(error.message, "p: ", 3) == 0 && strchr(error.message, '\n') == NULL,
               error.message);
        demand(image.pixels == NULL, "pixels with an error");
    }
    qn__image_free(&image);
    return 0;
}
