/* Row of the compact format in the table of formats. */
#ifndef QN_FORMAT_QNM_FORMAT_H
#define QN_FORMAT_QNM_FORMAT_H

#include "format/format.h"

extern const qn_format qn__format_qnm;

#endif
