/* The report of a run: what became of every node, and the recipe. */
#include "quant/quant.h"

#include <stdio.h>
#include <string.h>

struct qn_report {
    const qn_context *ctx;
    qn_arena arena;
    size_t n_nodes, n_notes;
    qn_report_node *nodes;
    const char **notes;
    char *recipe;
    qn_settings settings; /* overrides are not kept */
    char block[16];
};

static bool fill_nodes(qn_report *r, const qn_quant_plan *plan, const uint64_t *macs)
{
    for (size_t n = 0; n < r->n_nodes; n++) {
        const qn_node *node = plan->graph->nodes[n];
        const qn_node_plan *p = &plan->nodes[n];
        const bool has_weights = p->quantized && p->rule == QN_RULE_WEIGHTS;
        r->nodes[n] = (qn_report_node){
            .name = qn__arena_strdup(&r->arena, node->name),
            .op = qn__op_name(node->op),
            .macs = macs[n],
            .quantized = p->quantized,
            .saturates = has_weights && p->weights.saturates,
            .weight_bits = has_weights ? p->weights.bits : 0,
            .weight_error = has_weights ? p->weights.error : 0,
        };
        if (p->reason != NULL)
            r->nodes[n].reason = qn__arena_strdup(&r->arena, p->reason);
        if (r->nodes[n].name == NULL || (p->reason != NULL && r->nodes[n].reason == NULL))
            return false;
    }
    for (size_t i = 0; i < r->n_notes; i++) {
        r->notes[i] = qn__arena_strdup(&r->arena, plan->notes[i]);
        if (r->notes[i] == NULL)
            return false;
    }
    return true;
}

qn_status qn__report_create(const qn_quant_plan *plan, const uint64_t *macs, char *recipe,
                            qn_report **out, qn_error *error)
{
    const qn_context *ctx = plan->graph->ctx;
    qn_report *r = qn__calloc(ctx, 1, sizeof(*r));
    if (r == NULL)
        return QN_NOMEM(error);
    *r = (qn_report){.ctx = ctx,
                     .n_nodes = plan->graph->n_nodes,
                     .n_notes = plan->n_notes,
                     .settings = *plan->settings};
    r->settings.overrides = NULL;
    (void)snprintf(r->block, sizeof(r->block), "%u", (unsigned)plan->settings->block);
    qn__arena_init(&r->arena, ctx);
    r->nodes = qn__arena_calloc(&r->arena, r->n_nodes, sizeof(*r->nodes));
    r->notes = qn__arena_calloc(&r->arena, r->n_notes, sizeof(*r->notes));
    if (r->nodes == NULL || r->notes == NULL || !fill_nodes(r, plan, macs)) {
        qn_report_destroy(r);
        return QN_NOMEM(error);
    }
    r->recipe = recipe;
    *out = r;
    return QN_OK;
}

void qn_report_destroy(qn_report *report)
{
    if (report == NULL)
        return;
    qn__arena_free(&report->arena);
    qn__free(report->ctx, report->recipe);
    qn__free(report->ctx, report);
}

size_t qn_report_n_nodes(const qn_report *report)
{
    return report != NULL ? report->n_nodes : 0;
}

bool qn_report_node_at(const qn_report *report, size_t index, qn_report_node *out)
{
    if (report == NULL || out == NULL || index >= report->n_nodes)
        return false;
    *out = report->nodes[index];
    return true;
}

const char *qn_report_note(const qn_report *report, size_t index)
{
    return report != NULL && index < report->n_notes ? report->notes[index] : NULL;
}

const char *qn_report_recipe(const qn_report *report)
{
    return report != NULL ? report->recipe : NULL;
}

const char *qn_report_method(const qn_report *report, const char *which)
{
    if (report == NULL || which == NULL)
        return NULL;
    const qn_settings *s = &report->settings;
    const struct {
        const char *key, *value;
    } rows[] = {
        {"target", s->target->name},
        {"features", s->features->name},
        {"weights", s->weights->name},
        {"granularity", s->per_channel ? "channel" : "tensor"},
        {"activations", qn__setting_activations(s)},
        {"calibrate_with", s->quantized_weights ? "quantized-weights" : "float"},
        {"bias_correction", s->bias_correction ? "on" : "off"},
        {"equalize", s->equalize ? "on" : "off"},
        {"x86", s->x86},
        {"weight_levels", qn__level_set_name(s->level_set)},
        {"scheme", s->scheme_word},
        {"weight_block", report->block},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        if (strcmp(rows[i].key, which) == 0)
            return rows[i].value;
    return NULL;
}
