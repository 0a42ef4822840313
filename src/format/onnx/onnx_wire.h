/* Protobuf messages as bounded streams over bytes that stay where they are. */
#ifndef QN_FORMAT_ONNX_WIRE_H
#define QN_FORMAT_ONNX_WIRE_H

#include <pb_decode.h>

#include "core/alloc.h"

typedef struct qn_span {
    const uint8_t *data;
    size_t size;
} qn_span;

/* One message being read. */
typedef struct qn_wire {
    pb_istream_t stream;
    const uint8_t *end;
    const char *what; /* "GraphProto", for messages */
    uint32_t depth_left;
} qn_wire;

typedef struct qn_field {
    uint32_t number;
    pb_wire_type_t type;
    uint64_t value; /* VARINT, 32BIT (bits), 64BIT (bits) */
    qn_span body;   /* STRING: the bytes */
    qn_span whole;  /* tag included */
} qn_field;

qn_wire qn__wire_open(qn_span message, const char *what, uint32_t depth);
/* A message inside w; LIMIT when nested too deep. */
qn_status qn__wire_enter(const qn_wire *w, const qn_field *field, const char *what, qn_wire *out,
                         qn_error *error);
/* Next field; *more false at the end. CORRUPT where the bytes break the wire format. */
qn_status qn__wire_next(qn_wire *w, qn_field *field, bool *more, qn_error *error);
/* CORRUPT unless the field has that wire type. */
qn_status qn__wire_expect(const qn_wire *w, const qn_field *field, pb_wire_type_t type,
                          qn_error *error);
/* Copies a string field; CORRUPT when it holds a NUL. */
qn_status qn__wire_string(const qn_wire *w, const qn_field *field, qn_arena *arena,
                          const char **out, qn_error *error);
/* Number of elements a repeated scalar field adds: packed or single. CORRUPT on ragged bytes. */
qn_status qn__wire_scalar_count(const qn_wire *w, const qn_field *field, pb_wire_type_t element,
                                size_t *count, qn_error *error);
/* Calls put(arg, bits) per element of a repeated scalar field, packed or single. */
typedef void (*qn_wire_put)(void *arg, uint64_t bits);
qn_status qn__wire_scalars(const qn_wire *w, const qn_field *field, pb_wire_type_t element,
                           qn_wire_put put, void *arg, qn_error *error);

#endif
