/* onnxruntime's calibration.json: {"tensor": [low, high]}, or the same with an object that has
 * "lowest" and "highest", each a number or what numpy's arrays are written as; all of it may be
 * the "data" of an object with a class name. */
#include "quant/range_table.h"

#include <jansson.h>
#include <string.h>

/* A number, {"data": number or [number]}, or [number]. */
static bool scalar(const json_t *value, double *out)
{
    if (json_is_object(value))
        value = json_object_get(value, "data");
    if (json_is_array(value) && json_array_size(value) == 1)
        value = json_array_get(value, 0);
    if (!json_is_number(value))
        return false;
    *out = json_number_value(value);
    return true;
}

static bool range(const json_t *value, double *lo, double *hi)
{
    if (json_is_array(value))
        return json_array_size(value) == 2 && scalar(json_array_get(value, 0), lo) &&
               scalar(json_array_get(value, 1), hi);
    return scalar(json_object_get(value, "lowest"), lo) &&
           scalar(json_object_get(value, "highest"), hi);
}

static qn_status read_all(qn_range_table *t, json_t *root, qn_error *error)
{
    const char *name;
    json_t *value;
    json_t *data = json_object_get(root, "data");
    json_t *all = json_object_get(root, "CLS") != NULL && json_is_object(data) ? data : root;
    json_object_foreach(all, name, value)
    {
        double lo, hi;
        if (strcmp(name, "CLS") == 0)
            continue;
        QN_FAIL_IF(!range(value, &lo, &hi), error, QN_CORRUPT,
                   "%s: \"%s\" has no lowest and highest value", t->path, name);
        const bool added = qn__range_table_add(t, name, strlen(name), lo, hi, false);
        if (!added && t->nomem)
            return QN_NOMEM(error);
        QN_FAIL_IF(!added, error, QN_CORRUPT, "%s: range [%g, %g] of \"%s\"", t->path, lo, hi,
                   name);
    }
    return QN_OK;
}

qn_status qn__range_table_json(qn_range_table *t, const char *data, size_t bytes, qn_error *error)
{
    json_error_t where;
    json_t *root = json_loadb(data, bytes, JSON_REJECT_DUPLICATES, &where);
    t->kind = "onnxruntime's calibration table";
    QN_FAIL_IF(root == NULL, error, QN_CORRUPT, "%s:%d:%d: %s", t->path, where.line, where.column,
               where.text);
    const qn_status status = read_all(t, root, error);
    json_decref(root);
    return status;
}
