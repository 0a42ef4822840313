/* What the files of the FlatBuffers reader and builder share. */
#ifndef QN_FORMAT_FB_INTERNAL_H
#define QN_FORMAT_FB_INTERNAL_H

#include <string.h>

#include "format/flatbuf/flatbuf.h"

/* Reading, building and dumping recurse by table; limits.nesting may only lower this. */
enum { FB_MAX_DEPTH = 256, FB_WAY_BYTES = 512 };

/* Offsets are signed 32-bit numbers to some readers. */
#define FB_MAX_BYTES ((uint64_t)INT32_MAX)

static inline uint16_t fb_load16(const uint8_t *at)
{
    uint16_t value;
    memcpy(&value, at, sizeof(value));
    return value;
}

static inline uint32_t fb_load32(const uint8_t *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof(value));
    return value;
}

/* One step from the root to where we are: field `slot` of a record, element `index` (-1: not a
 * vector). The innermost step may have slot -1: the table itself. */
typedef struct fb_way {
    const struct fb_way *up;
    const qn_fb_record *record;
    int64_t slot, index;
} fb_way;
/* "Net.oplists[12].main" */
void qn__fb_way_text(const fb_way *way, char text[FB_WAY_BYTES]);

uint32_t qn__fb_max_depth(const qn_context *ctx);
/* One scalar from its bytes in a file, and back. */
qn_fb_value qn__fb_load(qn_fb_scalar type, const uint8_t *at);
void qn__fb_store(qn_fb_scalar type, const qn_fb_value *value, uint8_t *at);
bool qn__fb_is_real(qn_fb_scalar type);
uint64_t qn__fb_hash(const void *data, size_t size_bytes);

#endif
