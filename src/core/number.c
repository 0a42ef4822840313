#include "core/number.h"

#include <locale.h>
#include <stdlib.h>

bool qn__parse_f64(const char *text, const char **end, double *out)
{
    const locale_t c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (c_locale == (locale_t)0)
        return false;
    char *stop = NULL;
    const double value = strtod_l(text, &stop, c_locale);
    freelocale(c_locale);
    if (stop == text || (end == NULL && *stop != '\0'))
        return false;
    if (end != NULL)
        *end = stop;
    *out = value;
    return true;
}
