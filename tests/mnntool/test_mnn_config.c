/* The configuration's defaults, meaning and numbers; the scale file's text. */
#include "data/data_fixture.h"
#include "mnntool/tool.h"

static qn_status read_config(data_fixture *f, const char *text, uint32_t exact, qn_mnn_config *out)
{
    snprintf(f->path, sizeof(f->path), "%s/config.json", f->folder);
    assert_int_equal(qn__file_write_all(f->ctx, f->path, text, strlen(text), &f->error), QN_OK);
    return qn__mnn_config_read(f->ctx, f->path, exact, out, &f->error);
}

static void config_of(data_fixture *f, const char *text, uint32_t exact, qn_mnn_config *out)
{
    if (read_config(f, text, exact, out) != QN_OK)
        fail_msg("%s", f->error.message);
}

static void defaults_are_those_of_the_manual(void **state)
{
    data_fixture *f = *state;
    qn_mnn_config c;
    config_of(f, "{\"path\": \"p\"}", 0, &c);
    assert_string_equal(c.format, "BGR");
    assert_int_equal(c.channels, 3);
    for (size_t i = 0; i < 4; i++) {
        assert_true(c.mean[i] == 0.0f);
        assert_true(c.normal[i] == 1.0f);
    }
    assert_true(c.center_crop_h == 1.0 && c.center_crop_w == 1.0);
    assert_int_equal(c.width, 0);
    assert_int_equal(c.used_number, 0);
    assert_int_equal(c.feature, QN_MNN_KL);
    assert_int_equal(c.weight, QN_MNN_MAX_ABS);
    assert_int_equal(c.feature_clamp, 127);
    assert_int_equal(c.weight_clamp, 127);
    assert_int_equal(c.bits, 8);
    assert_int_equal(c.batch, 0);
    assert_true(c.winograd);
    assert_false(c.debug || c.sequence || c.has_weight_clamp);
    assert_int_equal(c.exact, 0);
    assert_int_equal(f->warnings, 0);
    qn__mnn_config_free(&c);
}

static void every_key_is_taken(void **state)
{
    data_fixture *f = *state;
    qn_mnn_config c;
    config_of(f,
              "{\"format\": \"RGBA\", \"mean\": [1, 2.5], \"normal\": [0.5, 2, 3, 4],"
              " \"center_crop_h\": 0.5, \"center_crop_w\": 0.25, \"width\": 32.0, \"height\": 24,"
              " \"path\": \"p/\", \"used_image_num\": 3, \"used_sample_num\": 5,"
              " \"feature_quantize_method\": \"EMA\", \"weight_quantize_method\": \"ADMM\","
              " \"feature_clamp_value\": 120.9, \"weight_clamp_value\": 100, \"batch_size\": 7,"
              " \"quant_bits\": 8, \"winogradOpt\": false, \"skip_quant_op_names\": [\"a\", \"b\"],"
              " \"input_type\": \"sequence\", \"debug\": true, \"model\": \"m\","
              " \"inputs\": [{\"name\": \"x\", \"shape\": [1, 2], \"value\": 1.5}]}",
              0, &c);
    assert_string_equal(c.format, "RGBA");
    assert_int_equal(c.channels, 4);
    assert_true(c.mean[0] == 1.0f && c.mean[1] == 2.5f && c.mean[2] == 0.0f);
    assert_true(c.normal[3] == 4.0f);
    assert_true(c.center_crop_h == 0.5 && c.center_crop_w == 0.25);
    assert_int_equal(c.width, 32);
    assert_int_equal(c.height, 24);
    assert_int_equal(c.used_number, 5);
    assert_int_equal(c.feature, QN_MNN_EMA);
    assert_int_equal(c.weight, QN_MNN_WEIGHT_ADMM);
    assert_int_equal(c.feature_clamp, 120);
    assert_int_equal(c.weight_clamp, 100);
    assert_int_equal(c.batch, 7);
    assert_true(!c.winograd && c.has_winograd && c.sequence && c.debug);
    assert_int_equal(c.n_skips, 2);
    assert_string_equal(c.skips[1], "b");
    assert_int_equal(c.n_inputs, 1);
    assert_int_equal(c.inputs[0].rank, 2);
    assert_int_equal(c.inputs[0].dims[1], 2);
    assert_true(c.inputs[0].value == 1.5f);
    assert_int_equal(f->warnings, 0);
    qn__mnn_config_free(&c);
}

/* The clamp of weights that few bits allow, as the original with "bits" and without. */
static void few_bits_limit_the_weights(void **state)
{
    static const struct {
        const char *text;
        uint32_t exact;
        int32_t clamp;
    } rows[] = {
        {"{\"path\": \"p\", \"quant_bits\": 4}", 0, 7},
        {"{\"path\": \"p\", \"quant_bits\": 4}", QN_MNN_EXACT_BITS, 127},
        {"{\"path\": \"p\", \"quant_bits\": 4, \"weight_clamp_value\": 127}", 0, 7},
        {"{\"path\": \"p\", \"quant_bits\": 4, \"weight_clamp_value\": 5}", 0, 5},
        {"{\"path\": \"p\", \"quant_bits\": 4, \"weight_clamp_value\": 5}", QN_MNN_EXACT_BITS, 7},
        {"{\"path\": \"p\", \"quant_bits\": 2}", 0, 1},
        {"{\"path\": \"p\", \"weight_clamp_value\": 90}", QN_MNN_EXACT_ALL, 90},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        qn_mnn_config c;
        config_of(*state, rows[i].text, rows[i].exact, &c);
        assert_int_equal(c.weight_clamp, rows[i].clamp);
        qn__mnn_config_free(&c);
    }
}

static void exact_choices_add_up(void **state)
{
    data_fixture *f = *state;
    qn_mnn_config c;
    config_of(f, "{\"path\": \"p\", \"exact_mnn\": \"kl,resize\"}", QN_MNN_EXACT_BITS, &c);
    assert_int_equal(c.exact, QN_MNN_EXACT_KL | QN_MNN_EXACT_RESIZE | QN_MNN_EXACT_BITS);
    qn__mnn_config_free(&c);
    config_of(f, "{\"path\": \"p\", \"exact_mnn\": true}", 0, &c);
    assert_int_equal(c.exact, QN_MNN_EXACT_ALL);
    qn__mnn_config_free(&c);
    uint32_t exact = 0;
    assert_int_equal(qn__mnn_exact_parse("kl,", "here", &exact, &f->error), QN_INVALID_ARGUMENT);
    assert_int_equal(qn__mnn_exact_parse("", "here", &exact, &f->error), QN_INVALID_ARGUMENT);
    assert_non_null(strstr(f->error.message, "here: "));
}

static void unknown_keys_and_formats_are_warned_about(void **state)
{
    data_fixture *f = *state;
    qn_mnn_config c;
    config_of(f, "{\"path\": \"p\", \"format\": \"YUV\", \"colour\": 1}", 0, &c);
    assert_int_equal(f->warnings, 2);
    assert_string_equal(c.format, "BGR");
    qn__mnn_config_free(&c);
}

static void broken_json_names_line_and_column(void **state)
{
    data_fixture *f = *state;
    qn_mnn_config c;
    assert_int_equal(read_config(f, "{\n \"path\": oops}", 0, &c), QN_INVALID_ARGUMENT);
    assert_non_null(strstr(f->error.message, "line 2, column "));
}

/* --- the scale file ----------------------------------------------------------------------------*/

static qn_fb_object *add_op(qn_fb_document *doc, const char *name, int64_t type,
                            const int32_t *inputs, size_t n_inputs, int32_t output)
{
    qn_fb_object *op = qn__fb_new(doc, QN_MNN_REC_Op);
    assert_non_null(op);
    assert_true(qn__fb_set_string(doc, op, QN_MNN_Op_name, name));
    qn__fb_set_int(op, QN_MNN_Op_type, type);
    if (n_inputs > 0)
        assert_true(qn__fb_set_vector(doc, op, QN_MNN_Op_inputIndexes, inputs, n_inputs));
    assert_true(qn__fb_set_vector(doc, op, QN_MNN_Op_outputIndexes, &output, 1));
    return op;
}

/* Numbers as the original printed them: the 17th digit is not always the nearest. */
static void the_scale_file_has_the_original_form(void **state)
{
    static const char expected[] =
        "[\n    {\n        \"name\": \"in\",\n        \"outputs\": [\n            {\n"
        "                \"tensorIndex\": 0,\n                \"scales\": [\n"
        "                    0.0\n                ],\n                \"zeropoint\": [\n"
        "                    0.0\n                ]\n            }\n        ]\n    },\n"
        "    {\n        \"name\": \"a \\\"b\\\"\\u0001\",\n        \"inputs\": [],\n"
        "        \"outputs\": [\n            {\n                \"tensorIndex\": 1,\n"
        "                \"scales\": [\n                    0.0070144664496183399\n"
        "                ],\n                \"zeropoint\": [\n                    -128.0\n"
        "                ]\n            }\n        ]\n    },\n"
        "    {\n        \"name\": \"c\",\n        \"inputs\": [\n            {\n"
        "                \"tensorIndex\": 1,\n                \"scales\": [\n"
        "                    0.0070144664496183399\n                ],\n"
        "                \"zeropoint\": [\n                    -128.0\n                ]\n"
        "            }\n        ],\n        \"outputs\": [\n            {\n"
        "                \"tensorIndex\": 2,\n                \"scales\": [\n"
        "                    2.0073835849761965\n                ],\n"
        "                \"zeropoint\": [\n                    0.0\n                ]\n"
        "            }\n        ]\n    }\n]\n";
    data_fixture *f = *state;
    qn_mnn_source source = {.n_tensors = 3};
    assert_int_equal(qn__fb_create(f->ctx, &qn__mnn_schema, &source.doc, &f->error), QN_OK);
    static const int32_t zero = 0, one_zero[] = {1, 0};
    qn_fb_object *ops[] = {
        add_op(&source.doc, "in", QN_MNN_OpType_Input, NULL, 0, 0),
        add_op(&source.doc, "a \"b\"\x01", QN_MNN_OpType_Convolution, &zero, 1, 1),
        add_op(&source.doc, "left out", QN_MNN_OpType_Raster, &zero, 1, 1),
        add_op(&source.doc, "c", QN_MNN_OpType_Eltwise, one_zero, 2, 2)};
    source.ops = ops;
    source.n_ops = 4;
    qn_mnn_tensor_quant items[] = {
        {0}, {1, 0.0070144664496183399f, -128, -128, 127}, {2, 2.0073835849761965f, 0, -127, 127}};
    bool tracked[3] = {true, true, true};
    const qn_mnn_scales scales = {f->ctx, 3, items, tracked};
    char *text = NULL;
    assert_int_equal(qn__mnn_scales_json(&source, &scales, &text, &f->error), QN_OK);
    assert_string_equal(text, expected);
    qn__free(f->ctx, text);
    qn__fb_free(&source.doc);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(defaults_are_those_of_the_manual, fixture_setup,
                                        fixture_teardown),
        cmocka_unit_test_setup_teardown(every_key_is_taken, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(few_bits_limit_the_weights, fixture_setup,
                                        fixture_teardown),
        cmocka_unit_test_setup_teardown(exact_choices_add_up, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(unknown_keys_and_formats_are_warned_about, fixture_setup,
                                        fixture_teardown),
        cmocka_unit_test_setup_teardown(broken_json_names_line_and_column, fixture_setup,
                                        fixture_teardown),
        cmocka_unit_test_setup_teardown(the_scale_file_has_the_original_form, fixture_setup,
                                        fixture_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
