/* run_dump [--requantize KIND] [--saturate16] [--as-read] [--cpu ISA] [--threads N] MODEL DATA
 * PREFIX: runs the model on every sample of DATA (a .npy of samples, or NAME=FILE,NAME=FILE for
 * several inputs) and writes all values of output i, sample after sample, as float32 to PREFIX.i.
 * One line of dimensions per output on stdout. */
#include "quench/dataset.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct job {
    qn_context *ctx;
    qn_model *model;
    qn_dataset *dataset;
    qn_session *session;
    float **inputs;
    FILE **files;
} job;

static qn_status open_all(job *j, const qn_context_options *context, const char *model_path,
                          const char *data, const qn_session_options *options, qn_error *error)
{
    qn_dataset_options samples;
    qn_dataset_options_init(&samples);
    samples.data_file = data;
    qn_status status = qn_context_create(context, &j->ctx, error);
    if (status == QN_OK)
        status = qn_model_load(j->ctx, model_path, &j->model, error);
    if (status == QN_OK)
        status = qn_dataset_create(j->ctx, j->model, &samples, &j->dataset, error);
    if (status == QN_OK)
        status = qn_session_create(j->model, options, &j->session, error);
    return status;
}

static void make_buffers(job *j, const char *prefix)
{
    const size_t n_inputs = qn_model_n_inputs(j->model), n_outputs = qn_model_n_outputs(j->model);
    j->inputs = calloc(n_inputs + 1, sizeof(*j->inputs));
    j->files = calloc(n_outputs + 1, sizeof(*j->files));
    if (j->inputs == NULL || j->files == NULL)
        abort();
    for (size_t i = 0; i < n_inputs; i++) {
        j->inputs[i] = calloc(qn_dataset_sample_count(j->dataset, i) + 1, sizeof(float));
        if (j->inputs[i] == NULL)
            abort();
    }
    for (size_t i = 0; i < n_outputs; i++) {
        char path[4096];
        snprintf(path, sizeof(path), "%s.%zu", prefix, i);
        j->files[i] = fopen(path, "wb");
        if (j->files[i] == NULL) {
            perror(path);
            exit(1);
        }
    }
}

static void print_dims(const job *j, size_t output)
{
    uint32_t rank = 0;
    int64_t dims[QN_MODEL_MAX_RANK];
    if (!qn_session_dims(j->session, true, output, &rank, dims))
        abort();
    for (uint32_t d = 0; d < rank; d++)
        printf("%s%lld", d > 0 ? "," : "", (long long)dims[d]);
    printf("\n");
}

static qn_status run_all(job *j, qn_error *error)
{
    const size_t n_samples = qn_dataset_count(j->dataset), n_outputs = qn_model_n_outputs(j->model);
    for (size_t s = 0; s < n_samples; s++) {
        qn_status status = qn_dataset_load(j->dataset, s, j->inputs, error);
        if (status == QN_OK)
            status = qn_session_run(j->session, (const float *const *)j->inputs, error);
        if (status != QN_OK)
            return status;
        for (size_t i = 0; i < n_outputs; i++) {
            size_t count = 0;
            const float *const values = qn_session_output(j->session, i, &count);
            if (values == NULL || fwrite(values, sizeof(float), count, j->files[i]) != count)
                abort();
        }
    }
    for (size_t i = 0; i < n_outputs; i++)
        print_dims(j, i);
    return QN_OK;
}

static qn_requantize kind_of(const char *name)
{
    static const char *const names[] = {"float", "gemmlowp", "gemmlowp-single", "shift"};
    for (int i = 0; i < 4; i++)
        if (strcmp(name, names[i]) == 0)
            return (qn_requantize)(QN_REQUANTIZE_FLOAT + i);
    fprintf(stderr, "no kind of requantization: %s\n", name);
    exit(2);
}

int main(int argc, char **argv)
{
    qn_session_options session;
    qn_session_options_init(&session);
    qn_context_options context;
    qn_context_options_init(&context);
    int at = 1;
    for (; at < argc && strncmp(argv[at], "--", 2) == 0; at++) {
        if (strcmp(argv[at], "--requantize") == 0 && at + 1 < argc)
            session.requantize = kind_of(argv[++at]);
        else if (strcmp(argv[at], "--saturate16") == 0)
            session.saturate16 = true;
        else if (strcmp(argv[at], "--as-read") == 0)
            session.simplify = false;
        else if (strcmp(argv[at], "--cpu") == 0 && at + 1 < argc)
            context.cpu_mask = argv[++at];
        else if (strcmp(argv[at], "--threads") == 0 && at + 1 < argc)
            context.n_threads = (uint32_t)strtoul(argv[++at], NULL, 10);
        else
            return 2;
    }
    if (argc - at != 3)
        return 2;
    job j = {0};
    qn_error error = {0};
    qn_status status = open_all(&j, &context, argv[at], argv[at + 1], &session, &error);
    if (status == QN_OK) {
        make_buffers(&j, argv[at + 2]);
        status = run_all(&j, &error);
    }
    if (status != QN_OK)
        fprintf(stderr, "error: %s: %s\n", qn_status_name(status), error.message);
    for (size_t i = 0; j.files != NULL && j.files[i] != NULL; i++)
        if (fclose(j.files[i]) != 0)
            abort();
    for (size_t i = 0; j.inputs != NULL && j.inputs[i] != NULL; i++)
        free(j.inputs[i]);
    free(j.files);
    free(j.inputs);
    qn_session_destroy(j.session);
    qn_dataset_destroy(j.dataset);
    qn_model_destroy(j.model);
    qn_context_destroy(j.ctx);
    return status == QN_OK ? 0 : 1;
}
