/* Resizing bytes for any processor. */
#define COLUMNS qn__u8_columns_scalar
#define PIXELS qn__u8_pixels_scalar
#include "kernel/resize_tmpl.h"
