/* Text files that name samples: lists (one path per line) and label tables (csv). */
#ifndef QN_DATA_LISTS_H
#define QN_DATA_LISTS_H

#include "core/context.h"

/* Lines without their end, empty ones left out. *lines is freed with qn__free, the strings are in
 * the arena. CORRUPT: a NUL byte or a line above 4096 bytes. */
qn_status qn__list_read(const qn_context *ctx, qn_arena *arena, const char *path,
                        const char ***lines, size_t *count, qn_error *error);
/* "row N" (or N alone): true and the number. */
bool qn__list_row(const char *text, uint64_t *row);

typedef struct qn_label {
    const char *name; /* first column: file or row number */
    int64_t value;    /* second column */
    size_t line;
} qn_label;
/* csv of name,class_index; a first line whose second column is no number is a header. Fields may be
 * quoted; further columns are ignored. Same ownership as qn__list_read. */
qn_status qn__labels_read(const qn_context *ctx, qn_arena *arena, const char *path,
                          qn_label **labels, size_t *count, qn_error *error);

/* In place: indices of `count` of the n samples, rising. Evenly spaced, or drawn (use_seed). */
qn_status qn__select_samples(const qn_context *ctx, size_t n, size_t count, bool use_seed,
                             uint64_t seed, size_t *indices, qn_error *error);

#endif
