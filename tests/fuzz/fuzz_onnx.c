/* Bytes as an ONNX file: read, verified, written in both forms and read again, and run once unless
 * that is long. With clang's libFuzzer (QN_FUZZ) this is a fuzzer; otherwise replay.c calls it. */
#include <stdlib.h>

#include "property/onnx_try.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static onnx_place place;
static qn_context *ctx;

static void leave(void)
{
    onnx_leave(&place, ctx);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (ctx == NULL) {
        ctx = onnx_enter(&place);
        if (ctx == NULL || atexit(leave) != 0)
            abort();
    }
    const onnx_fate fate = onnx_try(ctx, &place, data, size);
    if (fate.wrong != NULL) {
        fprintf(stderr, "%s\n", fate.wrong);
        abort();
    }
    return 0;
}
