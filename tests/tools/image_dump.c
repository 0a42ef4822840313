/* image_dump FILE CHANNELS[m] [WxH FILTER [X,Y,W,H]]: decodes, perhaps resizes, and writes "WIDTH
 * HEIGHT CHANNELS" and the pixels to stdout. For comparison with other
 * libraries. CHANNELS followed by "m": JPEG as MNN's decoder. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/io.h"
#include "data/image.h"

static qn_filter parse_filter(const char *text)
{
    static const char *const names[] = {"bilinear", "bilinear-plain", "bicubic", "nearest",
                                        "mnn",      "mnn-truncate"};
    for (int i = 0; i < 6; i++)
        if (strcmp(text, names[i]) == 0)
            return (qn_filter)i;
    fprintf(stderr, "unknown filter %s\n", text);
    exit(2);
}

static qn_status dump(const qn_context *ctx, int argc, char **argv, qn_error *error)
{
    qn_file_view view;
    QN_TRY(qn__file_open(ctx, argv[1], &view, error));
    qn_image image;
    qn_status status = (strchr(argv[2], 'm') != NULL ? qn__image_decode_as_mnn : qn__image_decode)(
        ctx, view.data, view.size_bytes, argv[1], (uint32_t)atoi(argv[2]), &image, error);
    qn__file_close(ctx, &view);
    if (status != QN_OK)
        return status;
    if (argc >= 5) {
        unsigned width = 0, height = 0;
        qn_image resized;
        if (sscanf(argv[3], "%ux%u", &width, &height) != 2)
            exit(2);
        const qn_filter filter = parse_filter(argv[4]);
        if (filter >= QN_FILTER_MNN) {
            qn_mnn_resize r = {0,     0,      image.width,           image.height,
                               width, height, filter > QN_FILTER_MNN};
            if (argc == 6 && sscanf(argv[5], "%u,%u,%u,%u", &r.x0, &r.y0, &r.width, &r.height) != 4)
                exit(2);
            status = qn__image_resize_mnn(&image, &r, &resized, error);
        } else {
            status = qn__image_resize(&image, width, height, filter, &resized, error);
        }
        qn__image_free(&image);
        if (status != QN_OK)
            return status;
        image = resized;
    }
    printf("%u %u %u\n", image.width, image.height, image.channels);
    fwrite(image.pixels, 1, (size_t)image.width * image.height * image.channels, stdout);
    qn__image_free(&image);
    return QN_OK;
}

int main(int argc, char **argv)
{
    qn_error error;
    qn_context *ctx = NULL;
    if (argc != 3 && argc != 5 && argc != 6)
        return 2;
    const qn_context_options options = {.struct_size = sizeof(options), .n_threads = 1};
    if (qn_context_create(&options, &ctx, &error) != QN_OK)
        return 1;
    const qn_status status = dump(ctx, argc, argv, &error);
    if (status != QN_OK)
        fprintf(stderr, "%s: %s\n", qn_status_name(status), error.message);
    qn_context_destroy(ctx);
    return status == QN_OK ? 0 : 1;
}
