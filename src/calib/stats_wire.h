/* Numbers in a statistics file: little-endian, whole numbers of variable length, floats with the
 * zeros left out. */
#ifndef QN_CALIB_STATS_WIRE_H
#define QN_CALIB_STATS_WIRE_H

#include "core/strbuf.h"
#include "format/qnm/qnm_wire.h"

/* Seven bits a byte, lowest first. */
void qn__put_varint(qn_strbuf *buf, uint64_t value);
void qn__put_fixed(qn_strbuf *buf, uint64_t value, size_t bytes);
void qn__put_f32(qn_strbuf *buf, float value);
void qn__put_f64(qn_strbuf *buf, double value);
void qn__put_text(qn_strbuf *buf, const char *text);
/* A byte of flags for every eight floats, then those that are not +0. */
void qn__put_floats(qn_strbuf *buf, const float *values, size_t count);

/* Behind the end, or where no writer would have put it so, the cursor's `failed` is set. */
uint64_t qn__get_varint(qn_qnm_cursor *c);
double qn__get_f64(qn_qnm_cursor *c);
/* Bytes of a text (not terminated); NULL: failed. */
const char *qn__get_text(qn_qnm_cursor *c, size_t *length);
void qn__get_floats(qn_qnm_cursor *c, float *values, size_t count);
/* Could `count` floats still come? To be asked before room for them is made. */
static inline bool qn_floats_fit(const qn_qnm_cursor *c, size_t count)
{
    return !c->failed && count / 8 <= c->left;
}

#endif
