/* Everything about a recipe that can be said without a model, with the path of what is wrong. */
#include "core/nearest.h"
#include "quant/quant.h"

#include <float.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* Where the check is: "ranges["conv1"][1]". */
typedef struct place {
    const qn_recipe *recipe;
    qn_error *error;
    char path[400];
    size_t length; /* of path, within its size */
} place;

static size_t enter(place *p, const char *format, const char *name, size_t index)
{
    const size_t before = p->length, left = sizeof(p->path) - before;
    const int n = name != NULL ? snprintf(p->path + before, left, format, name)
                               : snprintf(p->path + before, left, format, index);
    p->length += n < 0 ? 0 : (size_t)n < left ? (size_t)n : left - 1;
    return before;
}

static size_t enter_key(place *p, const char *key)
{
    return enter(p, p->length > 0 ? ".%s" : "%s", key, 0);
}

static size_t enter_name(place *p, const char *name)
{
    return enter(p, "[\"%s\"]", name, 0);
}

static size_t enter_item(place *p, size_t index)
{
    return enter(p, "[%zu]", NULL, index);
}

static void leave(place *p, size_t before)
{
    p->length = before;
    p->path[before] = '\0';
}

static const char *found(const json_t *value, char text[64])
{
    switch (value == NULL ? JSON_NULL : json_typeof(value)) {
    case JSON_STRING:
        (void)snprintf(text, 64, "\"%.40s\"", json_string_value(value));
        break;
    case JSON_INTEGER:
        (void)snprintf(text, 64, "%lld", (long long)json_integer_value(value));
        break;
    case JSON_REAL:
        (void)snprintf(text, 64, "%g", json_real_value(value));
        break;
    case JSON_ARRAY:
        (void)snprintf(text, 64, "a list of %zu", json_array_size(value));
        break;
    case JSON_OBJECT:
        return "an object";
    case JSON_TRUE:
        return "true";
    case JSON_FALSE:
        return "false";
    default:
        return value == NULL ? "nothing" : "null";
    }
    return text;
}

static qn_status wrong(const place *p, const json_t *value, const char *expected)
{
    char text[64];
    QN_FAIL(p->error, QN_CORRUPT, "%s: %s: expected %s, found %s", p->recipe->path, p->path,
            expected, found(value, text));
}

/* --- values ------------------------------------------------------------------------------------*/
typedef qn_status (*check_fn)(place *p, const json_t *value);

static qn_status check_text(place *p, const json_t *value)
{
    return json_is_string(value) ? QN_OK : wrong(p, value, "text");
}

static qn_status check_flag(place *p, const json_t *value)
{
    return json_is_boolean(value) ? QN_OK : wrong(p, value, "true or false");
}

static qn_status check_whole(place *p, const json_t *value, json_int_t lowest, json_int_t highest,
                             const char *expected)
{
    const bool good = json_is_integer(value) && json_integer_value(value) >= lowest &&
                      json_integer_value(value) <= highest;
    return good ? QN_OK : wrong(p, value, expected);
}

static bool is_number(const json_t *value)
{
    return json_is_number(value) && isfinite((float)json_number_value(value));
}

static qn_status check_number(place *p, const json_t *value)
{
    return is_number(value) ? QN_OK : wrong(p, value, "a number that float32 holds");
}

static qn_status check_positive(place *p, const json_t *value)
{
    return is_number(value) && (float)json_number_value(value) >= FLT_MIN
               ? QN_OK
               : wrong(p, value, "a number above 0 that float32 holds");
}

static qn_status check_not_negative(place *p, const json_t *value)
{
    return is_number(value) && json_number_value(value) >= 0
               ? QN_OK
               : wrong(p, value, "a number of 0 or more that float32 holds");
}

static qn_status check_exponent(place *p, const json_t *value)
{
    return check_whole(p, value, -64, 64, "a whole number of -64 to 64");
}

static qn_status check_count(place *p, const json_t *value)
{
    return check_whole(p, value, 0, INT64_MAX, "a whole number of 0 or more");
}

static qn_status check_batch(place *p, const json_t *value)
{
    return check_whole(p, value, 1, INT64_MAX, "a whole number of 1 or more");
}

static qn_status check_clamp(place *p, const json_t *value)
{
    return check_whole(p, value, 0, 127, "a whole number of 0 to 127");
}

static qn_status check_bits(place *p, const json_t *value)
{
    if (json_is_integer(value) && json_integer_value(value) == 0)
        return QN_OK;
    return check_whole(p, value, 2, 8, "0 or a whole number of 2 to 8");
}

static qn_status check_block(place *p, const json_t *value)
{
    const json_int_t n = json_integer_value(value);
    return json_is_integer(value) && (n == 0 || (n >= 16 && n <= 256 && (n & (n - 1)) == 0))
               ? QN_OK
               : wrong(p, value, "0, 16, 32, 64, 128 or 256");
}

static qn_status check_version(place *p, const json_t *value)
{
    QN_TRY(check_whole(p, value, INT64_MIN, INT64_MAX, "the version, a whole number"));
    QN_FAIL_IF(json_integer_value(value) != QN_RECIPE_VERSION, p->error, QN_UNSUPPORTED,
               "%s: %s: a recipe of version %lld; this is quench " QN_VERSION_STRING
               ", which reads version %d",
               p->recipe->path, p->path, (long long)json_integer_value(value), QN_RECIPE_VERSION);
    return QN_OK;
}

/* --- names -------------------------------------------------------------------------------------*/
static qn_status check_name(place *p, const json_t *value, const char *(*name_at)(size_t))
{
    const char *const word = json_string_value(value);
    char list[300] = "", guess[300];
    size_t used = 0;
    qn_nearest nearest;
    qn__nearest_init(&nearest, word != NULL ? word : "", word != NULL ? strlen(word) : 0);
    for (size_t i = 0; name_at(i) != NULL; i++) {
        if (word != NULL && strcmp(word, name_at(i)) == 0)
            return QN_OK;
        qn__nearest_try(&nearest, name_at(i));
        const int n =
            snprintf(list + used, sizeof(list) - used, "%s%s", i > 0 ? ", " : "", name_at(i));
        used += n > 0 && (size_t)n < sizeof(list) - used ? (size_t)n : 0;
    }
    char text[64];
    QN_FAIL(p->error, word != NULL ? QN_INVALID_ARGUMENT : QN_CORRUPT,
            "%s: %s: expected one of %s, found %s%s", p->recipe->path, p->path, list,
            found(value, text), qn__nearest_text(&nearest, guess, sizeof(guess)));
}

/* name_at of a list of words; the function's name is `at`. */
#define WORDS(at, ...)                                                                             \
    static const char *at(size_t index)                                                            \
    {                                                                                              \
        static const char *const words[] = {__VA_ARGS__, NULL};                                    \
        return index < sizeof(words) / sizeof(words[0]) ? words[index] : NULL;                     \
    }
WORDS(scheme_at, "static", "dynamic", "dynamic-rows", "int8", "int4", "uint8", "uint4")
WORDS(granularity_at, "channel", "tensor")
WORDS(activations_at, "u8", "s8", "s8sym")
WORDS(calibrate_with_at, "float", "quantized-weights")
WORDS(x86_at, "any", "avx2", "vnni")
WORDS(switch_at, "on", "off")
WORDS(channels_at, "RGB", "BGR", "GRAY", "RGBA", "BGRA")
WORDS(filter_at, "bilinear", "bilinear-plain", "bicubic", "nearest", "mnn", "mnn-truncate")

static const char *levels_at(size_t index)
{
    return qn__level_set_name((qn_level_set)index);
}

#define NAMED(check, at)                                                                           \
    static qn_status check(place *p, const json_t *value)                                          \
    {                                                                                              \
        return check_name(p, value, at);                                                           \
    }
NAMED(check_target, qn_target_name)
NAMED(check_features, qn_feature_method_name)
NAMED(check_weights, qn_weight_method_name)
NAMED(check_scheme, scheme_at)
NAMED(check_granularity, granularity_at)
NAMED(check_activations, activations_at)
NAMED(check_calibrate_with, calibrate_with_at)
NAMED(check_x86, x86_at)
NAMED(check_switch, switch_at)
NAMED(check_levels, levels_at)
NAMED(check_channels, channels_at)
NAMED(check_filter, filter_at)

/* --- lists and objects -------------------------------------------------------------------------*/
static qn_status check_list(place *p, const json_t *list, check_fn check)
{
    if (!json_is_array(list))
        return wrong(p, list, "a list");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const size_t before = enter_item(p, i);
        QN_TRY(check(p, json_array_get(list, i)));
        leave(p, before);
    }
    return QN_OK;
}

static qn_status check_pair(place *p, const json_t *list, check_fn check, const char *expected)
{
    if (!json_is_array(list) || json_array_size(list) != 2)
        return wrong(p, list, expected);
    return check_list(p, list, check);
}

/* Members by name of a tensor or node. */
static qn_status check_names(place *p, const json_t *object, check_fn check)
{
    const char *name;
    json_t *value;
    if (!json_is_object(object))
        return wrong(p, object, "an object");
    json_object_foreach((json_t *)object, name, value)
    {
        const size_t before = enter_name(p, name);
        QN_TRY(check(p, value));
        leave(p, before);
    }
    return QN_OK;
}

typedef struct member {
    const char *key;
    check_fn check;
    bool required;
} member;

/* Members by key, of which there is a list. */
static qn_status check_members(place *p, const json_t *object, const member *members, size_t count)
{
    const char *key;
    json_t *value;
    char guess[300];
    if (!json_is_object(object))
        return wrong(p, object, "an object");
    json_object_foreach((json_t *)object, key, value)
    {
        qn_nearest nearest;
        size_t i = 0;
        qn__nearest_init(&nearest, key, strlen(key));
        const size_t before = enter_key(p, key);
        for (; i < count && strcmp(members[i].key, key) != 0; i++)
            qn__nearest_try(&nearest, members[i].key);
        QN_FAIL_IF(i == count, p->error, QN_INVALID_ARGUMENT, "%s: %s: unknown key%s",
                   p->recipe->path, p->path, qn__nearest_text(&nearest, guess, sizeof(guess)));
        QN_TRY(members[i].check(p, value));
        leave(p, before);
    }
    for (size_t i = 0; i < count; i++) {
        if (!members[i].required || json_object_get(object, members[i].key) != NULL)
            continue;
        (void)enter_key(p, members[i].key);
        QN_FAIL(p->error, QN_CORRUPT, "%s: %s: the key is missing", p->recipe->path, p->path);
    }
    return QN_OK;
}

#define CHECK_MEMBERS(p, object, members)                                                          \
    check_members(p, object, members, sizeof(members) / sizeof((members)[0]))

static qn_status check_override(place *p, const json_t *value)
{
    static const member members[] = {
        {"name", check_text, true}, {"key", check_text, true}, {"value", check_text, true}};
    return CHECK_MEMBERS(p, value, members);
}

static qn_status check_hash(place *p, const json_t *value)
{
    const char *const text = json_string_value(value);
    return text != NULL && strlen(text) == 16 && strspn(text, "0123456789abcdef") == 16
               ? QN_OK
               : wrong(p, value, "16 hexadecimal digits");
}

static qn_status check_sample(place *p, const json_t *value)
{
    static const member members[] = {{"name", check_text, true}, {"hash", check_hash, true}};
    return CHECK_MEMBERS(p, value, members);
}

static qn_status check_layer(place *p, const json_t *value)
{
    static const member members[] = {
        {"name", check_text, true},        {"op", check_text, true},
        {"int8", check_flag, true},        {"reason", check_text, false},
        {"weights", check_weights, false}, {"granularity", check_granularity, false},
        {"levels", check_levels, false},   {"bits", check_count, false},
        {"error", check_number, false},    {"saturates", check_flag, false},
        {"narrowed", check_count, false}};
    return CHECK_MEMBERS(p, value, members);
}

static qn_status check_channel_numbers(place *p, const json_t *value)
{
    if (json_array_size(value) > 4)
        return wrong(p, value, "a list of at most 4");
    return check_list(p, value, check_number);
}

static qn_status check_size(place *p, const json_t *value)
{
    return check_pair(p, value, check_count, "[width, height]");
}

static qn_status check_centre(place *p, const json_t *value)
{
    return check_pair(p, value, check_number, "[width, height]");
}

static qn_status check_preprocessing(place *p, const json_t *value)
{
    static const member members[] = {{"channels", check_channels, false},
                                     {"mean", check_channel_numbers, false},
                                     {"normal", check_channel_numbers, false},
                                     {"resize_shorter", check_count, false},
                                     {"resize", check_size, false},
                                     {"crop", check_size, false},
                                     {"letterbox", check_size, false},
                                     {"filter", check_filter, false},
                                     {"centre", check_centre, false}};
    return CHECK_MEMBERS(p, value, members);
}

static qn_status check_range(place *p, const json_t *value)
{
    QN_TRY(check_pair(p, value, check_number, "[low, high]"));
    const double lo = json_number_value(json_array_get(value, 0));
    const double hi = json_number_value(json_array_get(value, 1));
    QN_FAIL_IF(lo > hi, p->error, QN_CORRUPT, "%s: %s: expected [low, high], found [%g, %g]",
               p->recipe->path, p->path, lo, hi);
    return QN_OK;
}

static qn_status check_norm(place *p, const json_t *value)
{
    if (!json_is_array(value) || json_array_size(value) != 2)
        return wrong(p, value, "[means, variances]");
    size_t before = enter_item(p, 0);
    QN_TRY(check_list(p, json_array_get(value, 0), check_number));
    leave(p, before);
    before = enter_item(p, 1);
    QN_TRY(check_list(p, json_array_get(value, 1), check_not_negative));
    leave(p, before);
    return QN_OK;
}

#define OF_LISTS(check, each)                                                                      \
    static qn_status check##_of_one(place *p, const json_t *value)                                 \
    {                                                                                              \
        return check_list(p, value, each);                                                         \
    }                                                                                              \
    static qn_status check(place *p, const json_t *value)                                          \
    {                                                                                              \
        return check_names(p, value, check##_of_one);                                              \
    }
OF_LISTS(check_biases, check_number)
OF_LISTS(check_scales, check_positive)
OF_LISTS(check_equalization, check_exponent)

#define WITH(check, all, each)                                                                     \
    static qn_status check(place *p, const json_t *value)                                          \
    {                                                                                              \
        return all(p, value, each);                                                                \
    }
WITH(check_ranges, check_names, check_range)
WITH(check_integers, check_names, check_text)
WITH(check_norms, check_names, check_norm)
WITH(check_overrides, check_list, check_override)
WITH(check_samples, check_list, check_sample)
WITH(check_layers, check_list, check_layer)
WITH(check_notes, check_list, check_text)

qn_status qn__recipe_check(const qn_recipe *recipe, qn_error *error)
{
    static const member members[] = {{"recipe", check_version, true},
                                     {"quench", check_text, false},
                                     {"target", check_target, false},
                                     {"features", check_features, false},
                                     {"weights", check_weights, false},
                                     {"scheme", check_scheme, false},
                                     {"weight_block", check_block, false},
                                     {"granularity", check_granularity, false},
                                     {"activations", check_activations, false},
                                     {"calibrate_with", check_calibrate_with, false},
                                     {"bias_correction", check_switch, false},
                                     {"equalize", check_switch, false},
                                     {"x86", check_x86, false},
                                     {"weight_levels", check_levels, false},
                                     {"weight_bits", check_bits, false},
                                     {"weight_clamp", check_clamp, false},
                                     {"feature_clamp", check_clamp, false},
                                     {"batch", check_batch, false},
                                     {"overrides", check_overrides, false},
                                     {"preprocessing", check_preprocessing, false},
                                     {"samples", check_samples, false},
                                     {"ranges", check_ranges, false},
                                     {"biases", check_biases, false},
                                     {"equalization", check_equalization, false},
                                     {"batch_norm", check_norms, false},
                                     {"integers", check_integers, false},
                                     {"scales", check_scales, false},
                                     {"layers", check_layers, false},
                                     {"notes", check_notes, false}};
    place p = {.recipe = recipe, .error = error};
    QN_FAIL_IF(!json_is_object(recipe->root), error, QN_CORRUPT, "%s: not a JSON object",
               recipe->path);
    /* Another version may have other keys: say so first. */
    const json_t *const version = json_object_get(recipe->root, "recipe");
    if (version != NULL) {
        const size_t before = enter_key(&p, "recipe");
        QN_TRY(check_version(&p, version));
        leave(&p, before);
    }
    return CHECK_MEMBERS(&p, recipe->root, members);
}
