/* Quantizes MODEL with the pictures of a folder, the library's way of
 *     quench quantize MODEL -o OUT --images DIR --mean 127.5 --normal 0.00784313725
 * Build: cc quantize.c $(pkg-config --cflags --libs quench) */
#include <quench/quantize.h>
#include <stdio.h>

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: %s MODEL OUT PICTURES\n", argv[0]);
        return 2;
    }
    qn_error error = {QN_OK, ""};
    qn_context *ctx = NULL;
    qn_model *model = NULL, *quantized = NULL;
    qn_dataset *dataset = NULL;
    qn_report *report = NULL;
    qn_dataset_options pictures;
    qn_dataset_options_init(&pictures);
    pictures.images_dir = argv[3];
    pictures.preprocess.mean[0] = 127.5f;
    pictures.preprocess.normal[0] = 0.00784313725f;
    pictures.preprocess.n_mean = pictures.preprocess.n_normal = 1;

    if (qn_context_create(NULL, &ctx, &error) == QN_OK &&
        qn_model_load(ctx, argv[1], &model, &error) == QN_OK &&
        qn_dataset_create(ctx, model, &pictures, &dataset, &error) == QN_OK &&
        qn_quantize(model, dataset, NULL, &quantized, &report, &error) == QN_OK &&
        qn_model_save(quantized, argv[2], QN_SAVE_QDQ, NULL, &error) == QN_OK) {
        qn_report_node node;
        for (size_t i = 0; qn_report_node_at(report, i, &node); i++)
            printf("%-5s %-20s %s\n", node.quantized ? "int8" : "float", node.op, node.name);
    }
    if (error.status != QN_OK)
        fprintf(stderr, "error: %s\n", error.message);
    qn_report_destroy(report);
    qn_dataset_destroy(dataset);
    qn_model_destroy(quantized);
    qn_model_destroy(model);
    qn_context_destroy(ctx);
    return error.status != QN_OK;
}
