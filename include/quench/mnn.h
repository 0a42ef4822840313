/* quench/mnn.h - MNN's offline quantizer: the same configuration files, the same meaning.
 *
 * The commands `quantized.out` and `mnnquant` are one call of qn_mnn_quantize. docs/mnn.md lists
 * what is done differently from MNN's own tool, and what exact mode restores.
 */
#ifndef QUENCH_MNN_H
#define QUENCH_MNN_H

#include "quench/quantize.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Receives the run's text for stdout, newlines and carriage returns included. */
typedef void (*qn_mnn_print_fn)(void *ctx, const char *text);

typedef struct qn_mnn_options {
    size_t struct_size;
    /* Choices of MNN's own tool to restore: "all", or a comma-separated list of symmetric, resize,
     * kl, admm, bits, winograd; NULL: none. The configuration's "exact_mnn" adds to it. */
    const char *exact;
    qn_mnn_print_fn print; /* NULL: silent */
    void *print_ctx;
} qn_mnn_options;
QN_API void qn_mnn_options_init(qn_mnn_options *options);

/* Quantizes the .mnn file `source` as the JSON file `config` says into `destination`, and writes
 * the scales beside it ("DESTINATION.json"); both appear only when everything succeeded. Warnings
 * go to the context's log. Errors: IO, CORRUPT, UNSUPPORTED, INVALID_ARGUMENT (configuration: file,
 * line and column, or key), LIMIT, NO_MEMORY. */
QN_API qn_status qn_mnn_quantize(const qn_context *ctx, const char *source, const char *destination,
                                 const char *config, const qn_mnn_options *options,
                                 qn_error *error);

#ifdef __cplusplus
}
#endif
#endif
