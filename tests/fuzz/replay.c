/* fuzz_mnn_replay FOLDER runs the target on every file of a folder, and on every input inside the
 * files that end in .pack (pack.py); --seeds FOLDER writes the seeds. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

#include "property/mnn_seeds.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int write_seeds(const char *folder)
{
    char path[4096];
    qn_context *ctx = NULL;
    if (qn_context_create(NULL, &ctx, NULL) != QN_OK)
        return 1;
    int code = 0;
    for (int which = 0; which < N_MNN_SEEDS; which++) {
        size_t size;
        uint8_t *bytes = mnn_seed(ctx, which, &size);
        snprintf(path, sizeof(path), "%s/seed%d.mnn", folder, which);
        if (!bytes || qn__file_write_all(ctx, path, bytes, size, NULL) != QN_OK)
            code = 1;
        qn__free(ctx, bytes);
    }
    qn_context_destroy(ctx);
    return code;
}

/* Inputs one after another, each behind its length in 4 bytes. A copy of each: what reads past it
 * is seen. 0: the lengths do not add up. */
static size_t replay_pack(const uint8_t *bytes, size_t size)
{
    size_t count = 0;
    for (size_t at = 0; at < size; count++) {
        size_t length = 0;
        if (size - at < 4)
            return 0;
        for (int i = 3; i >= 0; i--)
            length = length << 8 | bytes[at + (size_t)i];
        at += 4;
        uint8_t *const one = length <= size - at ? malloc(length > 0 ? length : 1) : NULL;
        if (one == NULL)
            return 0;
        memcpy(one, bytes + at, length);
        LLVMFuzzerTestOneInput(one, length);
        free(one);
        at += length;
    }
    return count;
}

/* Number of inputs; 0: the file cannot be read. */
static size_t replay(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        return 0;
    fseek(file, 0, SEEK_END);
    const long size = ftell(file);
    rewind(file);
    uint8_t *bytes = malloc(size > 0 ? (size_t)size : 1);
    const bool whole = bytes && size >= 0 && fread(bytes, 1, (size_t)size, file) == (size_t)size;
    fclose(file);
    const size_t length = strlen(path);
    size_t count = whole ? 1 : 0;
    if (whole && length > 5 && strcmp(path + length - 5, ".pack") == 0)
        count = replay_pack(bytes, (size_t)size);
    else if (whole)
        LLVMFuzzerTestOneInput(bytes, (size_t)size);
    free(bytes);
    return count;
}

int main(int argc, char **argv)
{
    char path[4096];
    size_t count = 0;
    if (argc == 3 && strcmp(argv[1], "--seeds") == 0)
        return write_seeds(argv[2]);
    DIR *folder = argc == 2 ? opendir(argv[1]) : NULL;
    if (!folder) {
        fprintf(stderr, "usage: %s FOLDER | --seeds FOLDER\n", argv[0]);
        return 2;
    }
    int code = 0;
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof(path), "%s/%s", argv[1], entry->d_name);
        const size_t inputs = replay(path);
        if (inputs == 0) {
            fprintf(stderr, "%s: cannot read\n", path);
            code = 1;
        }
        count += inputs;
    }
    closedir(folder);
    printf("%zu inputs\n", count);
    return count == 0 ? 1 : code;
}
