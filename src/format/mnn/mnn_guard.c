#include "format/mnn/mnn_guard.h"

#include <math.h>

/* Scales so many last digits apart came from one. */
enum { NEAR_STEPS = 64 };

static bool equal(const qn_mnn_record *a, const qn_mnn_record *b)
{
    return a->scale == b->scale && a->zero == b->zero;
}

static bool nearly_equal(const qn_mnn_record *a, const qn_mnn_record *b)
{
    return a->zero == b->zero &&
           fabsf(a->scale - b->scale) <= (float)NEAR_STEPS * 6e-8f * fabsf(a->scale);
}

static qn_mnn_record apart_from(const qn_mnn_record *r)
{
    qn_mnn_record other = *r;
    other.scale = nextafterf(r->scale, INFINITY);
    return other;
}

void qn__mnn_guard_backwards(qn_mnn_passing kind, qn_mnn_record *in, const qn_mnn_record *out)
{
    if (kind == QN_MNN_PASSES_NONE || in->known || !out->known)
        return;
    /* moved or not, the same values: as MNN does */
    *in = kind == QN_MNN_PASSES_RANGE ? apart_from(out) : *out;
}

void qn__mnn_guard_forwards(qn_mnn_passing kind, bool exact, const qn_mnn_record *in,
                            qn_mnn_record *out)
{
    if (kind == QN_MNN_PASSES_NONE || !in->known)
        return;
    /* What only float operators read stays float: a mean over a window, for one. */
    if (!out->known || (!exact && equal(in, out)))
        *out = apart_from(in);
    else if (exact && nearly_equal(in, out))
        out->scale = in->scale; /* behind a pool the levels go on with the pool's record */
}
