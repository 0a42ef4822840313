/* A tensor has one type: plain (float or integer), quantized, or dynamic. Also dimensions. */
#ifndef QN_IR_TYPE_H
#define QN_IR_TYPE_H

#include "core/alloc.h"
#include "core/blob.h"
#include "core/checked.h"

#define QN_MAX_RANK 8

typedef enum qn_dtype {
    QN_DTYPE_NONE = 0, /* unknown */
#define QN_DTYPE(id, name, bits, is_float, is_signed, onnx) QN_DTYPE_##id,
#include "ir/dtypes.def"
#undef QN_DTYPE
    QN_DTYPE_COUNT
} qn_dtype;
const char *qn__dtype_name(qn_dtype dtype);
uint32_t qn__dtype_bits(qn_dtype dtype);
bool qn__dtype_is_float(qn_dtype dtype);
bool qn__dtype_is_signed(qn_dtype dtype);
/* The number of a type in ONNX files, which Cast and others have as an attribute; 0 for NONE. */
int64_t qn__dtype_onnx(qn_dtype dtype);
qn_dtype qn__dtype_of_onnx(int64_t code); /* NONE: not one of ours */
/* Bytes of count elements (sub-byte: rounded up); false on overflow. */
bool qn__dtype_bytes(size_t *out, qn_dtype dtype, size_t count);

/* How integers stand for real numbers. real = scale * (q - zero_point), or codebook[q] * scale.
 *
 *   per tensor: axis -1, block 0, n_scales 1
 *   per channel: axis >= 0, block 0, n_scales = dims[axis]
 *   per block: axis >= 0, block > 0: the axis is cut in blocks of `block` elements (the last may be
 *     short) and scales are a row-major array with the tensor's shape, dims[axis] replaced by the
 *     number of blocks
 */
typedef struct qn_quant {
    uint8_t bits;   /* 2..16, or 32 (biases): significant bits; storage has at least as many */
    bool is_signed; /* meaning of the stored integers */
    int8_t axis;
    int64_t block;
    int32_t qmin, qmax; /* smallest and largest integer used, e.g. -127..127 */
    size_t n_scales;
    const float *scales;        /* [n_scales], finite and > 0 */
    const int32_t *zero_points; /* [n_scales], or NULL: all 0 */
    size_t n_codebook;          /* 0: uniform steps */
    const float *codebook;      /* [n_codebook] values by index q - qmin, before scaling */
} qn_quant;

/* A row's scale made at run time: its largest magnitude, this at least, over so many steps. */
#define QN_ROW_FLOOR 1e-30f
#define QN_ROW_STEPS 127
typedef enum qn_type_kind {
    QN_TYPE_PLAIN = 0,  /* dtype says it all */
    QN_TYPE_QUANT = 1,  /* quant is set; dtype is the storage */
    QN_TYPE_DYNAMIC = 2 /* scales produced at run time: quant gives bits, sign, axis (-1: one
                           scale, 0: one for each row along the last axis), scales NULL */
} qn_type_kind;

typedef struct qn_type {
    qn_type_kind kind;
    qn_dtype dtype;
    const qn_quant *quant; /* in the graph's arena; immutable once attached */
} qn_type;

/* One dimension of a shape. */
typedef enum qn_dim_kind {
    QN_DIM_CONST = 0,  /* value elements */
    QN_DIM_SYMBOL = 1, /* value * (what symbol is bound to): bound when planning */
    QN_DIM_DATA = 2    /* known only when running; at most value, or -1: no bound known */
} qn_dim_kind;
typedef struct qn_dim {
    qn_dim_kind kind;
    int64_t value;
    const char *symbol; /* interned in the graph: equal names are equal pointers */
} qn_dim;
static inline qn_dim qn_dim_const(int64_t value)
{
    return (qn_dim){QN_DIM_CONST, value, NULL};
}
static inline qn_dim qn_dim_unknown(void)
{
    return (qn_dim){QN_DIM_DATA, -1, NULL};
}
bool qn__dim_equal(qn_dim a, qn_dim b); /* DATA never equals */

/* Reads element i of packed or unpacked integer storage as int64 (BOOL: 0/1). */
int64_t qn__load_int(const void *data, qn_dtype dtype, size_t index);
void qn__store_int(void *data, qn_dtype dtype, size_t index, int64_t value);
/* Any dtype as double (F16, BF16 included). Unaligned data are fine. */
double qn__load_real(const void *data, qn_dtype dtype, size_t index);
/* The nearest value the dtype has (ties to even; integers saturate, NaN is 0 there). */
void qn__store_real(void *data, qn_dtype dtype, size_t index, double value);
/* The same for 16-bit and smaller floats, where `saturate` chooses between the largest finite value
 * and infinity or NaN for what is too large. */
void qn__store_minifloat(void *data, qn_dtype dtype, size_t index, double value, bool saturate);
double qn__load_minifloat(const void *data, qn_dtype dtype, size_t index);

#endif
