/* Functions of the model and branches of If, written out where they are used. */
#ifndef QN_FORMAT_ONNX_INLINE_H
#define QN_FORMAT_ONNX_INLINE_H

#include "format/onnx/onnx_source.h"

/* Replaces calls of the document's functions, and If nodes whose condition is a constant of the
 * file, by the nodes inside, whose names get the call's first output as a prefix. LIMIT when calls
 * nest too deep or the nodes become too many. An If that stays keeps its place; partial: so does,
 * marked as whole, what cannot be written out. */
qn_status qn__onnx_inline(qn_onnx_source *source, bool partial, qn_error *error);
/* The document's function that a node calls, or NULL. */
const qn_onnx_function *qn__onnx_find_function(const qn_onnx_source *source,
                                               const qn_onnx_node *node);

/* The body to read an attribute of `node` from: that of the caller where the node is inside a
 * function and refers to one. *body has size 0 when the caller does not say it. *name: what the
 * attribute is called here, or NULL: as in the body. */
qn_status qn__onnx_resolve_attr(qn_onnx_source *source, const qn_onnx_node *node, qn_span *body,
                                const char **name, qn_error *error);

#endif
