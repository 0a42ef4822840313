/* rt_dump MODEL.qnm INPUT.raw PREFIX: runs the stand-alone runtime's functions on every sample of
 * INPUT (float32, the model's only input) and appends output i as float32 to PREFIX.i. */
#include "quench/runtime.h"

#include <stdio.h>
#include <stdlib.h>

static bool write_output(const qn_rt_session *session, size_t index, const qn_rt_value *v,
                         const char *prefix, qn_error *error)
{
    char path[4096];
    snprintf(path, sizeof(path), "%s.%zu", prefix, index);
    float *const values = calloc(v->count + 1, sizeof(float));
    FILE *const file = fopen(path, "ab");
    const bool ok = values != NULL && file != NULL &&
                    qn_rt_get_output(session, index, values, v->count, error) == QN_OK &&
                    fwrite(values, sizeof(float), v->count, file) == v->count;
    free(values);
    return file != NULL && fclose(file) == 0 && ok;
}

int main(int argc, char **argv)
{
    qn_error error = {QN_OK, "cannot read or write a file"};
    qn_rt_model *model = NULL;
    qn_rt_session *session = NULL;
    qn_rt_value in, out;
    if (argc != 4)
        return fprintf(stderr, "usage: rt_dump MODEL.qnm INPUT.raw PREFIX\n"), 2;
    FILE *const file = fopen(argv[2], "rb");
    bool ok = file != NULL && qn_rt_model_load(argv[1], NULL, &model, &error) == QN_OK &&
              qn_rt_session_create(model, NULL, &session, &error) == QN_OK &&
              qn_rt_n_inputs(model) == 1 && qn_rt_input(model, 0, &in);
    float *const values = ok ? calloc(in.count + 1, sizeof(float)) : NULL;
    while (ok && values != NULL && fread(values, sizeof(float), in.count, file) == in.count) {
        ok = qn_rt_set_input(session, 0, values, in.count, &error) == QN_OK &&
             qn_rt_run(session, &error) == QN_OK;
        for (size_t i = 0; ok && qn_rt_output(model, i, &out); i++)
            ok = write_output(session, i, &out, argv[3], &error);
    }
    if (!ok)
        fprintf(stderr, "error: %s\n", error.message);
    free(values);
    if (file != NULL)
        fclose(file);
    qn_rt_session_destroy(session);
    qn_rt_model_destroy(model);
    return ok ? 0 : 1;
}
