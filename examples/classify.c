/* Classifies a picture with a compact model (.qnm): PPM with nothing but the stand-alone runtime,
 * JPEG, PNG and others with the whole library (either way less than 60 lines).
 *     classify MODEL.qnm PICTURE [MEAN SCALE]      input = (pixel - MEAN) * SCALE, default 0 1
 * Build: cc classify.c $(pkg-config --cflags --libs quench-rt)
 *    or: cc -DWHOLE_LIBRARY classify.c $(pkg-config --cflags --libs quench) */
#include <quench/runtime.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
static float values[3 * 1024 * 1024], scores[1024 * 1024];

#ifdef WHOLE_LIBRARY
#include <quench/dataset.h>
static bool read_picture(char **argv, const qn_rt_value *in, const double *pre, qn_error *error)
{
    qn_context *ctx = NULL;
    qn_model *model = NULL;
    qn_dataset *pictures = NULL;
    qn_dataset_options options;
    qn_dataset_options_init(&options);
    options.files = (const char *const *)argv + 2, options.n_files = 1;
    options.preprocess.n_mean = options.preprocess.n_normal = 1;
    options.preprocess.mean[0] = (float)pre[0], options.preprocess.normal[0] = (float)pre[1];
    const bool ok = in->rank == 4 && qn_context_create(NULL, &ctx, error) == QN_OK &&
                    qn_model_load(ctx, argv[1], &model, error) == QN_OK &&
                    qn_dataset_create(ctx, model, &options, &pictures, error) == QN_OK &&
                    qn_dataset_load(pictures, 0, (float *[]){values}, error) == QN_OK;
    qn_dataset_destroy(pictures), qn_model_destroy(model), qn_context_destroy(ctx);
    return ok;
}
#else
/* The nearest pixels of a binary PPM as float NCHW. */
static bool read_picture(char **argv, const qn_rt_value *in, const double *pre, qn_error *error)
{
    static unsigned char pixels[3 * 4096 * 4096];
    size_t w = 0, h = 0, top = 0, rows = (size_t)in->dims[2], columns = (size_t)in->dims[3];
    FILE *file = fopen(argv[2], "rb");
    snprintf(error->message, sizeof(error->message), "%s: no PPM for this model", argv[2]);
    const bool ok = in->rank == 4 && file != NULL &&
                    fscanf(file, "P6 %zu %zu %zu", &w, &h, &top) == 3 && top == 255 &&
                    w - 1 < 4096 && h - 1 < 4096 && fgetc(file) != EOF &&
                    fread(pixels, 3 * w, h, file) == h;
    for (size_t i = 0; ok && i < in->count; i++) {
        const size_t c = i / columns / rows % 3, y = i / columns % rows, x = i % columns;
        const double v = pixels[(y * h / rows * w + x * w / columns) * 3 + c];
        values[i] = (float)((v - pre[0]) * pre[1]);
    }
    return file != NULL && fclose(file) == 0 && ok;
}
#endif

static void print_value(const char *what, const qn_rt_value *v)
{
    printf("%s \"%s\" %s %g (q - %d):", what, v->name, v->dtype, (double)v->scale, v->zero_point);
    for (uint32_t i = 0; i < v->rank; i++)
        printf(" %lld%c", (long long)v->dims[i], i + 1 < v->rank ? ',' : '\n');
}
int main(int argc, char **argv)
{
    qn_error error = {QN_OK, "usage: classify MODEL.qnm PICTURE [MEAN SCALE]"};
    qn_rt_model *model = NULL;
    qn_rt_session *session = NULL;
    qn_rt_value in = {.name = ""}, out = {.name = ""};
    const double pre[] = {argc > 4 ? atof(argv[3]) : 0, argc > 4 ? atof(argv[4]) : 1};
    bool ok = argc > 2 && qn_rt_model_load(argv[1], NULL, &model, &error) == QN_OK &&
              qn_rt_session_create(model, NULL, &session, &error) == QN_OK;
    for (size_t i = ok ? qn_rt_n_inputs(model) : 0; i-- > 0 && qn_rt_input(model, i, &in);)
        print_value("input", &in);
    for (size_t i = ok ? qn_rt_n_outputs(model) : 0; i-- > 0 && qn_rt_output(model, i, &out);)
        print_value("output", &out);
    ok = ok && in.count <= sizeof values / sizeof(float) &&
         out.count <= sizeof scores / sizeof(float) && read_picture(argv, &in, pre, &error) &&
         qn_rt_set_input(session, 0, values, in.count, &error) == QN_OK;
    const clock_t start = clock();
    ok = ok && qn_rt_run(session, &error) == QN_OK &&
         qn_rt_get_output(session, 0, scores, out.count, &error) == QN_OK;
    if (!ok)
        return fprintf(stderr, "error: %s\n", error.message), 1;
    printf("%.2f ms\n", (double)(clock() - start) * 1000.0 / CLOCKS_PER_SEC);
    for (size_t place = 0, best = 0; place < 5 && place < out.count; place++, best = 0) {
        for (size_t i = 1; i < out.count; i++)
            best = scores[i] > scores[best] ? i : best;
        printf("class %zu: %g\n", best, (double)scores[best]);
        scores[best] = -1e30f;
    }
    qn_rt_session_destroy(session), qn_rt_model_destroy(model);
}
