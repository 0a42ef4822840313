/* Classifies a picture with a compact model (.qnm) and nothing but the stand-alone runtime.
 *     classify MODEL.qnm PICTURE.ppm [MEAN SCALE]      input = (pixel - MEAN) * SCALE, default 0 1
 * Build: cc classify.c $(pkg-config --cflags --libs quench-rt) */
#include <quench/runtime.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static void print_value(const char *what, const qn_rt_value *v)
{
    printf("%s \"%s\" %s scale %g zero %d:", what, v->name, v->dtype, (double)v->scale,
           (int)v->zero_point);
    for (uint32_t i = 0; i < v->rank; i++)
        printf(" %lld%c", (long long)v->dims[i], i + 1 < v->rank ? ',' : '\n');
}

/* The nearest pixels of a binary PPM as float NCHW; NULL when it is none. */
static float *read_picture(const char *path, const qn_rt_value *in, float mean, float scale)
{
    static unsigned char pixels[3 * 4096 * 4096];
    const size_t rows = (size_t)in->dims[2], columns = (size_t)in->dims[3];
    size_t w = 0, h = 0;
    FILE *file = fopen(path, "rb");
    const bool ok = file != NULL && fscanf(file, "P6 %zu %zu 255", &w, &h) == 2 && w <= 4096 &&
                    h <= 4096 && fgetc(file) != EOF && fread(pixels, 3 * w, h, file) == h && h > 0;
    float *values = ok && in->rank == 4 ? calloc(in->count, sizeof(float)) : NULL;
    for (size_t i = 0; values != NULL && i < in->count; i++) {
        const size_t c = i / columns / rows % 3, y = i / columns % rows, x = i % columns;
        values[i] = (pixels[(y * h / rows * w + x * w / columns) * 3 + c] - mean) * scale;
    }
    if (file != NULL)
        fclose(file);
    return values;
}

int main(int argc, char **argv)
{
    qn_error error = {QN_OK, "usage: classify MODEL.qnm PICTURE.ppm [MEAN SCALE]"};
    qn_rt_model *model = NULL;
    qn_rt_session *session = NULL;
    qn_rt_value in = {.name = ""}, out = {.name = ""};
    if (argc < 3 || qn_rt_model_load(argv[1], NULL, &model, &error) != QN_OK ||
        qn_rt_session_create(model, NULL, &session, &error) != QN_OK)
        return fprintf(stderr, "error: %s\n", error.message), 1;
    for (size_t i = qn_rt_n_inputs(model); i-- > 0 && qn_rt_input(model, i, &in);)
        print_value("input", &in);
    for (size_t i = qn_rt_n_outputs(model); i-- > 0 && qn_rt_output(model, i, &out);)
        print_value("output", &out);
    float *values = read_picture(argv[2], &in, argc > 4 ? strtof(argv[3], NULL) : 0.0f,
                                 argc > 4 ? strtof(argv[4], NULL) : 1.0f);
    float *scores = calloc(out.count + 1, sizeof(float));
    if (values == NULL || scores == NULL)
        return fprintf(stderr, "error: %s: not a picture for this model\n", argv[2]), 1;
    const clock_t start = clock();
    if (qn_rt_set_input(session, 0, values, in.count, &error) != QN_OK ||
        qn_rt_run(session, &error) != QN_OK ||
        qn_rt_get_output(session, 0, scores, out.count, &error) != QN_OK)
        return fprintf(stderr, "error: %s\n", error.message), 1;
    printf("%.2f ms\n", (double)(clock() - start) * 1000.0 / CLOCKS_PER_SEC);
    for (size_t place = 0, best = 0; place < 5 && place < out.count; place++, best = 0) {
        for (size_t i = 1; i < out.count; i++)
            best = scores[i] > scores[best] ? i : best;
        printf("class %zu: %g\n", best, (double)scores[best]);
        scores[best] = -1e30f;
    }
    free(values), free(scores);
    qn_rt_session_destroy(session);
    qn_rt_model_destroy(model);
    return 0;
}
