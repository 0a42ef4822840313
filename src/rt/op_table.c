/* Operators of the stand-alone runtime: what a graph with static shapes and folded constants has.
 * Linked in place of run/op_table.c. */
#define QN_TABLE_FOLDED 0
#include "run/op_table.h"
