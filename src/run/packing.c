/* Packs by planning: each form is what a plan would have packed on a machine that reads it. */
#include "run/packing.h"

#include "core/context.h"
#include "kernel/kernel.h"

#include <string.h>

typedef struct form {
    const char *name;
    uint8_t nr, kr;
    bool pairs;
} form;

static const form FORMS[] = {
#define QN_PACKING(isa, nr, kr, pairs) {#isa, nr, kr, pairs},
#include "run/packings.def"
#undef QN_PACKING
};

static qn_status find_form(const qn_context *ctx, const char *name, size_t length, form *out,
                           qn_error *error)
{
    if (length == 6 && memcmp(name, "native", 6) == 0) {
        qn_kernels kernels;
        qn__kernels_init(&kernels, ctx->cpu_flags);
        *out = (form){"native", (uint8_t)kernels.q8_igemm.nr, (uint8_t)kernels.q8_igemm.kr,
                      kernels.q8_igemm.pairs != NULL};
        return QN_OK;
    }
    for (size_t i = 0; i < sizeof(FORMS) / sizeof(FORMS[0]); i++) {
        if (strlen(FORMS[i].name) == length && memcmp(FORMS[i].name, name, length) == 0) {
            *out = FORMS[i];
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
    form done[sizeof(FORMS) / sizeof(FORMS[0]) + 1];
    size_t n_done = 0;
    for (const char *at = names; *at != '\0';) {
        const size_t length = strcspn(at, ",");
        form f;
        QN_TRY(find_form(graph->ctx, at, length, &f, error));
        at += length + (at[length] == ',');
        bool again = false;
        for (size_t i = 0; i < n_done; i++)
            again |= done[i].nr == f.nr && done[i].kr == f.kr && done[i].pairs == f.pairs;
        if (again)
            continue;
        done[n_done++] = f;
        const qn_q8_igemm sizes = {
            .nr = f.nr, .kr = f.kr, .pairs = f.pairs ? qn__q8_pairs_scalar : NULL};
        qn_plan_options options;
        qn__plan_options_init(&options, graph->ctx);
        options.cpu_flags = 0; /* what a form holds does not depend on this machine */
        options.collect = out;
        options.collect_for = &sizes;
        qn_plan *plan = NULL;
        QN_TRY(qn__plan_create(graph, &options, &plan, error));
        qn__plan_destroy(plan);
    }
    return QN_OK;
}
