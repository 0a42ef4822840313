/* Bytes as a compact file (.qnm): with and without its checksum; what is accepted is verified,
 * written, read again and written the same, and run once unless that is long. With clang's
 * libFuzzer (QN_FUZZ) this is a fuzzer; otherwise replay.c calls it for a corpus. */
#include <stdlib.h>

#include "property/qnm_seeds.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static memory_file file;
    static qn_context *ctx;
    if (ctx == NULL)
        ctx = qnm_context(&file, NULL);
    if (ctx == NULL || !qnm_try(ctx, &file, data, size).ok)
        abort();
    return 0;
}
