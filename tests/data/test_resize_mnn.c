/* MNN's resampling against values of MNN 3.6.1's ImageProcess, and what rounding changes. */
#include <math.h>

#include "data/data_fixture.h"
#include "data/image.h"

enum { W = 9, H = 7 };

static void make_picture(data_fixture *f, uint32_t channels, qn_image *out)
{
    assert_int_equal(qn__image_alloc(f->ctx, W, H, channels, out, &f->error), QN_OK);
    for (uint32_t y = 0; y < H; y++)
        for (uint32_t x = 0; x < W; x++) {
            const uint8_t rgba[4] = {(uint8_t)(x * 37 + y * 11), (uint8_t)(x * 5 + y * 59),
                                     (uint8_t)(x * y * 13), (uint8_t)(255 - x * 9 - y)};
            memcpy(out->pixels + (y * W + x) * channels, rgba, channels);
        }
}

static void resize(data_fixture *f, uint32_t channels, const qn_mnn_resize *r, qn_image *out)
{
    qn_image picture;
    make_picture(f, channels, &picture);
    assert_int_equal(qn__image_resize_mnn(&picture, r, out, &f->error), QN_OK);
    qn__image_free(&picture);
}

static void truncated_values_are_those_of_mnn(void **state)
{
    static const uint8_t full[] = {
        0,   0,   0,   255, 74,  10,  0,   237, 148, 20,  0,   219, 222, 30,  0,   201,
        40,  40,  0,   183, 22,  118, 0,   253, 96,  128, 52,  235, 170, 138, 104, 217,
        244, 148, 156, 199, 62,  158, 208, 181, 44,  236, 0,   251, 118, 246, 104, 233,
        192, 0,   208, 215, 10,  10,  56,  197, 84,  20,  160, 179, 66,  98,  0,   249,
        140, 108, 156, 231, 214, 118, 56,  213, 32,  128, 212, 195, 106, 138, 112, 177};
    static const uint8_t crop[] = {85,  99,  114, 129, 144, 159, 173, 188, 203, 218, 232,
                                   107, 121, 136, 151, 166, 181, 195, 210, 225, 240, 254,
                                   129, 143, 158, 173, 188, 203, 217, 232, 196, 108, 21};
    qn_image image;
    resize(*state, 4, &(qn_mnn_resize){0, 0, W, H, 5, 4, true}, &image);
    assert_memory_equal(image.pixels, full, sizeof(full));
    qn__image_free(&image);
    resize(*state, 4, &(qn_mnn_resize){2, 1, 5, 5, 11, 3, true}, &image);
    for (size_t i = 0; i < sizeof(crop); i++)
        assert_int_equal(image.pixels[4 * i], crop[i]);
    qn__image_free(&image);
}

static void rounding_is_at_most_one_level_above_truncation(void **state)
{
    qn_image low, near;
    size_t higher = 0;
    resize(*state, 3, &(qn_mnn_resize){2, 1, 5, 5, 11, 3, true}, &low);
    resize(*state, 3, &(qn_mnn_resize){2, 1, 5, 5, 11, 3, false}, &near);
    for (size_t i = 0; i < 3 * 11 * 3; i++) {
        assert_in_range(near.pixels[i] - low.pixels[i], 0, 1);
        higher += near.pixels[i] != low.pixels[i];
    }
    assert_in_range(higher, 20, 80);
    qn__image_free(&low);
    qn__image_free(&near);
}

static void gray_is_in_64ths(void **state)
{
    static const uint8_t gray[] = {0,   27,  55, 83, 35, 76, 110, 143, 177, 134,
                                   153, 192, 79, 15, 54, 77, 122, 139, 108, 125};
    qn_image image;
    resize(*state, 3, &(qn_mnn_resize){0, 0, W, H, 5, 4, true}, &image);
    qn__image_gray_mnn(&image);
    assert_int_equal(image.channels, 1);
    assert_memory_equal(image.pixels, gray, sizeof(gray));
    qn__image_free(&image);
}

static void one_pixel_and_one_column_are_possible(void **state)
{
    qn_image image;
    resize(*state, 3, &(qn_mnn_resize){3, 2, 5, 4, 1, 1, true}, &image);
    assert_int_equal(image.pixels[0], 3 * 37 + 2 * 11);
    qn__image_free(&image);
    resize(*state, 3, &(qn_mnn_resize){4, 0, 1, H, 3, H, true}, &image);
    for (size_t y = 0; y < H; y++)
        for (size_t x = 0; x < 3; x++)
            assert_int_equal(image.pixels[(y * 3 + x) * 3], (uint8_t)(4 * 37 + y * 11));
    qn__image_free(&image);
}

static void a_crop_outside_is_refused(void **state)
{
    data_fixture *f = *state;
    qn_image picture, image;
    make_picture(f, 3, &picture);
    static const qn_mnn_resize bad[] = {
        {0, 0, 0, 1, 4, 4, true}, {1, 0, W, H, 4, 4, true}, {0, 7, 1, 1, 4, 4, true}};
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(qn__image_resize_mnn(&picture, &bad[i], &image, &f->error),
                         QN_INVALID_ARGUMENT);
    qn__image_free(&picture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(truncated_values_are_those_of_mnn, fixture_setup,
                                        fixture_teardown),
        cmocka_unit_test_setup_teardown(rounding_is_at_most_one_level_above_truncation,
                                        fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(gray_is_in_64ths, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(one_pixel_and_one_column_are_possible, fixture_setup,
                                        fixture_teardown),
        cmocka_unit_test_setup_teardown(a_crop_outside_is_refused, fixture_setup, fixture_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
