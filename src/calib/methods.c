/* The table of feature methods. */
#include "calib/calib.h"

#include <string.h>

#define QN_FEATURE_METHOD(symbol) extern const qn_feature_method qn__feature_##symbol;
#include "calib/methods.def"
#undef QN_FEATURE_METHOD

static const qn_feature_method *const methods[] = {
#define QN_FEATURE_METHOD(symbol) &qn__feature_##symbol,
#include "calib/methods.def"
#undef QN_FEATURE_METHOD
};

const qn_feature_method *qn__feature_method_at(size_t index)
{
    return index < sizeof(methods) / sizeof(methods[0]) ? methods[index] : NULL;
}

const qn_feature_method *qn__feature_method_find(const char *name)
{
    for (size_t i = 0; qn__feature_method_at(i) != NULL; i++)
        if (strcmp(methods[i]->name, name) == 0)
            return methods[i];
    return NULL;
}

const qn_feature_method *qn__feature_method_of_kind(const char *kind, size_t length)
{
    for (size_t i = 0; qn__feature_method_at(i) != NULL; i++)
        if (methods[i]->state_kind != NULL && strlen(methods[i]->state_kind) == length &&
            memcmp(methods[i]->state_kind, kind, length) == 0)
            return methods[i];
    return NULL;
}
