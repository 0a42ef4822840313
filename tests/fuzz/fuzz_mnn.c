/* Bytes as a .mnn file: read by table and as a graph, verified, written as .mnn and .onnx. With
 * clang's libFuzzer (QN_FUZZ) this is a fuzzer; otherwise replay.c calls it for a corpus. */
#include <stdlib.h>

#include "property/mnn_seeds.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static qn_context *ctx;
    if (!ctx)
        ctx = mnn_hostile_context();
    if (!ctx || !mnn_try(ctx, data, size).ok)
        abort();
    return 0;
}
