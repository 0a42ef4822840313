#include "data/zip.h"

#include <inttypes.h>
#include <string.h>
#include <zlib.h>

enum {
    END_BYTES = 22,
    ENTRY_BYTES = 46,
    LOCAL_BYTES = 30,
    COMMENT_MAX = 65535,
    MEMBERS_MAX = 4096,
    NAME_MAX_BYTES = 1024,
    DEFLATE_RATIO = 1032 /* what deflate can make of a byte at most */
};

static uint32_t number(const uint8_t *p, size_t n)
{
    uint32_t v = 0;
    for (size_t i = 0; i < n; i++)
        v |= (uint32_t)p[i] << (8 * i);
    return v;
}

/* The record at the archive's end, in front of a comment of unknown length. */
static const uint8_t *find_end(const qn_file_view *file)
{
    if (file->size_bytes < END_BYTES)
        return NULL;
    const size_t last = file->size_bytes - END_BYTES;
    const size_t first = last > COMMENT_MAX ? last - COMMENT_MAX : 0;
    for (size_t at = last + 1; at-- > first;) {
        const uint8_t *p = file->data + at;
        if (number(p, 4) == 0x06054b50 && number(p + 20, 2) == last - at)
            return p;
    }
    return NULL;
}

static qn_status read_entry(qn_arena *arena, const char *path, const uint8_t *p, size_t left,
                            size_t directory, qn_zip_member *out, size_t *entry_bytes,
                            qn_error *error)
{
    QN_FAIL_IF(left < ENTRY_BYTES || number(p, 4) != 0x02014b50, error, QN_CORRUPT,
               "%s: zip directory is damaged", path);
    const size_t name = number(p + 28, 2);
    *entry_bytes = ENTRY_BYTES + name + number(p + 30, 2) + number(p + 32, 2);
    QN_FAIL_IF(*entry_bytes > left, error, QN_CORRUPT, "%s: zip directory is damaged", path);
    const char *text = (const char *)p + ENTRY_BYTES;
    QN_FAIL_IF(name == 0 || name > NAME_MAX_BYTES || memchr(text, 0, name) != NULL, error,
               QN_CORRUPT, "%s: zip member with a name of %zu bytes", path, name);
    *out = (qn_zip_member){.name = qn__arena_strndup(arena, text, name),
                           .method = number(p + 10, 2),
                           .crc = number(p + 16, 4),
                           .packed_bytes = number(p + 20, 4),
                           .bytes = number(p + 24, 4),
                           .header = number(p + 42, 4)};
    if (out->name == NULL)
        return QN_NOMEM(error);
    QN_FAIL_IF((number(p + 8, 2) & 1) != 0, error, QN_UNSUPPORTED,
               "%s: zip member \"%s\" is encrypted", path, out->name);
    QN_FAIL_IF(out->method != 0 && out->method != 8, error, QN_UNSUPPORTED,
               "%s: zip member \"%s\" is packed with method %u (stored and deflate are read)", path,
               out->name, out->method);
    QN_FAIL_IF(out->packed_bytes == UINT32_MAX || out->bytes == UINT32_MAX ||
                   out->header == UINT32_MAX,
               error, QN_UNSUPPORTED, "%s: zip member \"%s\" has ZIP64 sizes", path, out->name);
    QN_FAIL_IF(out->header >= directory, error, QN_CORRUPT,
               "%s: zip member \"%s\" lies behind the directory", path, out->name);
    return QN_OK;
}

qn_status qn__zip_list(const qn_context *ctx, qn_arena *arena, const qn_file_view *file,
                       const char *path, qn_zip_member **members, size_t *count, qn_error *error)
{
    const uint8_t *end = find_end(file);
    QN_FAIL_IF(end == NULL, error, QN_CORRUPT, "%s: zip directory not found", path);
    const size_t n = number(end + 10, 2), before = (size_t)(end - file->data);
    const size_t bytes = number(end + 12, 4), at = number(end + 16, 4);
    QN_FAIL_IF(number(end + 4, 2) != 0 || number(end + 6, 2) != 0 || number(end + 8, 2) != n, error,
               QN_UNSUPPORTED, "%s: zip archive in several parts", path);
    QN_FAIL_IF(at > before || bytes > before - at || bytes < n * ENTRY_BYTES, error, QN_CORRUPT,
               "%s: zip directory of %zu bytes at %zu does not fit", path, bytes, at);
    QN_FAIL_IF(n > MEMBERS_MAX, error, QN_LIMIT, "%s: %zu zip members, at most %d", path, n,
               MEMBERS_MAX);
    qn_zip_member *list = qn__calloc(ctx, n, sizeof(*list));
    if (list == NULL)
        return QN_NOMEM(error);
    qn_status status = QN_OK;
    size_t done = 0;
    for (size_t i = 0; i < n; i++) {
        size_t entry = 0;
        QN_TRY_GOTO(read_entry(arena, path, file->data + at + done, bytes - done, at, &list[i],
                               &entry, error));
        for (size_t k = 0; k < i; k++)
            if (strcmp(list[k].name, list[i].name) == 0)
                QN_FAIL_GOTO(error, QN_CORRUPT, "%s: two zip members \"%s\"", path, list[i].name);
        done += entry;
    }
    *members = list;
    *count = n;
    list = NULL;
done:
    qn__free(ctx, list);
    return status;
}

/* --- members -----------------------------------------------------------------------------------*/
static voidpf z_alloc(voidpf opaque, uInt items, uInt size)
{
    const qn_context *ctx = opaque;
    return qn__calloc(ctx, items, size);
}

static void z_free(voidpf opaque, voidpf ptr)
{
    const qn_context *ctx = opaque;
    qn__free(ctx, ptr);
}

/* zlib counts in 32 bits, as the sizes of members are. */
static qn_status inflate_all(const qn_context *ctx, const char *path, const qn_zip_member *member,
                             const uint8_t *packed, uint8_t *out, qn_error *error)
{
    uint8_t nothing;
    z_stream z = {.zalloc = z_alloc,
                  .zfree = z_free,
                  .opaque = (voidpf)ctx,
                  .next_in = (z_const Bytef *)packed,
                  .avail_in = (uInt)member->packed_bytes,
                  .next_out = member->bytes > 0 ? out : &nothing,
                  .avail_out = (uInt)member->bytes};
    if (inflateInit2(&z, -15) != Z_OK)
        return QN_NOMEM(error);
    const int result = inflate(&z, Z_FINISH);
    const bool whole = result == Z_STREAM_END && z.avail_out == 0 && z.avail_in == 0;
    inflateEnd(&z);
    if (result == Z_MEM_ERROR)
        return QN_NOMEM(error);
    QN_FAIL_IF(!whole, error, QN_CORRUPT,
               "%s: zip member \"%s\" does not unpack to %" PRIu64 " bytes", path, member->name,
               member->bytes);
    return QN_OK;
}

qn_status qn__zip_read(const qn_context *ctx, const qn_file_view *file, const char *path,
                       const qn_zip_member *member, uint64_t max_bytes, const uint8_t **data,
                       uint8_t **own, qn_error *error)
{
    *own = NULL;
    QN_FAIL_IF(member->bytes > max_bytes, error, QN_LIMIT,
               "%s: zip member \"%s\" has %" PRIu64 " bytes, the limit is %" PRIu64, path,
               member->name, member->bytes, max_bytes);
    QN_FAIL_IF(member->header > file->size_bytes || file->size_bytes - member->header < LOCAL_BYTES,
               error, QN_CORRUPT, "%s: zip member \"%s\" lies outside the file", path,
               member->name);
    const uint8_t *local = file->data + member->header;
    QN_FAIL_IF(number(local, 4) != 0x04034b50, error, QN_CORRUPT,
               "%s: zip member \"%s\" has no header", path, member->name);
    const size_t skip = LOCAL_BYTES + number(local + 26, 2) + number(local + 28, 2);
    const uint64_t left = file->size_bytes - member->header;
    QN_FAIL_IF(skip > left || member->packed_bytes > left - skip, error, QN_CORRUPT,
               "%s: zip member \"%s\" lies outside the file", path, member->name);
    const uint8_t *packed = local + skip;
    if (member->method == 0) {
        QN_FAIL_IF(member->packed_bytes != member->bytes, error, QN_CORRUPT,
                   "%s: zip member \"%s\" is stored in another size", path, member->name);
        *data = packed;
    } else {
        QN_FAIL_IF(member->bytes / DEFLATE_RATIO > member->packed_bytes, error, QN_CORRUPT,
                   "%s: zip member \"%s\": %" PRIu64 " bytes cannot unpack to %" PRIu64, path,
                   member->name, member->packed_bytes, member->bytes);
        *own = qn__alloc(ctx, (size_t)member->bytes + 1);
        if (*own == NULL)
            return QN_NOMEM(error);
        const qn_status status = inflate_all(ctx, path, member, packed, *own, error);
        if (status != QN_OK) {
            qn__free(ctx, *own);
            *own = NULL;
            return status;
        }
        *data = *own;
    }
    uint32_t crc = 0;
    for (uint64_t at = 0; at < member->bytes;) { /* uInt has 32 bits, and so have sizes */
        const uint64_t n = member->bytes - at < (1u << 30) ? member->bytes - at : (1u << 30);
        crc = (uint32_t)crc32(crc, *data + at, (uInt)n);
        at += n;
    }
    if (crc != member->crc) {
        qn__free(ctx, *own);
        *own = NULL;
        QN_FAIL(error, QN_CORRUPT, "%s: zip member \"%s\" is damaged: its checksum is another", path,
                member->name);
    }
    return QN_OK;
}
