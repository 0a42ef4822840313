/* The options of all commands, from one table (options.def). */
#include "cli.h"
#include "core/nearest.h"
#include "streams.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static bool bad(const char *option, const char *value, const char *wanted)
{
    cli_usage_error("%s: \"%s\" is not %s", option, value, wanted);
    return false;
}

static bool parse_u64(const char *option, const char *value, uint64_t lowest, uint64_t *out)
{
    char *end;
    errno = 0;
    const unsigned long long number = strtoull(value, &end, 10);
    if (!isdigit((unsigned char)value[0]) || *end != '\0' || errno != 0)
        return bad(option, value, "a whole number");
    if (number < lowest) {
        cli_usage_error("%s: \"%s\" is not %llu or more", option, value,
                        (unsigned long long)lowest);
        return false;
    }
    *out = number;
    return true;
}

static bool parse_i64(const char *option, const char *value, int64_t lowest, int64_t highest,
                      int64_t *out)
{
    uint64_t number;
    if (!parse_u64(option, value, (uint64_t)lowest, &number))
        return false;
    if (number > (uint64_t)highest) {
        cli_usage_error("%s: %s is above %lld", option, value, (long long)highest);
        return false;
    }
    *out = (int64_t)number;
    return true;
}

static bool parse_u32(const char *option, const char *value, uint32_t lowest, uint32_t highest,
                      uint32_t *out)
{
    int64_t number;
    if (!parse_i64(option, value, lowest, highest, &number))
        return false;
    *out = (uint32_t)number;
    return true;
}

static bool parse_floats(const char *option, const char *value, float *out, uint32_t *count)
{
    const char *p = value;
    *count = 0;
    for (;;) {
        char *end;
        const float number = strtof(p, &end);
        if (end == p || isspace((unsigned char)*p) || !isfinite(number) ||
            (*end != ',' && *end != '\0'))
            return bad(option, value, "a number or a list of numbers separated by commas");
        if (*count == 4)
            return bad(option, value, "a list of at most 4 numbers");
        out[(*count)++] = number;
        if (*end == '\0')
            return true;
        p = end + 1;
    }
}

/* "N" (both) or "WxH". */
static bool parse_size(const char *option, const char *value, uint32_t *width, uint32_t *height)
{
    char first[32];
    const char *x = strchr(value, 'x');
    if (x == NULL) {
        if (!parse_u32(option, value, 1, 65535, width))
            return false;
        *height = *width;
        return true;
    }
    const size_t length = (size_t)(x - value);
    if (length >= sizeof first)
        return bad(option, value, "a size WxH");
    memcpy(first, value, length);
    first[length] = '\0';
    return parse_u32(option, first, 1, 65535, width) && parse_u32(option, x + 1, 1, 65535, height);
}

static bool parse_resize(const char *value, qn_preprocess *out)
{
    if (strchr(value, 'x') == NULL)
        return parse_u32("--resize", value, 1, 65535, &out->resize_shorter);
    return parse_size("--resize", value, &out->resize_width, &out->resize_height);
}

/* "I/N". */
static bool parse_part(const char *value, qn_stats_options *out)
{
    char first[32];
    const size_t length = strcspn(value, "/");
    if (value[length] == '\0' || length >= sizeof first)
        return bad("--part", value, "a part I/N, as 3/7");
    memcpy(first, value, length);
    first[length] = '\0';
    if (!parse_u64("--part", first, 1, &out->part) ||
        !parse_u64("--part", value + length + 1, 1, &out->n_parts))
        return false;
    return out->part <= out->n_parts || bad("--part", value, "a part I/N, as 3/7");
}

/* Index of value in "a|b|c", or -1. */
static int choice_index(const char *value, const char *choices)
{
    const size_t length = strlen(value);
    int index = 0;
    for (const char *p = choices;; index++) {
        const size_t n = strcspn(p, "|");
        if (n == length && memcmp(p, value, n) == 0)
            return index;
        if (p[n] == '\0')
            return -1;
        p += n + 1;
    }
}

#define REQUANTIZE_KINDS "float|gemmlowp|gemmlowp-single|shift"
static bool parse_choice(const char *option, const char *value, const char *choices)
{
    if (choice_index(value, choices) >= 0)
        return true;
    char list[256], guess[96];
    qn_nearest nearest;
    qn__nearest_init(&nearest, value, strlen(value));
    snprintf(list, sizeof list, "%s", choices);
    for (char *p = list; p != NULL;) {
        char *const end = strchr(p, '|');
        if (end != NULL)
            *end = '\0';
        qn__nearest_try(&nearest, p);
        p = end != NULL ? end + 1 : NULL;
    }
    cli_usage_error("%s: \"%s\" is not one of %s%s", option, value, choices,
                    qn__nearest_text(&nearest, guess, sizeof guess));
    return false;
}

static bool parse_channels(const char *value, qn_channels *out)
{
    if (!parse_choice("--channels", value, "RGB|BGR|GRAY|RGBA|BGRA"))
        return false;
    *out = (qn_channels)choice_index(value, "RGB|BGR|GRAY|RGBA|BGRA");
    return true;
}

static bool parse_filter(const char *value, qn_filter *out)
{
    static const char names[] = "bilinear|bilinear-plain|bicubic|nearest|mnn|mnn-truncate";
    if (!parse_choice("--filter", value, names))
        return false;
    *out = (qn_filter)choice_index(value, names);
    return true;
}

static bool parse_method(const char *option, const char *value, const char *(*name_at)(size_t))
{
    char list[512] = "", guess[96];
    qn_nearest nearest;
    qn__nearest_init(&nearest, value, strlen(value));
    for (size_t i = 0; name_at(i) != NULL; i++) {
        if (strcmp(name_at(i), value) == 0)
            return true;
        qn__nearest_try(&nearest, name_at(i));
        const size_t used = strlen(list);
        snprintf(list + used, sizeof list - used, "%s%s", i > 0 ? ", " : "", name_at(i));
    }
    cli_usage_error("%s: unknown name \"%s\" (%s)%s", option, value, list,
                    qn__nearest_text(&nearest, guess, sizeof guess));
    return false;
}

static char *own_copy(cli_options *o, const char *text)
{
    char *copy = o->n_owned < CLI_MAX_OVERRIDES ? strdup(text) : NULL;
    if (copy != NULL)
        o->owned[o->n_owned++] = copy;
    return copy;
}

static bool add_override(cli_options *o, const char *pattern, const char *key, const char *value)
{
    if (o->n_overrides == CLI_MAX_OVERRIDES) {
        cli_usage_error("more than %d --set and --skip options", CLI_MAX_OVERRIDES);
        return false;
    }
    o->overrides[o->n_overrides++] = (qn_override){pattern, key, value};
    return true;
}

/* NAME:KEY=VALUE; names may hold colons, so the last colon before the '=' counts. */
static bool parse_set(cli_options *o, const char *value)
{
    char *copy = own_copy(o, value);
    if (copy == NULL) {
        cli_usage_error("too many --set options");
        return false;
    }
    /* In /regex/:key=value the regex may hold '=' too: it ends at the last "/:". */
    char *from = copy;
    if (copy[0] == '/') {
        for (char *p = strstr(copy, "/:"); p != NULL; p = strstr(p + 1, "/:"))
            from = p;
    }
    char *equals = strchr(from, '=');
    char *colon = NULL;
    for (char *p = from; equals != NULL && p < equals; p++)
        if (*p == ':')
            colon = p;
    if (colon == NULL || colon == copy || colon + 1 == equals || equals[1] == '\0')
        return bad("--set", value, "NAME:key=value");
    *colon = *equals = '\0';
    static const char keys[] = "features|weights|granularity|weight-bits|weight-levels|"
                               "weight-clamp|feature-clamp|range|float|skip";
    if (!parse_choice("--set", colon + 1, keys))
        return false;
    if (strcmp(colon + 1, "features") == 0 &&
        !parse_method("--set features", equals + 1, qn_feature_method_name))
        return false;
    if (strcmp(colon + 1, "weights") == 0 &&
        !parse_method("--set weights", equals + 1, qn_weight_method_name))
        return false;
    return add_override(o, copy, colon + 1, equals + 1);
}

/* Repeated: a line for each, so that a name may have commas. */
static bool add_data(cli_options *o, const char *value)
{
    if (o->data.data_file == NULL) {
        o->data.data_file = value;
        return true;
    }
    if (strchr(o->data.data_file, '=') == NULL || strchr(value, '=') == NULL)
        return bad("--data", value, "NAME=FILE, which a repeated --data must be");
    const size_t size = strlen(o->data.data_file) + strlen(value) + 2;
    char *joined = o->n_owned < CLI_MAX_OVERRIDES ? malloc(size) : NULL;
    if (joined == NULL)
        return bad("--data", value, "one of so many options");
    snprintf(joined, size, "%s\n%s", o->data.data_file, value);
    o->owned[o->n_owned++] = joined;
    o->data.data_file = joined;
    return true;
}

/* NAME:1,3,224,224 */
static bool parse_input_shape(cli_options *o, const char *value)
{
    char *copy = own_copy(o, value);
    char *colon = copy == NULL ? NULL : strrchr(copy, ':');
    if (colon == NULL || colon == copy || o->n_input_shapes == CLI_MAX_INPUTS)
        return bad("--input-shape", value, "NAME:DIMS");
    *colon = '\0';
    o->input_shapes[o->n_input_shapes].name = copy;
    uint32_t rank = 0;
    for (char *p = colon + 1; p != NULL; rank++) {
        char *comma = strchr(p, ',');
        if (comma != NULL)
            *comma++ = '\0';
        if (rank == QN_MODEL_MAX_RANK)
            return bad("--input-shape", value, "a shape of at most 8 dimensions");
        if (!parse_i64("--input-shape", p, 1, INT32_MAX,
                       &o->input_shapes[o->n_input_shapes].dims[rank]))
            return false;
        p = comma;
    }
    o->input_shapes[o->n_input_shapes++].rank = rank;
    return true;
}

/* Each row's statement becomes a function of its own; __LINE__ names it. */
#define CLI_NAME2(line) apply_##line
#define CLI_NAME(line) CLI_NAME2(line)
#define CLI_OPTION(name, letter, argument, commands, group, help, ...)                             \
    static bool CLI_NAME(__LINE__)(cli_options * o, const char *value)                             \
    {                                                                                              \
        bool ok = true;                                                                            \
        (void)o, (void)value;                                                                      \
        __VA_ARGS__;                                                                               \
        return ok;                                                                                 \
    }
#include "options.def"
#undef CLI_OPTION

static const cli_option_row option_rows[] = {
#define CLI_OPTION(name, letter, argument, commands, group, help, ...)                             \
    {name, letter, argument, commands, group, help, CLI_NAME(__LINE__)},
#include "options.def"
#undef CLI_OPTION
};
enum { N_OPTIONS = sizeof option_rows / sizeof option_rows[0] };

const cli_option_row *cli_option_at(size_t index)
{
    return index < N_OPTIONS ? &option_rows[index] : NULL;
}

static const cli_option_row *find_long(const char *name, size_t length)
{
    for (size_t i = 0; i < N_OPTIONS; i++)
        if (strlen(option_rows[i].name) == length && memcmp(option_rows[i].name, name, length) == 0)
            return &option_rows[i];
    return NULL;
}

static const cli_option_row *find_short(char letter)
{
    for (size_t i = 0; i < N_OPTIONS; i++)
        if (option_rows[i].letter == letter)
            return &option_rows[i];
    return NULL;
}

static void set_defaults(cli_options *o)
{
    memset(o, 0, sizeof *o);
    qn_dataset_options_init(&o->data);
    qn_quantize_options_init(&o->quantize);
    qn_stats_options_init(&o->stats);
    o->batch = 1;
    o->top = 5;
    o->rounds = 10;
}

static bool check_channels(const cli_options *o)
{
    const uint32_t channels = o->data.preprocess.channels == QN_CHANNELS_GRAY   ? 1
                              : o->data.preprocess.channels >= QN_CHANNELS_RGBA ? 4
                                                                                : 3;
    const struct {
        const char *option;
        uint32_t count;
    } lists[] = {{"--mean", o->data.preprocess.n_mean}, {"--normal", o->data.preprocess.n_normal}};
    for (size_t i = 0; i < 2; i++) {
        if (lists[i].count > 1 && lists[i].count != channels) {
            cli_usage_error("%s: %u numbers for %u channels (1 or %u are possible)",
                            lists[i].option, lists[i].count, channels, channels);
            return false;
        }
    }
    return true;
}

static bool check_sources(const cli_options *o)
{
    const int sources = (o->data.images_dir != NULL) + (o->data.data_file != NULL) +
                        (o->data.list_file != NULL) + (o->data.sequences_dir != NULL);
    if (sources > 1) {
        cli_usage_error("only one of --images, --data, --list and --sequences can be given");
        return false;
    }
    if (o->data.use_seed && o->data.count == 0) {
        cli_usage_error("--seed needs --count");
        return false;
    }
    if (o->data.count != 0 && o->data.first != 0) {
        cli_usage_error("only one of --count and --first can be given");
        return false;
    }
    if ((o->data.raw_type != NULL) != (o->data.raw_shape != NULL)) {
        cli_usage_error("--raw-type and --raw-shape belong together");
        return false;
    }
    return true;
}

static const char *nearest_option(const char *word, size_t length, unsigned command)
{
    qn_nearest nearest;
    qn__nearest_init(&nearest, word, length);
    for (size_t i = 0; i < N_OPTIONS; i++)
        if ((option_rows[i].commands & command) != 0)
            qn__nearest_try(&nearest, option_rows[i].name);
    return nearest.best;
}

static bool unknown_option(const char *argument, const cli_option_row *row, unsigned command,
                           const char *command_name)
{
    const bool is_long = argument[1] == '-';
    const size_t length = is_long ? strcspn(argument + 2, "=") : 0;
    const char *near = is_long ? nearest_option(argument + 2, length, command) : NULL;
    if (row != NULL)
        cli_usage_error("--%s is not an option of %s", row->name, command_name);
    else if (near != NULL)
        cli_usage_error("unknown option %s: did you mean --%s?", argument, near);
    else
        cli_usage_error("unknown option %s (quench %s --help lists them)", argument, command_name);
    return false;
}

bool cli_parse(int argc, char **argv, unsigned command, const char *command_name, cli_options *out)
{
    set_defaults(out);
    bool only_files = false;
    for (int i = 0; i < argc; i++) {
        const char *argument = argv[i];
        if (only_files || argument[0] != '-' || argument[1] == '\0') {
            if (out->n_positional == CLI_MAX_POSITIONAL) {
                cli_usage_error("more than %d file arguments", CLI_MAX_POSITIONAL);
                return false;
            }
            out->positional[out->n_positional++] = argument;
            continue;
        }
        if (strcmp(argument, "--") == 0) {
            only_files = true;
            continue;
        }
        const char *value = NULL;
        const cli_option_row *row;
        if (argument[1] == '-') {
            const size_t length = strcspn(argument + 2, "=");
            row = find_long(argument + 2, length);
            if (argument[2 + length] == '=')
                value = argument + 2 + length + 1;
        } else {
            row = argument[2] == '\0' ? find_short(argument[1]) : NULL;
        }
        if (row == NULL || (row->commands & command) == 0)
            return unknown_option(argument, row, command, command_name);
        if (row->argument == NULL && value != NULL) {
            cli_usage_error("--%s takes no value", row->name);
            return false;
        }
        if (row->argument != NULL && value == NULL) {
            if (i + 1 >= argc) {
                cli_usage_error("--%s needs a value: %s", row->name, row->argument);
                return false;
            }
            value = argv[++i];
        }
        if (!row->apply(out, value))
            return false;
    }
    out->quantize.overrides = out->overrides;
    out->quantize.n_overrides = out->n_overrides;
    out->quantize.batch = out->batch;
    return out->help || (check_channels(out) && check_sources(out));
}

void cli_options_free(cli_options *options)
{
    for (size_t i = 0; i < options->n_owned; i++)
        free(options->owned[i]);
    options->n_owned = 0;
}
