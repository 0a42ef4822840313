/* fuzz_mnn_replay FOLDER runs the target on every file of a folder; --seeds FOLDER writes the
 * seeds. */
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

static int replay(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        return 1;
    fseek(file, 0, SEEK_END);
    const long size = ftell(file);
    rewind(file);
    uint8_t *bytes = malloc(size > 0 ? (size_t)size : 1);
    const bool whole = bytes && size >= 0 && fread(bytes, 1, (size_t)size, file) == (size_t)size;
    fclose(file);
    if (whole)
        LLVMFuzzerTestOneInput(bytes, (size_t)size);
    free(bytes);
    return whole ? 0 : 1;
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
        if (replay(path) != 0) {
            fprintf(stderr, "%s: cannot read\n", path);
            code = 1;
        }
        count++;
    }
    closedir(folder);
    printf("%zu files\n", count);
    return count == 0 ? 1 : code;
}
