/* DESTINATION.json: the scales of the tensors that operators read and make, in the form of MNN's
 * tool, byte for byte. Its numbers are printed by Grisu2 (Loitsch, "Printing floating-point numbers
 * quickly and accurately with integers", PLDI 2010) in a version that rounds the last digit only
 * while fewer than nine decimals follow the integer part; so the 17th digit is not always the
 * nearest, and printf cannot make them. */
#include "mnntool/tool.h"

#include <math.h>
#include <string.h>

#include "core/strbuf.h"

#define MAX_TEXT_BYTES ((size_t)1 << 30)

/* --- numbers -----------------------------------------------------------------------------------*/

typedef struct qn_big {
    uint64_t f; /* value f * 2^e */
    int e;
} qn_big;

/* 10^(FIRST_POWER + 8 i), enough for every float. */
#define FIRST_POWER -60
static const qn_big powers[] = {
    {0xcdb02555653131b6ull, -263}, /* 1e-60 */
    {0x993fe2c6d07b7facull, -236}, /* 1e-52 */
    {0xe45c10c42a2b3b06ull, -210}, /* 1e-44 */
    {0xaa242499697392d3ull, -183}, /* 1e-36 */
    {0xfd87b5f28300ca0eull, -157}, /* 1e-28 */
    {0xbce5086492111aebull, -130}, /* 1e-20 */
    {0x8cbccc096f5088ccull, -103}, /* 1e-12 */
    {0xd1b71758e219652cull, -77},  /* 1e-4 */
    {0x9c40000000000000ull, -50},  /* 1e4 */
    {0xe8d4a51000000000ull, -24},  /* 1e12 */
    {0xad78ebc5ac620000ull, 3},    /* 1e20 */
    {0x813f3978f8940984ull, 30},   /* 1e28 */
    {0xc097ce7bc90715b3ull, 56},   /* 1e36 */
    {0x8f7e32ce7bea5c70ull, 83},   /* 1e44 */
    {0xd5d238a4abe98068ull, 109},  /* 1e52 */
    {0x9f4f2726179a2245ull, 136},  /* 1e60 */
    {0xed63a231d4c4fb27ull, 162},  /* 1e68 */
};

static qn_big product(qn_big a, qn_big b)
{
    const unsigned __int128 p = (unsigned __int128)a.f * b.f;
    return (qn_big){(uint64_t)(p >> 64) + (uint64_t)(p >> 63 & 1), a.e + b.e + 64};
}

static qn_big normal(qn_big a)
{
    const int shift = __builtin_clzll(a.f);
    return (qn_big){a.f << shift, a.e - shift};
}

static void round_last(char *digits, size_t n, uint64_t delta, uint64_t rest, uint64_t unit,
                       uint64_t distance)
{
    while (rest < distance && delta - rest >= unit &&
           (rest + unit < distance || distance - rest > rest + unit - distance)) {
        digits[n - 1]--;
        rest += unit;
    }
}

/* Shortest digits between two neighbours; *k: the power of ten of the last one. */
static size_t make_digits(qn_big w, qn_big high, uint64_t delta, char *digits, int *k)
{
    static const uint32_t tens[] = {1,      10,      100,      1000,      10000,
                                    100000, 1000000, 10000000, 100000000, 1000000000};
    const int shift = -high.e;
    const uint64_t one = 1ull << shift, distance = high.f - w.f;
    uint32_t whole = (uint32_t)(high.f >> shift);
    uint64_t part = high.f & (one - 1);
    size_t n = 0;
    int left = 0;
    while (left < 10 && whole >= tens[left])
        left++;
    while (left > 0) {
        left--;
        const uint32_t digit = whole / tens[left];
        whole %= tens[left];
        if (digit != 0 || n > 0)
            digits[n++] = (char)('0' + digit);
        const uint64_t rest = ((uint64_t)whole << shift) + part;
        if (rest <= delta) {
            *k += left;
            round_last(digits, n, delta, rest, (uint64_t)tens[left] << shift, distance);
            return n;
        }
    }
    for (int decimals = 1;; decimals++) {
        part *= 10;
        delta *= 10;
        const char digit = (char)(part >> shift);
        if (digit != 0 || n > 0)
            digits[n++] = (char)('0' + digit);
        part &= one - 1;
        if (part < delta) {
            *k -= decimals;
            round_last(digits, n, delta, part, one, decimals < 9 ? distance * tens[decimals] : 0);
            return n;
        }
    }
}

/* value > 0. digits: room for 32. */
static size_t grisu(double value, char *digits, int *k)
{
    int exponent;
    const double fraction = frexp(value, &exponent);
    const uint64_t f = (uint64_t)ldexp(fraction, 53);
    const int e = exponent - 53;
    const qn_big high = normal((qn_big){(f << 1) + 1, e - 1});
    qn_big low = f == 1ull << 52 ? (qn_big){(f << 2) - 1, e - 2} : (qn_big){(f << 1) - 1, e - 1};
    low.f <<= low.e - high.e;
    low.e = high.e;
    const double estimate = (-61 - high.e) * 0.30102999566398114 + 347;
    int index = (int)estimate;
    if (estimate - index > 0.0)
        index++;
    const int power = -348 + 8 * ((index >> 3) + 1);
    const qn_big scale = powers[(power - FIRST_POWER) / 8];
    *k = -power;
    const qn_big w = product(normal((qn_big){f, e}), scale);
    qn_big upper = product(high, scale), lower = product(low, scale);
    lower.f++;
    upper.f--;
    return make_digits(w, upper, upper.f - lower.f, digits, k);
}

/* A float as the real tool prints the double of it. */
static void put_number(qn_strbuf *out, float number)
{
    char digits[32];
    int k = 0;
    if (number < 0)
        qn__strbuf_puts(out, "-");
    if (number == 0 || !isfinite(number)) {
        qn__strbuf_puts(out, "0.0");
        return;
    }
    const int n = (int)grisu(fabs((double)number), digits, &k), point = n + k;
    if (k >= 0 && point <= 21) {
        qn__strbuf_printf(out, "%.*s%.*s.0", n, digits, k, "000000000000000000000");
    } else if (point > 0 && point <= 21) {
        qn__strbuf_printf(out, "%.*s.%.*s", point, digits, n - point, digits + point);
    } else if (point > -6 && point <= 0) {
        qn__strbuf_printf(out, "0.%.*s%.*s", -point, "000000", n, digits);
    } else {
        qn__strbuf_printf(out, "%c", digits[0]);
        if (n > 1)
            qn__strbuf_printf(out, ".%.*s", n - 1, digits + 1);
        qn__strbuf_printf(out, "e%d", point - 1);
    }
}

static void put_string(qn_strbuf *out, const char *text)
{
    qn__strbuf_puts(out, "\"");
    for (const unsigned char *p = (const unsigned char *)text; *p != '\0'; p++) {
        static const char from[] = "\"\\\b\f\n\r\t", to[] = "\"\\bfnrt";
        const char *escape = strchr(from, *p);
        if (escape != NULL)
            qn__strbuf_printf(out, "\\%c", to[escape - from]);
        else if (*p < 0x20)
            qn__strbuf_printf(out, "\\u%04X", *p);
        else
            qn__strbuf_append(out, p, 1);
    }
    qn__strbuf_puts(out, "\"");
}

/* --- the document ------------------------------------------------------------------------------*/

static void put_tensor(qn_strbuf *out, uint32_t index, float scale, int32_t zero, bool first)
{
    qn__strbuf_printf(out, "%s            {\n                \"tensorIndex\": %u,\n",
                      first ? "\n" : ",\n", index);
    qn__strbuf_puts(out, "                \"scales\": [\n                    ");
    put_number(out, scale);
    qn__strbuf_puts(out,
                    "\n                ],\n                \"zeropoint\": [\n                    ");
    put_number(out, (float)zero);
    qn__strbuf_puts(out, "\n                ]\n            }");
}

/* Tensors that operator op names at slot; those without a scale are left out when skip is set. */
static void put_tensors(qn_strbuf *out, const qn_mnn_source *source, const qn_mnn_scales *scales,
                        const qn_fb_object *op, uint32_t slot, bool skip)
{
    size_t count;
    bool first = true;
    qn__fb_bytes(op, slot, &count);
    qn__strbuf_puts(out, "[");
    for (size_t i = 0; i < count; i++) {
        const int64_t index = qn__fb_int_at(&source->doc, op, slot, i);
        const bool known = index >= 0 && (uint64_t)index < scales->n_tensors;
        const float scale = known ? scales->items[index].scale : 0.0f;
        if (skip && scale == 0)
            continue;
        put_tensor(out, (uint32_t)index, scale, known ? scales->items[index].zero : 0, first);
        first = false;
    }
    qn__strbuf_puts(out, first ? "]" : "\n        ]");
}

qn_status qn__mnn_scales_json(const qn_mnn_source *source, const qn_mnn_scales *scales, char **text,
                              qn_error *error)
{
    qn_strbuf out;
    qn__strbuf_init(&out, scales->ctx, MAX_TEXT_BYTES);
    qn__strbuf_puts(&out, "[");
    bool first = true;
    for (size_t i = 0; i < source->n_ops; i++) {
        const qn_fb_object *op = source->ops[i];
        size_t n_inputs;
        if (qn__fb_int(&source->doc, op, QN_MNN_Op_type) == QN_MNN_OpType_Raster)
            continue;
        const char *name = qn__fb_string(op, QN_MNN_Op_name);
        qn__fb_bytes(op, QN_MNN_Op_inputIndexes, &n_inputs);
        qn__strbuf_puts(&out,
                        first ? "\n    {\n        \"name\": " : ",\n    {\n        \"name\": ");
        put_string(&out, name == NULL ? "" : name);
        if (n_inputs > 0) {
            qn__strbuf_puts(&out, ",\n        \"inputs\": ");
            put_tensors(&out, source, scales, op, QN_MNN_Op_inputIndexes, true);
        }
        qn__strbuf_puts(&out, ",\n        \"outputs\": ");
        put_tensors(&out, source, scales, op, QN_MNN_Op_outputIndexes, false);
        qn__strbuf_puts(&out, "\n    }");
        first = false;
    }
    qn__strbuf_puts(&out, first ? "]\n" : "\n]\n");
    if (out.failed) {
        qn__strbuf_free(&out);
        QN_FAIL(error, QN_NO_MEMORY, "out of memory for the scales of %zu operators",
                source->n_ops);
    }
    *text = out.data;
    return QN_OK;
}
