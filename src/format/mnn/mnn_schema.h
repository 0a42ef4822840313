/* The .mnn schema as constants and as a table (mnn_schema.def). Slots are
 * QN_MNN_<record>_<field>, records QN_MNN_REC_<record>, enumeration values
 * QN_MNN_<enumeration>_<name>. */
#ifndef QN_FORMAT_MNN_SCHEMA_H
#define QN_FORMAT_MNN_SCHEMA_H

#include "format/flatbuf/flatbuf.h"

enum {
#define QN_MNN_RECORD(record)
#define QN_MNN_FIELD(record, slot, field, kind, element, target, fallback)                         \
    QN_MNN_##record##_##field = slot,
#include "format/mnn/mnn_schema.def"
#undef QN_MNN_FIELD
#undef QN_MNN_RECORD
    QN_MNN_SLOTS_END
};

enum {
#define QN_MNN_RECORD(record) QN_MNN_REC_##record,
#define QN_MNN_FIELD(record, slot, field, kind, element, target, fallback)
#include "format/mnn/mnn_schema.def"
#undef QN_MNN_FIELD
#undef QN_MNN_RECORD
    QN_MNN_N_RECORDS
};

enum {
#define QN_MNN_ENUM(enumeration, value, name) QN_MNN_##enumeration##_##name = value,
#include "format/mnn/mnn_schema.def"
#undef QN_MNN_ENUM
    QN_MNN_ENUMS_END
};

enum {
#define QN_MNN_MEMBER(union_, tag, record) QN_MNN_TAG_##record = tag,
#include "format/mnn/mnn_schema.def"
#undef QN_MNN_MEMBER
    QN_MNN_TAGS_END
};

extern const qn_fb_schema qn__mnn_schema;
/* "Convolution" of OpType; NULL: not a known operator. */
const char *qn__mnn_op_name(int64_t type);

/* Operators that become MNN's Raster: their outputs are copies of input values. */
typedef enum qn_mnn_move {
    QN_MNN_MOVE_NONE = 0, /* not one of them */
    QN_MNN_MOVE_ALL,      /* every value of one tensor, once */
    QN_MNN_MOVE_SOME,     /* chosen or repeated values of one tensor, or its blocks */
    QN_MNN_MOVE_OTHER     /* several tensors, or values that are made up (pads) */
} qn_mnn_move;
qn_mnn_move qn__mnn_move(int64_t type);

#endif
