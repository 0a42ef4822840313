#include "json.h"

#include "cli.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

json_t *cli_json_text(const char *text)
{
    json_t *value = json_string(text);
    char *copy = value == NULL ? strdup(text) : NULL;
    if (copy == NULL)
        return value;
    for (char *p = copy; *p != '\0'; p++)
        if ((unsigned char)*p >= 0x80)
            *p = '?';
    value = json_string(copy);
    free(copy);
    return value;
}

json_t *cli_json_number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

void cli_json_append(json_t *list, json_t *value, bool *complete)
{
    if (json_array_append_new(list, value) != 0)
        *complete = false;
}

typedef struct json_buffer {
    char *data; /* NULL: only counting */
    size_t size, capacity;
} json_buffer;

static int add_bytes(const char *bytes, size_t count, void *data)
{
    json_buffer *const out = data;
    if (out->data != NULL) {
        if (count > out->capacity - out->size)
            return -1;
        memcpy(out->data + out->size, bytes, count);
    }
    out->size += count;
    return 0;
}

/* Made whole in memory first. json_dumps would do, but without memory it can leave out a quote and
 * report no error (jansson 2.14). */
int cli_json_print(json_t *root, bool complete)
{
    enum { FLAGS = JSON_INDENT(1) | JSON_REAL_PRECISION(9) };
    json_buffer out = {0};
    bool ok = root != NULL && complete && json_dump_callback(root, add_bytes, &out, FLAGS) == 0;
    if (ok) {
        out = (json_buffer){.data = malloc(out.size + 1), .capacity = out.size};
        ok = out.data != NULL && json_dump_callback(root, add_bytes, &out, FLAGS) == 0 &&
             out.size == out.capacity;
    }
    if (ok) {
        out.data[out.size] = '\0';
        puts(out.data);
    } else {
        cli_error("out of memory");
    }
    free(out.data);
    json_decref(root);
    return ok ? EXIT_OK : EXIT_FAILED;
}
