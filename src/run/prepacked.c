#include "run/prepacked.h"

#include <string.h>

static uint64_t mix(uint64_t key, uint64_t value)
{
    key = (key ^ value) * 0x9E3779B97F4A7C15u;
    return key ^ key >> 29;
}

uint64_t qn__prepacked_mix(uint64_t key, const void *words, size_t count)
{
    const uint8_t *const bytes = words;
    for (size_t i = 0; i < count; i++) {
        uint32_t word;
        memcpy(&word, bytes + 4 * i, 4);
        key = mix(key, word);
    }
    return key;
}

uint64_t qn__prepacked_key(const qn_tensor *w, const size_t *numbers, size_t n_numbers,
                           const void *bias, size_t n_bias)
{
    /* Types as files may rely on them, which numbers of an enumeration are not. */
    uint64_t key = mix(qn__dtype_is_signed(w->type.dtype), qn__dtype_bits(w->type.dtype));
    key = mix(mix(key, qn__dtype_is_float(w->type.dtype)), w->rank);
    for (size_t i = 0; i < w->rank; i++)
        key = mix(key, (uint64_t)w->dims[i].value);
    for (size_t i = 0; i < n_numbers; i++)
        key = mix(key, numbers[i]);
    return bias != NULL ? qn__prepacked_mix(key, bias, n_bias) : mix(key, 0);
}

bool qn__prepacked_wanted(const qn_plan *plan, const qn_step *step, uint32_t layout)
{
    const qn_blob *const constant = qn__step_input(step, 1)->constant;
    return qn__plan_get_options(plan)->collect != NULL ||
           (constant != NULL && qn__packed_known(qn__plan_packed(plan), constant->data, layout));
}

bool qn__prepacked_find(const qn_plan *plan, const qn_step *step, qn_packed_entry *entry)
{
    if (qn__plan_get_options(plan)->collect != NULL) /* which wants them made */
        return false;
    const qn_packed_entry *const e = qn__packed_find(
        qn__plan_packed(plan), qn__step_input(step, 1)->constant->data, entry->layout, entry->key);
    if (e == NULL || e->bytes != entry->bytes || (uintptr_t)e->data % 64 != 0)
        return false;
    *entry = *e;
    return true;
}

qn_status qn__prepacked_keep(const qn_plan *plan, const qn_step *step, qn_packed_entry *entry,
                             qn_error *error)
{
    const qn_plan_options *const options = qn__plan_get_options(plan);
    if (options->collect == NULL || entry->layout == 0)
        return QN_OK;
    entry->weights = qn__step_input(step, 1)->constant->data;
    return options->collect_add(options->collect, entry) ? QN_OK : QN_NOMEM(error);
}

qn_status qn__packed_begin(const qn_plan *plan, qn_step *step, uint32_t layout,
                           const size_t *numbers, size_t n_numbers, const float *bias,
                           size_t n_bias, size_t bytes, qn_prepacked *out, qn_error *error)
{
    const qn_tensor *const w = qn__step_input(step, 1);
    const qn_quant *const q = w->type.kind == QN_TYPE_QUANT ? w->type.quant : NULL;
    const bool fits =
        q != NULL ? layout >> 24 == QN_PACKED_F32_INTS : w->type.dtype == QN_DTYPE_F32;
    step->packed_bytes = bytes;
    *out = (qn_prepacked){.entry.bytes = bytes};
    if (layout != 0 && fits && qn__prepacked_wanted(plan, step, layout)) {
        uint64_t key = qn__prepacked_key(w, numbers, n_numbers, bias, n_bias);
        if (q != NULL)
            key = qn__prepacked_mix(mix(key, (uint64_t)q->block), q->scales, q->n_scales);
        if (q != NULL && q->zero_points != NULL)
            key = qn__prepacked_mix(~key, q->zero_points, q->n_scales);
        out->entry.layout = layout;
        out->entry.key = key;
        if (qn__prepacked_find(plan, step, &out->entry)) {
            step->mapped_bytes = bytes;
            out->data = (const float *)(const void *)out->entry.data;
            return QN_OK;
        }
    }
    out->own = qn__alloc_aligned(qn__plan_context(plan), bytes);
    out->data = out->own;
    out->entry.data = (const uint8_t *)out->own;
    return out->own != NULL ? QN_OK : QN_NOMEM(error);
}
