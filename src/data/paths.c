#include "data/paths.h"

#include <limits.h>
#include <string.h>
#include <unistd.h>

char *qn__path_join(qn_arena *arena, const char *dir, const char *name)
{
    const size_t n = strlen(dir);
    if (name[0] == '/' || n == 0)
        return qn__arena_strdup(arena, name);
    return qn__arena_printf(arena, "%s%s%s", dir, dir[n - 1] == '/' ? "" : "/", name);
}

char *qn__path_dir(qn_arena *arena, const char *path)
{
    const char *slash = strrchr(path, '/');
    if (slash == NULL)
        return qn__arena_strdup(arena, "");
    return qn__arena_strndup(arena, path, slash == path ? 1 : (size_t)(slash - path));
}

char *qn__path_normal(qn_arena *arena, const char *path)
{
    char folder[PATH_MAX] = "/";
    /* Without a current folder relative paths still compare equal with each other. */
    if (path[0] != '/' && getcwd(folder, sizeof(folder)) == NULL)
        memcpy(folder, "/", 2);
    char *full = path[0] == '/' ? qn__arena_strdup(arena, path)
                                : qn__arena_printf(arena, "%s/%s", folder, path);
    if (full == NULL)
        return NULL;
    size_t out = 0;
    for (size_t i = 0; full[i] != '\0';) {
        while (full[i] == '/')
            i++;
        const size_t length = strcspn(full + i, "/");
        if (length == 2 && memcmp(full + i, "..", 2) == 0) {
            while (out > 0 && full[--out] != '/')
                ;
        } else if (length > 0 && !(length == 1 && full[i] == '.')) {
            full[out++] = '/'; /* out < i: every part read so far had a slash in front */
            memmove(full + out, full + i, length);
            out += length;
        }
        i += length;
    }
    if (out == 0)
        full[out++] = '/';
    full[out] = '\0';
    return full;
}

char *qn__path_relative(qn_arena *arena, const char *dir, const char *path)
{
    const char *from = qn__path_normal(arena, dir);
    const char *to = qn__path_normal(arena, path);
    if (from == NULL || to == NULL)
        return NULL;
    if (strcmp(from, "/") == 0)
        from = "";
    size_t common = 0; /* length of the leading whole components both share */
    for (size_t i = 0;; i++) {
        const bool from_end = from[i] == '\0' || from[i] == '/';
        const bool to_end = to[i] == '\0' || to[i] == '/';
        if (from_end && to_end)
            common = i;
        if (from[i] != to[i] || from[i] == '\0')
            break;
    }
    char *up = qn__arena_strdup(arena, "");
    for (const char *p = from + common; *p != '\0' && up != NULL; p++)
        if (*p == '/')
            up = qn__arena_printf(arena, "%s../", up);
    if (up == NULL)
        return NULL;
    const char *rest = to[common] == '/' ? to + common + 1 : to + common;
    return qn__arena_printf(arena, "%s%s", up, rest);
}
