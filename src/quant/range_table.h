/* Calibration tables of other tools, as ranges of tensors. */
#ifndef QN_QUANT_RANGE_TABLE_H
#define QN_QUANT_RANGE_TABLE_H

#include "core/status.h"

/* One line of a table. A scale of a layer's input (ncnn) names the layer. */
typedef struct qn_table_range {
    const char *name; /* in the table's arena */
    double lo, hi;
    bool of_layer;
} qn_table_range;

typedef struct qn_range_table {
    const char *path;
    const char *kind; /* for messages */
    struct qn_arena *arena;
    qn_table_range *items;
    size_t count, capacity;
    bool nomem;
} qn_range_table;

/* Adds a line; false when out of memory (then table->nomem) or when the range is not one. */
bool qn__range_table_add(qn_range_table *table, const char *name, size_t length, double lo,
                         double hi, bool of_layer);
/* --- range_table_json.c, range_table_fb.c: the two formats that are not lines of text --- */
qn_status qn__range_table_json(qn_range_table *table, const char *data, size_t bytes,
                               qn_error *error);
qn_status qn__range_table_fb(qn_range_table *table, const uint8_t *data, size_t bytes,
                             qn_error *error);
qn_status qn__range_table_read(qn_range_table *table, const uint8_t *data, size_t bytes,
                               qn_error *error);

#endif
