/* Patterns of --skip and --set: a name, op:TYPE, or /POSIX extended regular expression/. */
#include "core/nearest.h"
#include "quant/quant.h"

#include <regex.h>
#include <stdio.h>
#include <string.h>

struct qn_pattern {
    const qn_context *ctx;
    char *name; /* exact name, or operator */
    bool is_op, is_regex;
    regex_t regex;
};

enum { MAX_REGEX = 512, MAX_REPEATS = 1000, MAX_GROUPS = 32 };

/* Recipes come from elsewhere: what takes time or stack without bound in regcomp and regexec is
 * refused. NULL: nothing of that. */
static const char *too_much(const char *regex)
{
    uint64_t repeats = 1;
    size_t groups = 0;
    if (strlen(regex) > MAX_REGEX)
        return "longer than 512 bytes";
    bool of_one = true; /* what a + here repeats is a single character */
    for (const char *at = regex; *at != '\0'; at++) {
        const bool one = of_one;
        of_one = strchr(")*+?}", *at) == NULL;
        if (*at == '\\') {
            at++;
            of_one = true;
            if (*at >= '1' && *at <= '9')
                return "refers back to a group";
            if (*at == '\0')
                break;
        } else if (*at == '(') {
            groups++;
        } else if (*at == '{') { /* each counts, as if all were inside one another */
            uint64_t least = 0, most = 0;
            const char *end = at + 1;
            for (; *end >= '0' && *end <= '9' && least <= MAX_REPEATS; end++)
                least = least * 10 + (uint64_t)(*end - '0');
            if (*end == ',')
                for (end++; *end >= '0' && *end <= '9' && most <= MAX_REPEATS; end++)
                    most = most * 10 + (uint64_t)(*end - '0');
            most = most > least ? most : least;
            repeats *= most > 1 ? most : 1;
        } else if (*at == '+' && !one) { /* regcomp copies what it repeats */
            repeats *= 2;
        }
        if (repeats > MAX_REPEATS)
            return "repeats more than 1000 times";
    }
    return groups > MAX_GROUPS ? "more than 32 groups" : NULL;
}

qn_status qn__pattern_create(const qn_context *ctx, const char *text, qn_pattern **out,
                             qn_error *error)
{
    const size_t length = strlen(text);
    QN_FAIL_IF(length == 0, error, QN_INVALID_ARGUMENT, "empty name pattern");
    qn_pattern *p = qn__calloc(ctx, 1, sizeof(*p));
    if (p == NULL)
        return QN_NOMEM(error);
    p->ctx = ctx;
    p->is_op = strncmp(text, "op:", 3) == 0;
    p->name = qn__strdup(ctx, p->is_op ? text + 3 : text);
    if (p->name == NULL) {
        qn__free(ctx, p);
        return QN_NOMEM(error);
    }
    if (length >= 2 && text[0] == '/' && text[length - 1] == '/') {
        p->name[length - 1] = '\0';
        const char *const refusal = too_much(p->name + 1);
        if (refusal != NULL) {
            qn__pattern_destroy(p);
            QN_FAIL(error, QN_LIMIT, "pattern %.100s: %s", text, refusal);
        }
        const int rc = regcomp(&p->regex, p->name + 1, REG_EXTENDED | REG_NOSUB);
        if (rc != 0) {
            char reason[128];
            (void)regerror(rc, &p->regex, reason, sizeof(reason));
            qn__pattern_destroy(p);
            QN_FAIL(error, QN_INVALID_ARGUMENT, "pattern %s: %s", text, reason);
        }
        p->is_regex = true;
    }
    *out = p;
    return QN_OK;
}

void qn__pattern_destroy(qn_pattern *pattern)
{
    if (pattern == NULL)
        return;
    if (pattern->is_regex)
        regfree(&pattern->regex);
    qn__free(pattern->ctx, pattern->name);
    qn__free(pattern->ctx, pattern);
}

static bool matches(const qn_pattern *p, const char *name)
{
    return p->is_regex ? regexec(&p->regex, name, 0, NULL, 0) == 0 : strcmp(p->name, name) == 0;
}

bool qn__pattern_matches_node(const qn_pattern *pattern, const qn_node *node)
{
    if (pattern->is_op)
        return strcmp(pattern->name, qn__op_name(node->op)) == 0;
    return matches(pattern, node->name) ||
           (node->act_name != NULL && matches(pattern, node->act_name));
}

bool qn__pattern_matches_tensor(const qn_pattern *pattern, const qn_tensor *tensor)
{
    if (pattern->is_op)
        return false;
    if (matches(pattern, tensor->name))
        return true;
    /* Equalization renames tensors; the model's own name still means them. */
    static const char suffix[] = "_equalized";
    const size_t length = strlen(tensor->name), tail = sizeof(suffix) - 1;
    char own[512];
    if (length <= tail || length - tail >= sizeof(own) ||
        strcmp(tensor->name + length - tail, suffix) != 0)
        return false;
    memcpy(own, tensor->name, length - tail);
    own[length - tail] = '\0';
    return matches(pattern, own);
}

const char *qn__pattern_guess(const qn_graph *graph, const char *pattern, char *text, size_t size)
{
    qn_nearest nearest;
    const bool is_op = strncmp(pattern, "op:", 3) == 0;
    const char *const word = is_op ? pattern + 3 : pattern;
    qn__nearest_init(&nearest, word, strlen(word));
    for (size_t i = 0; i < graph->n_inputs && !is_op; i++)
        qn__nearest_try(&nearest, graph->inputs[i]->name);
    for (size_t n = 0; n < graph->n_nodes; n++) {
        const qn_node *const node = graph->nodes[n];
        qn__nearest_try(&nearest, is_op ? qn__op_name(node->op) : node->name);
        if (!is_op && node->act_name != NULL)
            qn__nearest_try(&nearest, node->act_name);
        for (uint32_t k = 0; k < node->n_outputs && !is_op; k++)
            if (node->outputs[k] != NULL)
                qn__nearest_try(&nearest, node->outputs[k]->name);
    }
    text[0] = '\0';
    if (nearest.best != NULL)
        (void)snprintf(text, size, ": did you mean \"%s%s\"?", is_op ? "op:" : "", nearest.best);
    return text;
}
