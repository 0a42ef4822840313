/* Bytes as a statistics file, as they are and with checksums that fit; what is accepted is
 * described, written, read again and written the same. With clang's libFuzzer (QN_FUZZ) this is a
 * fuzzer; otherwise replay.c calls it for a corpus. */
#include "stats_seed.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static memory_file file;
    static qn_context *ctx;
    bool accepted;
    if (ctx == NULL)
        ctx = stats_context(&file);
    if (ctx == NULL || size > STATS_MOST_BYTES / 4)
        return 0;
    for (int fix = 0; fix < 2; fix++) {
        memcpy(file.data, data, size);
        file.size = size;
        if (fix != 0)
            stats_fix_checksums(file.data, size);
        if (!stats_try(ctx, &file, &accepted))
            abort();
    }
    return 0;
}
