/* Hash table from names to objects: tensors, nodes and interned strings of one graph. Keys are
 * borrowed from the graph's arena. */
#ifndef QN_IR_NAMES_H
#define QN_IR_NAMES_H

#include "core/alloc.h"

typedef struct qn_name_entry {
    const char *key; /* NULL: free slot */
    void *value;     /* NULL: name was removed */
    uint64_t hash;
    uint64_t next_suffix; /* numbers below it were tried when a duplicate was made unique */
} qn_name_entry;

typedef struct qn_name_table {
    qn_name_entry *entries;
    size_t capacity; /* a power of two, or 0 */
    size_t used;     /* slots with a key */
} qn_name_table;

void qn__names_free(const qn_context *ctx, qn_name_table *table);
/* Entry of key, removed ones included; NULL: never seen. */
qn_name_entry *qn__names_find(const qn_name_table *table, const char *key);
void *qn__names_get(const qn_name_table *table, const char *key);
/* Adds or overwrites; false when out of memory. */
bool qn__names_put(const qn_context *ctx, qn_name_table *table, const char *key, void *value);
void qn__names_remove(qn_name_table *table, const char *key);
/* `name` itself when free, otherwise name_1, name_2...; in the arena. NULL when out of memory. */
const char *qn__names_unique(qn_name_table *table, qn_arena *arena, const char *name);

/* What graph->names points to. */
struct qn_name_map {
    qn_name_table tensors, nodes, strings;
    /* Blobs of attributes that were replaced or whose node was removed: callers may still hold the
     * attribute, so they live as long as the graph. */
    struct qn_blob **retired;
    size_t n_retired, retired_capacity;
};

#endif
