/* Packs by planning: each form is what a plan would have packed on a machine that reads it. */
#include "run/packing.h"

#include "core/context.h"
#include "run/prepacked.h"

#include <string.h>

static const struct {
    const char *name;
    qn_packing_form form;
} FORMS[] = {
#define QN_PACKING(isa, nr, kr, pairs, ...)                                                        \
    {#isa, {nr, kr, (pairs) ? qn__q8_pairs_scalar : NULL, __VA_ARGS__}},
#include "run/packings.def"
#undef QN_PACKING
};

static qn_status find_form(const qn_context *ctx, const char *name, size_t length,
                           qn_packing_form *out, qn_error *error)
{
    if (length == 6 && memcmp(name, "native", 6) == 0) {
        qn_kernels kernels;
        qn__kernels_init(&kernels, ctx->cpu_flags);
        *out = (qn_packing_form){kernels.q8_igemm.nr,
                                 kernels.q8_igemm.kr,
                                 kernels.q8_igemm.pairs != NULL ? qn__q8_pairs_scalar : NULL,
                                 kernels.q8_dwconv.block,
                                 kernels.q8_dwconv.least,
                                 kernels.f32_igemm.nr,
                                 kernels.f32_ints.nr};
        return QN_OK;
    }
    for (size_t i = 0; i < sizeof(FORMS) / sizeof(FORMS[0]); i++) {
        if (strlen(FORMS[i].name) == length && memcmp(FORMS[i].name, name, length) == 0) {
            *out = FORMS[i].form;
            return QN_OK;
        }
    }
    QN_FAIL(error, QN_INVALID_ARGUMENT,
            "\"%.*s\" is no instruction set to pack for (native, scalar, avx2, avxvnni, avx512, "
            "vnni, amx, neon, dotprod, i8mm)",
            (int)(length < 64 ? length : 64), name);
}

qn_status qn__graph_pack(const qn_graph *graph, const char *names, qn_packed_list *out,
                         qn_error *error)
{
    qn_packing_form done[sizeof(FORMS) / sizeof(FORMS[0]) + 1];
    size_t n_done = 0;
    for (const char *at = names; *at != '\0';) {
        const size_t length = strcspn(at, ",");
        qn_packing_form f;
        QN_TRY(find_form(graph->ctx, at, length, &f, error));
        at += length + (at[length] == ',');
        bool again = false;
        for (size_t i = 0; i < n_done; i++)
            again |= memcmp(&done[i], &f, sizeof f) == 0;
        if (again)
            continue;
        done[n_done++] = f;
        qn_plan_options options;
        qn__plan_options_init(&options, graph->ctx);
        options.cpu_flags = 0; /* what a form holds does not depend on this machine */
        options.collect = out;
        options.collect_add = qn__packed_list_add;
        options.collect_for = &f;
        qn_plan *plan = NULL;
        QN_TRY(qn__plan_create(graph, &options, &plan, error));
        qn__plan_destroy(plan);
    }
    return QN_OK;
}
