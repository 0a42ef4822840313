/* fault_files LIST: what memory that runs out does to many small models, in one process. A line of
 * LIST is STEP IN OUT [DATA], separated by tabs. STEP:
 *   convert        IN is loaded and saved as OUT
 *   run            IN is loaded, planned and run on zeros (OUT: -)
 *   quantize:T     IN is quantized for target T on DATA (a .npy of samples) and saved as OUT; for
 *                  onnxruntime it is compared with IN on DATA too
 *   SCHEME         int8, int4, dynamic: the same without samples for a scheme of weights
 * After an undisturbed run every way to an allocation that no line has failed yet fails once (see
 * fault_sites.h). Prints STEP IN and "ok N" (ways tried), "refused STATUS MESSAGE" (the undisturbed
 * run fails) or "WRONG
 * ...": a failure that went unnoticed, came back as something else, leaked, or left a file behind.
 */
#include "fault/fault_sites.h"
#include "quench/dataset.h"
#include "quench/quantize.h"

#include <stdarg.h>
#include <string.h>

static fault_sites sites;
static char message[2048]; /* of what is wrong */
static uint64_t result;    /* hash of what the last run made */

typedef struct job {
    const char *step, *in, *out, *data;
} job;

static void hash(const void *data, size_t size)
{
    for (size_t i = 0; i < size; i++)
        result = (result ^ ((const uint8_t *)data)[i]) * 0x100000001b3u;
}

static void hash_file(const char *path)
{
    static uint8_t bytes[1 << 16];
    FILE *const file = fopen(path, "rb");
    for (size_t n = 1; file != NULL && n > 0;) {
        n = fread(bytes, 1, sizeof(bytes), file);
        hash(bytes, n);
    }
    if (file != NULL)
        fclose(file);
}

static qn_status quantize(qn_context *ctx, const job *j, const qn_model *model, qn_model **out,
                          qn_error *error)
{
    qn_dataset *dataset = NULL;
    qn_quantize_options options;
    qn_quantize_options_init(&options);
    const char *const target = strchr(j->step, ':');
    qn_status status = QN_OK;
    if (target == NULL) {
        options.scheme = j->step;
    } else {
        options.target = target + 1;
        qn_dataset_options samples;
        qn_dataset_options_init(&samples);
        samples.data_file = j->data;
        status = qn_dataset_create(ctx, model, &samples, &dataset, error);
    }
    if (status == QN_OK)
        status = qn_quantize(model, dataset, &options, out, NULL, error);
    qn_comparison *rows = NULL;
    if (status == QN_OK && dataset != NULL && strcmp(options.target, "onnxruntime") == 0)
        status = qn_compare(model, *out, dataset, &rows, error);
    qn_comparison_destroy(rows);
    qn_dataset_destroy(dataset);
    return status;
}

static qn_status run(const qn_model *model, qn_error *error)
{
    static const float ZEROS[1 << 16];
    qn_session_options options;
    qn_session *session = NULL;
    qn_session_options_init(&options);
    qn_status status = qn_session_create(model, &options, &session, error);
    const float *inputs[8] = {ZEROS, ZEROS, ZEROS, ZEROS, ZEROS, ZEROS, ZEROS, ZEROS};
    bool fits = qn_model_n_inputs(model) <= 8;
    for (size_t i = 0; status == QN_OK && i < qn_model_n_inputs(model); i++) {
        uint32_t rank = 0;
        int64_t dims[QN_MODEL_MAX_RANK], count = 1;
        qn_session_dims(session, false, i, &rank, dims);
        for (uint32_t k = 0; k < rank && fits; k++) {
            count *= dims[k];
            fits = count <= 1 << 16;
        }
    }
    if (status == QN_OK && fits)
        status = qn_session_run(session, inputs, error);
    for (size_t i = 0; status == QN_OK && fits && i < qn_model_n_outputs(model); i++) {
        size_t count = 0;
        const float *const values = qn_session_output(session, i, &count);
        hash(values, count * sizeof(*values));
    }
    qn_session_destroy(session);
    return status;
}

static qn_status perform(const job *j, qn_error *error)
{
    qn_context_options options;
    qn_context_options_init(&options);
    const qn_allocator allocator = sites_allocator(&sites);
    options.allocator = &allocator;
    options.n_threads = 1;
    qn_context *ctx = NULL;
    qn_model *model = NULL, *quantized = NULL;
    qn_status status = qn_context_create(&options, &ctx, error);
    if (status == QN_OK) {
        ctx->arena_block_bytes = 16; /* a block for each request */
        status = qn_model_load(ctx, j->in, &model, error);
    }
    if (status == QN_OK && strcmp(j->step, "run") != 0 && strcmp(j->step, "convert") != 0)
        status = quantize(ctx, j, model, &quantized, error);
    result = 0xcbf29ce484222325u;
    if (status == QN_OK && strcmp(j->step, "run") == 0)
        status = run(model, error);
    if (status == QN_OK && strcmp(j->out, "-") != 0)
        status =
            qn_model_save(quantized != NULL ? quantized : model, j->out, QN_SAVE_QDQ, NULL, error);
    if (status == QN_OK && strcmp(j->out, "-") != 0)
        hash_file(j->out);
    qn_model_destroy(quantized);
    qn_model_destroy(model);
    qn_context_destroy(ctx);
    return status;
}

static bool wrong(const char *format, ...) __attribute__((format(printf, 1, 2)));
static bool wrong(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof(message), format, args);
    va_end(args);
    return false;
}

static bool fails_well(const job *j, uint64_t call, uint64_t wanted)
{
    qn_error error = {0};
    sites.memory = (fault){.fail_at = call};
    unlink(j->out);
    const qn_status status = perform(j, &error);
    const unsigned long long n = call;
    if (sites.memory.live != 0)
        return wrong("allocation %llu: %lld leaked", n, (long long)sites.memory.live);
    if (status == QN_OK)
        return result == wanted || wrong("allocation %llu failed unnoticed", n);
    if (status != QN_NO_MEMORY || error.status != status || error.message[0] == '\0' ||
        strchr(error.message, '\n') != NULL)
        return wrong("allocation %llu: %s \"%s\"", n, qn_status_name(status), error.message);
    if (strcmp(j->out, "-") != 0 && access(j->out, F_OK) == 0)
        return wrong("allocation %llu failed, but %s is there", n, j->out);
    return true;
}

static void sweep(const job *j)
{
    qn_error error = {0};
    sites.n_calls = 0;
    sites.memory = (fault){0};
    sites.learns = true;
    const qn_status status = perform(j, &error);
    sites_learnt(&sites);
    const uint64_t wanted = result;
    printf("%s\t%s\t", j->step, j->in);
    if (status != QN_OK) {
        printf("refused\t%s\t%s\n", qn_status_name(status), error.message);
        return;
    }
    if (sites.memory.live != 0) {
        printf("WRONG\t%lld leaked by a run that succeeds\n", (long long)sites.memory.live);
        return;
    }
    for (size_t i = 0; i < sites.n_calls; i++)
        if (!fails_well(j, sites.calls[i], wanted)) {
            printf("WRONG\t%s\n", message);
            return;
        }
    sites.memory = (fault){0};
    if (sites.n_calls != 0 && perform(j, &error) != QN_OK)
        printf("WRONG\tthe last run fails: %s\n", error.message);
    else
        printf("ok\t%zu\n", sites.n_calls);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    FILE *const list = argc == 2 ? fopen(argv[1], "r") : NULL;
    if (list == NULL) {
        fprintf(stderr, "usage: fault_files LIST\n");
        return 2;
    }
    static char line[1 << 14];
    while (fgets(line, sizeof(line), list) != NULL) {
        char *rest = NULL;
        line[strcspn(line, "\n")] = '\0';
        job j = {.step = strtok_r(line, "\t", &rest)};
        j.in = strtok_r(NULL, "\t", &rest);
        j.out = strtok_r(NULL, "\t", &rest);
        j.data = strtok_r(NULL, "\t", &rest);
        if (j.out != NULL)
            sweep(&j);
    }
    fclose(list);
    return 0;
}
