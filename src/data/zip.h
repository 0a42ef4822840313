/* Members of zip archives (.npz): found by the directory at the end, every number checked before it is
 * used. Stored and deflated members; no encryption, no archives in parts, no ZIP64 directory. */
#ifndef QN_DATA_ZIP_H
#define QN_DATA_ZIP_H

#include "core/io.h"

typedef struct qn_zip_member {
    const char *name; /* in the arena */
    uint32_t method;  /* 0 stored, 8 deflated */
    uint32_t crc;
    uint64_t packed_bytes, bytes, header; /* header: offset of its local header */
} qn_zip_member;

/* All members, in the directory's order; *members is freed with qn__free. path is for messages. */
qn_status qn__zip_list(const qn_context *ctx, qn_arena *arena, const qn_file_view *file,
                       const char *path, qn_zip_member **members, size_t *count, qn_error *error);
/* A member's bytes, checked against its sum. Stored ones are borrowed from the file; others are in
 * *own, freed with qn__free. max_bytes: LIMIT above it. */
qn_status qn__zip_read(const qn_context *ctx, const qn_file_view *file, const char *path,
                       const qn_zip_member *member, uint64_t max_bytes, const uint8_t **data,
                       uint8_t **own, qn_error *error);

#endif
