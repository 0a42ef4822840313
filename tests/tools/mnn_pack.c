/* mnn_pack ROWS COLUMNS BITS linear|narrow dense|sparse: packs the int8 weights on stdin as MNN
 * does. stdout: the type and whether dimensions are 32 bits wide, in two digits and a line's end,
 * then the bytes. */
#include "core/alloc.h"
#include "format/mnn/mnn_format.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv)
{
    if (argc != 6) {
        fprintf(stderr, "usage: mnn_pack ROWS COLUMNS BITS linear|narrow dense|sparse\n");
        return 2;
    }
    const size_t rows = strtoul(argv[1], NULL, 10), columns = strtoul(argv[2], NULL, 10);
    qn_error error = {0};
    qn_context *ctx = NULL;
    if (qn_context_create(NULL, &ctx, &error) != QN_OK) {
        fprintf(stderr, "%s\n", error.message);
        return 1;
    }
    int8_t *q = qn__alloc(ctx, rows * columns);
    uint8_t *buffer = NULL;
    size_t size_bytes = 0;
    int32_t type = 0;
    bool wide = false;
    int failed = q == NULL || fread(q, 1, rows * columns, stdin) != rows * columns;
    if (!failed)
        failed = qn__mnn_pack(ctx, q, rows, columns, (uint32_t)strtoul(argv[3], NULL, 10),
                              strcmp(argv[4], "linear") == 0, strcmp(argv[5], "sparse") == 0,
                              &buffer, &size_bytes, &type, &wide, &error) != QN_OK;
    if (failed)
        fprintf(stderr, "%s\n", error.message);
    else
        failed = printf("%d%d\n", type, wide) < 0 ||
                 fwrite(buffer, 1, size_bytes, stdout) != size_bytes || fflush(stdout) != 0;
    qn__free(ctx, buffer);
    qn__free(ctx, q);
    qn_context_destroy(ctx);
    return failed;
}
