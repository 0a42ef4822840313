/* The .mnn schema as the table that the FlatBuffers reader and builder go by. */
#include "format/mnn/mnn_schema.h"

#include <string.h>

enum {
    TARGET_NONE = -1,
    TARGET_OpParameter = 0, /* the only union */
#define QN_MNN_RECORD(record) TARGET_##record = QN_MNN_REC_##record,
#define QN_MNN_FIELD(record, slot, field, kind, element, target, fallback)
#include "format/mnn/mnn_schema.def"
#undef QN_MNN_FIELD
#undef QN_MNN_RECORD
};

/* One array of fields per record, each closed by an entry without a name. */
__attribute__((unused)) static const qn_fb_field FIELDS_BEFORE[] = {
#define QN_MNN_RECORD(record)                                                                      \
    {                                                                                              \
        NULL                                                                                       \
    }                                                                                              \
    }                                                                                              \
    ;                                                                                              \
    static const qn_fb_field FIELDS_##record[] = {
#define QN_MNN_FIELD(record, slot, field, kind, element, target, fallback)                         \
    {#field, QN_FB_##kind, QN_FB_##element, TARGET_##target, fallback},
#include "format/mnn/mnn_schema.def"
#undef QN_MNN_FIELD
#undef QN_MNN_RECORD
    {NULL}};

static const qn_fb_record RECORDS[] = {
#define QN_MNN_RECORD(record)                                                                      \
    {#record, (uint32_t)(sizeof(FIELDS_##record) / sizeof(qn_fb_field) - 1), FIELDS_##record},
#define QN_MNN_FIELD(record, slot, field, kind, element, target, fallback)
#include "format/mnn/mnn_schema.def"
#undef QN_MNN_FIELD
#undef QN_MNN_RECORD
};

/* Tags are dense from 1; 0 means no parameters. */
static const int32_t OP_PARAMETERS[] = {
    [0] = -1,
#define QN_MNN_MEMBER(union_, tag, record) [tag] = QN_MNN_REC_##record,
#include "format/mnn/mnn_schema.def"
#undef QN_MNN_MEMBER
};

static const qn_fb_union UNIONS[] = {
    {"OpParameter", sizeof(OP_PARAMETERS) / sizeof(OP_PARAMETERS[0]), OP_PARAMETERS}};

const qn_fb_schema qn__mnn_schema = {
    "MNN", RECORDS, sizeof(RECORDS) / sizeof(RECORDS[0]), UNIONS, 1, QN_MNN_REC_Net, NULL};

static const struct {
    const char *enumeration, *name;
    int32_t value;
} ENUMS[] = {
#define QN_MNN_ENUM(enumeration, value, name) {#enumeration, #name, value},
#include "format/mnn/mnn_schema.def"
#undef QN_MNN_ENUM
};

const char *qn__mnn_op_name(int64_t type)
{
    for (size_t i = 0; i < sizeof(ENUMS) / sizeof(ENUMS[0]); i++)
        if (ENUMS[i].value == type && strcmp(ENUMS[i].enumeration, "OpType") == 0)
            return ENUMS[i].name;
    return NULL;
}

qn_mnn_move qn__mnn_move(int64_t type)
{
    switch (type) {
    case QN_MNN_OpType_ConvertTensor:
    case QN_MNN_OpType_Reshape:
    case QN_MNN_OpType_Squeeze:
    case QN_MNN_OpType_Unsqueeze:
    case QN_MNN_OpType_ExpandDims:
    case QN_MNN_OpType_Flatten:
    case QN_MNN_OpType_Permute:
    case QN_MNN_OpType_Transpose:
        return QN_MNN_MOVE_ALL;
    case QN_MNN_OpType_Slice:
    case QN_MNN_OpType_SliceTf:
    case QN_MNN_OpType_StridedSlice:
    case QN_MNN_OpType_Crop:
    case QN_MNN_OpType_Gather:
    case QN_MNN_OpType_GatherV2:
    case QN_MNN_OpType_BroadcastTo:
    case QN_MNN_OpType_Tile:
    case QN_MNN_OpType_DepthToSpace:
    case QN_MNN_OpType_SpaceToDepth:
        return QN_MNN_MOVE_SOME;
    case QN_MNN_OpType_Concat:
    case QN_MNN_OpType_Pack:
    case QN_MNN_OpType_Unpack:
    case QN_MNN_OpType_Padding:
        return QN_MNN_MOVE_OTHER;
    default:
        return QN_MNN_MOVE_NONE;
    }
}
