/* Numbers as text, whatever the process's locale. */
#ifndef QN_CORE_NUMBER_H
#define QN_CORE_NUMBER_H

#include "core/status.h"

/* Reads a decimal or hexadecimal floating-point number; *end is the first character after it (may
 * be NULL: then the whole text must be one number). False when there is none. */
bool qn__parse_f64(const char *text, const char **end, double *out);

#endif
