/* The only place that reads a folder. */
#include "data/paths.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static bool is_picture(const struct dirent *entry)
{
    static const char *const extensions[] = {"jpg", "jpeg", "png", "webp",
                                             "bmp", "pgm",  "ppm", "pnm"};
    const char *dot = strrchr(entry->d_name, '.');
    if (entry->d_name[0] == '.' || dot == NULL || entry->d_type == DT_DIR)
        return false;
    for (size_t i = 0; i < sizeof(extensions) / sizeof(extensions[0]); i++)
        if (strcasecmp(dot + 1, extensions[i]) == 0)
            return true;
    return false;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static qn_status system_error(const char *dir, int code, qn_error *error)
{
    char text[128];
    QN_FAIL(error, QN_IO, "%s: %s", dir, strerror_r(code, text, sizeof(text)));
}

static bool is_visible(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static qn_status list_names(const qn_context *ctx, qn_arena *arena, const char *dir,
                            bool (*wanted)(const struct dirent *entry), const char ***names,
                            size_t *count, qn_error *error)
{
    DIR *stream = opendir(dir);
    if (stream == NULL)
        return system_error(dir, errno, error);
    qn_status status = QN_OK;
    const char **list = NULL;
    size_t n = 0, capacity = 0;
    for (;;) {
        errno = 0;
        const struct dirent *entry = readdir(stream);
        if (entry == NULL && errno != 0) {
            status = system_error(dir, errno, error);
            goto done;
        }
        if (entry == NULL)
            break;
        if (!wanted(entry))
            continue;
        char *name = qn__arena_strdup(arena, entry->d_name);
        if (name == NULL || !QN_GROW(ctx, &list, &capacity, n)) {
            status = QN_NOMEM(error);
            goto done;
        }
        list[n++] = name;
    }
    if (n > 0)
        qsort(list, n, sizeof(*list), compare_names);
    *names = list;
    *count = n;
    list = NULL;
done:
    closedir(stream);
    qn__free(ctx, list);
    return status;
}

qn_status qn__dir_pictures(const qn_context *ctx, qn_arena *arena, const char *dir,
                           const char ***names, size_t *count, qn_error *error)
{
    return list_names(ctx, arena, dir, is_picture, names, count, error);
}

qn_status qn__dir_entries(const qn_context *ctx, qn_arena *arena, const char *dir,
                          const char ***names, size_t *count, qn_error *error)
{
    return list_names(ctx, arena, dir, is_visible, names, count, error);
}
