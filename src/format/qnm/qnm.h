/* The compact model file (docs/qnm.md): a graph after passes and folding, with static shapes and
 * its constants where they can be used from the mapped file. The reader needs core and ir only. */
#ifndef QN_FORMAT_QNM_H
#define QN_FORMAT_QNM_H

#include "ir/graph.h"
#include "ir/packed.h"

/* Do these bytes begin as the format does? */
bool qn__qnm_probe(const uint8_t *data, size_t size_bytes);

/* Reads a file that lies in memory; file is its name for messages. Every tensor of the graph has a
 * type and static dims, the structure is verified (qn__graph_verify), constants are slices of bytes
 * (copies only where the host is big-endian), and graph->source holds what was packed
 * (source->packed). Shapes and types of what nodes make are as the file says: nothing here has
 * checked that operators give them; a plan infers them again before it trusts them.
 * verify_checksum: every byte of the file is read and a single changed one is an error; without,
 * constants are not touched.
 * Errors: CORRUPT, UNSUPPORTED (newer version, unknown operator or type, by name), LIMIT,
 * NO_MEMORY. */
qn_status qn__qnm_read(const qn_context *ctx, qn_blob *bytes, const char *file,
                       bool verify_checksum, qn_graph **out, qn_error *error);

typedef struct qn_qnm_write_options {
    const qn_packed_store *packed; /* entries whose weights are constants of the graph; or NULL */
    bool strip_names; /* nodes and tensors get short names; inputs and outputs keep theirs */
} qn_qnm_write_options;
/* Writes atomically a graph whose every tensor has a type and static dims. options and
 * bytes_written may be NULL. Errors: UNSUPPORTED naming the tensor or node, LIMIT, IO, NO_MEMORY.
 */
qn_status qn__qnm_write(const qn_graph *graph, const qn_qnm_write_options *options,
                        const char *path, uint64_t *bytes_written, qn_error *error);

#endif
