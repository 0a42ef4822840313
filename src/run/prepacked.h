/* Weights packed ahead of time (docs/qnm.md): found in the model's file by what they were made
 * from, and gathered for a file that is to be written. Of constants that are input 1 of a step. */
#ifndef QN_RUN_PREPACKED_H
#define QN_RUN_PREPACKED_H

#include "ir/packed.h"
#include "run/op.h"

/* What `collect` packs for, whichever kernels there are: sizes that forms of packed weights depend
 * on (packings.def). */
typedef struct qn_packing_form {
    size_t nr, kr; /* 8-bit GEMM */
    qn_q8_pairs_fn pairs;
    size_t block, least; /* 8-bit depthwise convolution */
    size_t f32_nr;       /* float GEMM */
    size_t ints_nr;      /* float GEMM of weights kept as integers; 0: they are not */
} qn_packing_form;

/* Keys: a hash of all that went into the packed bytes but the constant's own. */
uint64_t qn__prepacked_mix(uint64_t key, const void *words, size_t count); /* of 32 bits */
/* The tensor's type and shape, numbers, and a bias for each column or NULL. */
uint64_t qn__prepacked_key(const qn_tensor *w, const size_t *numbers, size_t n_numbers,
                           const void *bias, size_t n_bias);
/* Whether a key is worth its time: the file has the constant in this layout, or packed weights are
 * gathered. */
bool qn__prepacked_wanted(const qn_plan *plan, const qn_step *step, uint32_t layout);
/* The file's bytes of an entry's layout, key and size, into its data and flags; false: not there,
 * or not where kernels can read them. */
bool qn__prepacked_find(const qn_plan *plan, const qn_step *step, qn_packed_entry *entry);
/* Where packed weights are gathered, adds a copy of the entry's bytes, unless its layout is 0. */
qn_status qn__prepacked_keep(const qn_plan *plan, const qn_step *step, qn_packed_entry *entry,
                             qn_error *error);

/* Packed weights of float products: floats, or bytes behind floats. */
typedef struct qn_prepacked {
    const float *data; /* 64-byte aligned: own, or the file's */
    float *own;        /* NULL: the file has them, else to be filled, then qn__prepacked_keep */
    qn_packed_entry entry;
} qn_prepacked;
/* Sets step->packed_bytes, and mapped_bytes where the file has them. layout 0: files never do, nor
 * quantized weights as floats. */
qn_status qn__packed_begin(const qn_plan *plan, qn_step *step, uint32_t layout,
                           const size_t *numbers, size_t n_numbers, const float *bias,
                           size_t n_bias, size_t bytes, qn_prepacked *out, qn_error *error);

#endif
