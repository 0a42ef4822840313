/* Path arithmetic for lists: nothing here touches the files named. */
#ifndef QN_DATA_PATHS_H
#define QN_DATA_PATHS_H

#include "core/context.h"

/* All return arena strings, NULL when out of memory. */
/* "dir/name", or name alone when it is absolute or dir is empty. */
char *qn__path_join(qn_arena *arena, const char *dir, const char *name);
/* Folder part of path, "" when it has none. */
char *qn__path_dir(qn_arena *arena, const char *path);
/* Absolute, without ".", ".." and doubled slashes; symbolic links are not followed. */
char *qn__path_normal(qn_arena *arena, const char *path);
/* How path is written from the folder dir. */
char *qn__path_relative(qn_arena *arena, const char *dir, const char *path);

/* Names in a folder with a picture's extension (any case), sorted by bytes; names beginning with a
 * dot and folders are left out. *names is freed with qn__free, the strings are in the arena. */
qn_status qn__dir_pictures(const qn_context *ctx, qn_arena *arena, const char *dir,
                           const char ***names, size_t *count, qn_error *error);

/* All names in a folder that do not begin with a dot, folders too; the same ownership. */
qn_status qn__dir_entries(const qn_context *ctx, qn_arena *arena, const char *dir,
                          const char ***names, size_t *count, qn_error *error);

#endif
