/* Storage types and element access. Packed sub-byte elements lie lowest bits first. */
#include "ir/type.h"

#include <string.h>

typedef struct dtype_info {
    const char *name;
    uint32_t bits;
    bool is_float, is_signed;
    int64_t onnx;
} dtype_info;

static const dtype_info DTYPES[QN_DTYPE_COUNT] = {
    [QN_DTYPE_NONE] = {"unknown", 0, false, false, 0},
#define QN_DTYPE(id, name, bits, is_float, is_signed, onnx)                                        \
    [QN_DTYPE_##id] = {name, bits, is_float, is_signed, onnx},
#include "ir/dtypes.def"
#undef QN_DTYPE
};

static const dtype_info *info(qn_dtype dtype)
{
    return (unsigned)dtype < QN_DTYPE_COUNT ? &DTYPES[dtype] : &DTYPES[QN_DTYPE_NONE];
}

const char *qn__dtype_name(qn_dtype dtype)
{
    return info(dtype)->name;
}

uint32_t qn__dtype_bits(qn_dtype dtype)
{
    return info(dtype)->bits;
}

bool qn__dtype_is_float(qn_dtype dtype)
{
    return info(dtype)->is_float;
}

bool qn__dtype_is_signed(qn_dtype dtype)
{
    return info(dtype)->is_signed;
}

int64_t qn__dtype_onnx(qn_dtype dtype)
{
    return info(dtype)->onnx;
}

qn_dtype qn__dtype_of_onnx(int64_t code)
{
    for (int i = QN_DTYPE_NONE + 1; i < QN_DTYPE_COUNT; i++)
        if (DTYPES[i].onnx == code)
            return (qn_dtype)i;
    return QN_DTYPE_NONE;
}

bool qn__dtype_bytes(size_t *out, qn_dtype dtype, size_t count)
{
    const size_t bits = info(dtype)->bits;
    if (bits >= 8)
        return qn_mul_size(out, count, bits / 8);
    if (bits == 0)
        return false;
    const size_t per_byte = 8 / bits;
    *out = count / per_byte + (count % per_byte != 0);
    return true;
}

bool qn__dim_equal(qn_dim a, qn_dim b)
{
    if (a.kind != b.kind || a.kind == QN_DIM_DATA)
        return false;
    return a.value == b.value && (a.kind == QN_DIM_CONST || a.symbol == b.symbol);
}

/* memcpy, because mapped files give any alignment. */
#define LOAD(ctype)                                                                                \
    do {                                                                                           \
        ctype value_;                                                                              \
        memcpy(&value_, (const uint8_t *)data + index * sizeof(value_), sizeof(value_));           \
        return value_;                                                                             \
    } while (0)
#define STORE(ctype)                                                                               \
    do {                                                                                           \
        const ctype value_ = (ctype)value;                                                         \
        memcpy((uint8_t *)data + index * sizeof(value_), &value_, sizeof(value_));                 \
    } while (0)

static uint32_t load_bits(const void *data, uint32_t bits, size_t index)
{
    const size_t per_byte = 8 / bits;
    const uint8_t byte = ((const uint8_t *)data)[index / per_byte];
    const uint32_t shift = (uint32_t)(index % per_byte) * bits;
    return (uint32_t)(byte >> shift) & ((1u << bits) - 1u);
}

static void store_bits(void *data, uint32_t bits, size_t index, int64_t value)
{
    const size_t per_byte = 8 / bits;
    uint8_t *byte = (uint8_t *)data + index / per_byte;
    const uint32_t shift = (uint32_t)(index % per_byte) * bits;
    const uint32_t mask = ((1u << bits) - 1u) << shift;
    *byte = (uint8_t)((*byte & ~mask) | (((uint32_t)(uint64_t)value << shift) & mask));
}

static int64_t sign_extend(uint32_t value, uint32_t bits)
{
    const uint32_t sign = 1u << (bits - 1);
    return (int64_t)(value ^ sign) - (int64_t)sign;
}

int64_t qn__load_int(const void *data, qn_dtype dtype, size_t index)
{
    switch (dtype) {
    case QN_DTYPE_I8:
        LOAD(int8_t);
    case QN_DTYPE_U8:
        LOAD(uint8_t);
    case QN_DTYPE_I16:
        LOAD(int16_t);
    case QN_DTYPE_U16:
        LOAD(uint16_t);
    case QN_DTYPE_I32:
        LOAD(int32_t);
    case QN_DTYPE_U32:
        LOAD(uint32_t);
    case QN_DTYPE_I64:
        LOAD(int64_t);
    case QN_DTYPE_U64: {
        uint64_t value;
        memcpy(&value, (const uint8_t *)data + index * sizeof(value), sizeof(value));
        return (int64_t)value;
    }
    case QN_DTYPE_BOOL:
        return ((const uint8_t *)data)[index] != 0;
    case QN_DTYPE_I4:
        return sign_extend(load_bits(data, 4, index), 4);
    case QN_DTYPE_U4:
        return load_bits(data, 4, index);
    case QN_DTYPE_I2:
        return sign_extend(load_bits(data, 2, index), 2);
    case QN_DTYPE_U2:
        return load_bits(data, 2, index);
    default:
        return 0;
    }
}

void qn__store_int(void *data, qn_dtype dtype, size_t index, int64_t value)
{
    switch (dtype) {
    case QN_DTYPE_I8:
    case QN_DTYPE_U8:
        ((uint8_t *)data)[index] = (uint8_t)value;
        break;
    case QN_DTYPE_I16:
    case QN_DTYPE_U16:
        STORE(uint16_t);
        break;
    case QN_DTYPE_I32:
    case QN_DTYPE_U32:
        STORE(uint32_t);
        break;
    case QN_DTYPE_I64:
    case QN_DTYPE_U64:
        STORE(uint64_t);
        break;
    case QN_DTYPE_BOOL:
        ((uint8_t *)data)[index] = value != 0;
        break;
    case QN_DTYPE_I4:
    case QN_DTYPE_U4:
        store_bits(data, 4, index, value);
        break;
    case QN_DTYPE_I2:
    case QN_DTYPE_U2:
        store_bits(data, 2, index, value);
        break;
    default:
        break;
    }
}

double qn__load_real(const void *data, qn_dtype dtype, size_t index)
{
    switch (dtype) {
    case QN_DTYPE_F32:
        LOAD(float);
    case QN_DTYPE_F64:
        LOAD(double);
    case QN_DTYPE_U64:
        return (double)(uint64_t)qn__load_int(data, dtype, index);
    default:
        return qn__dtype_is_float(dtype) ? qn__load_minifloat(data, dtype, index)
                                         : (double)qn__load_int(data, dtype, index);
    }
}
