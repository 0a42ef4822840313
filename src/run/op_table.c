/* Operators of libquench: all. */
#define QN_TABLE_FOLDED 1
#include "run/op_table.h"
