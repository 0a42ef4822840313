/* small_mnn FILE CHANNELS [LAYOUT]: writes the model of tests/small_mnn.h, 24 x 32 pixels, for
 * tests of the commands. */
#include <stdio.h>

#include "core/io.h"
#include "small_mnn.h"

static qn_status write_model(const qn_context *ctx, const char *path, int32_t channels,
                             const char *layout, qn_error *error)
{
    uint8_t *bytes = NULL;
    size_t size_bytes = 0;
    QN_TRY(small_mnn_bytes(ctx, channels, 24, 32, layout, &bytes, &size_bytes, error));
    const qn_status status = qn__file_write_all(ctx, path, bytes, size_bytes, error);
    qn__free(ctx, bytes);
    return status;
}

int main(int argc, char **argv)
{
    qn_error error;
    qn_context *ctx = NULL;
    if (argc < 3)
        return 2;
    if (qn_context_create(NULL, &ctx, &error) != QN_OK)
        return 1;
    const qn_status status =
        write_model(ctx, argv[1], atoi(argv[2]), argc > 3 ? argv[3] : "NCHW", &error);
    if (status != QN_OK)
        fprintf(stderr, "%s: %s\n", qn_status_name(status), error.message);
    qn_context_destroy(ctx);
    return status == QN_OK ? 0 : 1;
}
