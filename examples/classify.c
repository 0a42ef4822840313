/* Classifies a picture with a compact model (.qnm) and nothing but the stand-alone runtime.
 *     classify MODEL.qnm PICTURE.ppm [MEAN SCALE]      input = (pixel - MEAN) * SCALE, default 0 1
 * Build: cc classify.c $(pkg-config --cflags --libs quench-rt) */
#include <quench/runtime.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static void print_value(const char *what, const qn_rt_value *v)
{
    printf("%s \"%s\" %s [", what, v->name, v->dtype);
    for (uint32_t i = 0; i < v->rank; i++)
        printf("%s%lld", i > 0 ? " " : "", (long long)v->dims[i]);
    printf("] scale %g zero point %d\n", (double)v->scale, (int)v->zero_point);
}

/* Nearest pixels of a binary PPM as float NCHW; false when it is none. */
static bool read_picture(const char *path, const qn_rt_value *in, float mean, float scale,
                         float *out)
{
    unsigned w = 0, h = 0;
    FILE *file = fopen(path, "rb");
    bool ok = file != NULL && fscanf(file, "P6 %u %u 255", &w, &h) == 2 && fgetc(file) != EOF &&
              w > 0 && h > 0 && w < 16384 && h < 16384;
    unsigned char *pixels = ok ? malloc((size_t)w * h * 3) : NULL;
    ok = pixels != NULL && fread(pixels, 3, (size_t)w * h, file) == (size_t)w * h;
    const size_t rows = (size_t)in->dims[2], columns = (size_t)in->dims[3];
    for (size_t i = 0; ok && i < in->count; i++) {
        const size_t c = i / (rows * columns), y = i / columns % rows, x = i % columns;
        out[i] = (pixels[(y * h / rows * w + x * w / columns) * 3 + c % 3] - mean) * scale;
    }
    free(pixels);
    if (file != NULL)
        fclose(file);
    return ok;
}

int main(int argc, char **argv)
{
    qn_error error = {QN_OK, ""};
    qn_rt_model *model = NULL;
    qn_rt_session *session = NULL;
    qn_rt_value in, out;
    if (argc != 3 && argc != 5)
        return fprintf(stderr, "usage: %s MODEL.qnm PICTURE.ppm [MEAN SCALE]\n", argv[0]), 2;
    if (qn_rt_model_load(argv[1], NULL, &model, &error) != QN_OK ||
        qn_rt_session_create(model, NULL, &session, &error) != QN_OK)
        return fprintf(stderr, "error: %s\n", error.message), 1;
    for (size_t i = 0; qn_rt_input(model, i, &in); i++)
        print_value("input", &in);
    for (size_t i = 0; qn_rt_output(model, i, &out); i++)
        print_value("output", &out);
    if (!qn_rt_input(model, 0, &in) || in.rank != 4 || !qn_rt_output(model, 0, &out))
        return fprintf(stderr, "error: %s does not read a picture\n", argv[1]), 1;
    float *values = malloc((in.count + out.count + 1) * sizeof(float)), *scores = values + in.count;
    if (values == NULL || !read_picture(argv[2], &in, argc == 5 ? strtof(argv[3], NULL) : 0.0f,
                                        argc == 5 ? strtof(argv[4], NULL) : 1.0f, values))
        return fprintf(stderr, "error: %s: not a binary PPM picture\n", argv[2]), 1;
    const clock_t start = clock();
    if (qn_rt_set_input(session, 0, values, in.count, &error) != QN_OK ||
        qn_rt_run(session, &error) != QN_OK ||
        qn_rt_get_output(session, 0, scores, out.count, &error) != QN_OK)
        return fprintf(stderr, "error: %s\n", error.message), 1;
    printf("%.2f ms\n", (double)(clock() - start) * 1000.0 / CLOCKS_PER_SEC);
    for (size_t place = 0; place < 5 && place < out.count; place++) {
        size_t best = 0;
        for (size_t i = 1; i < out.count; i++)
            best = scores[i] > scores[best] ? i : best;
        printf("class %zu: %g\n", best, (double)scores[best]);
        scores[best] = -1e30f;
    }
    free(values);
    qn_rt_session_destroy(session);
    qn_rt_model_destroy(model);
    return 0;
}
