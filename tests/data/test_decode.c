/* Picture decoders: every format of tests/data/files, cut files, damaged files, bombs. */
#include "cpu_seconds.h"
#include "data/data_fixture.h"

static const char *const pictures[] = {
    "color.jpg",  "progressive.jpg", "gray.jpg",     "cmyk.jpg",   "color.png",   "gray.png",
    "bits1.png",  "palette.png",     "alpha.png",    "gray16.png", "lossy.webp",  "lossless.webp",
    "alpha.webp", "color24.bmp",     "palette8.bmp", "bits1.bmp",  "color32.bmp", "raw.ppm",
    "raw.pgm",    "raw.pbm",         "plain.ppm",    "plain.pgm",  "plain.pbm",   "raw16.ppm"};
#define N_PICTURES (sizeof(pictures) / sizeof(pictures[0]))

/* The bytes lie in a heap block of their exact size, so that a sanitizer sees any overrun. */
static uint8_t *load(data_fixture *f, const char *name, size_t *size_bytes)
{
    char path[512];
    qn_file_view view;
    snprintf(path, sizeof(path), FILES "%s", name);
    assert_int_equal(qn__file_open(f->ctx, path, &view, &f->error), QN_OK);
    uint8_t *copy = malloc(view.size_bytes);
    memcpy(copy, view.data, view.size_bytes);
    *size_bytes = view.size_bytes;
    qn__file_close(f->ctx, &view);
    return copy;
}

static qn_status decode(data_fixture *f, const uint8_t *bytes, size_t size_bytes, uint32_t channels,
                        qn_image *image)
{
    uint8_t *exact = malloc(size_bytes > 0 ? size_bytes : 1);
    if (size_bytes > 0)
        memcpy(exact, bytes, size_bytes);
    const qn_status status =
        qn__image_decode(f->ctx, exact, size_bytes, "picture", channels, image, &f->error);
    free(exact);
    return status;
}

static void expected_rgb(uint32_t x, uint32_t y, uint8_t rgb[3])
{
    rgb[0] = (uint8_t)(x * 23 + y * 7);
    rgb[1] = (uint8_t)(x * 5 + y * 31);
    rgb[2] = (uint8_t)(x * y * 3);
}

static void every_format_decodes(void **state)
{
    data_fixture *f = *state;
    for (size_t i = 0; i < N_PICTURES; i++)
        for (uint32_t channels = 1; channels <= 3; channels += 2) {
            size_t size;
            uint8_t *bytes = load(f, pictures[i], &size);
            qn_image image;
            if (decode(f, bytes, size, channels, &image) != QN_OK)
                fail_msg("%s: %s", pictures[i], f->error.message);
            assert_int_equal(image.width, 13);
            assert_int_equal(image.height, 9);
            assert_int_equal(image.channels, channels);
            qn__image_free(&image);
            free(bytes);
        }
}

static void lossless_formats_keep_every_value(void **state)
{
    data_fixture *f = *state;
    static const char *const names[] = {"color.png",  "alpha.png",   "lossless.webp",
                                        "alpha.webp", "color24.bmp", "color32.bmp",
                                        "raw.ppm",    "plain.ppm",   "raw16.ppm"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        size_t size;
        uint8_t *bytes = load(f, names[i], &size);
        qn_image image;
        assert_int_equal(decode(f, bytes, size, 3, &image), QN_OK);
        for (uint32_t y = 0; y < 9; y++)
            for (uint32_t x = 0; x < 13; x++) {
                uint8_t rgb[3];
                expected_rgb(x, y, rgb);
                if (memcmp(rgb, image.pixels + 3 * (13 * y + x), 3) != 0)
                    fail_msg("%s: pixel %u, %u differs", names[i], x, y);
            }
        qn__image_free(&image);
        free(bytes);
    }
}

static void gray_is_pillows_luma(void **state)
{
    data_fixture *f = *state;
    static const uint8_t ppm[] = "P6 2 1 255\n\xff\x00\x00\x0a\xc8\x64";
    qn_image image;
    assert_int_equal(decode(f, ppm, sizeof(ppm) - 1, 1, &image), QN_OK);
    assert_int_equal(image.pixels[0], (255 * 19595 + 0x8000) >> 16);
    assert_int_equal(image.pixels[1], (10 * 19595 + 200 * 38470 + 100 * 7471 + 0x8000) >> 16);
    qn__image_free(&image);
}

static void every_cut_is_refused(void **state)
{
    data_fixture *f = *state;
    for (size_t i = 0; i < N_PICTURES; i++) {
        size_t size;
        uint8_t *bytes = load(f, pictures[i], &size);
        /* Cutting the last number of a plain file leaves a shorter number. */
        const size_t end =
            strstr(pictures[i], "plain") != NULL && strstr(pictures[i], "pbm") == NULL ? size - 3
                                                                                       : size;
        for (size_t n = 0; n < end; n++) {
            qn_image image;
            if (decode(f, bytes, n, 3, &image) == QN_OK)
                fail_msg("%s accepted with %zu of %zu bytes", pictures[i], n, size);
            assert_message_has(f, "picture");
        }
        free(bytes);
    }
}

static void damaged_bytes_do_no_harm(void **state)
{
    data_fixture *f = *state;
    static const uint8_t values[] = {0x00, 0x01, 0x7f, 0x80, 0xff};
    for (size_t i = 0; i < N_PICTURES; i++) {
        size_t size;
        uint8_t *bytes = load(f, pictures[i], &size);
        for (size_t at = 0; at < size; at++) {
            const uint8_t old = bytes[at];
            for (size_t k = 0; k < sizeof(values); k++) {
                qn_image image;
                bytes[at] = values[k];
                if (decode(f, bytes, size, 3, &image) == QN_OK) {
                    assert_true((uint64_t)image.width * image.height <=
                                f->ctx->limits.image_pixels);
                    qn__image_free(&image);
                }
            }
            bytes[at] = old;
        }
        free(bytes);
    }
}

static void check_bomb(data_fixture *f, const uint8_t *bytes, size_t size, qn_status wanted)
{
    qn_image image;
    const double start = cpu_seconds();
    assert_int_equal(decode(f, bytes, size, 3, &image), wanted);
    assert_true(cpu_seconds() - start < 2.0); /* no pixel is touched */
}

static void put32(uint8_t *p, uint32_t v, bool big_endian)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> (big_endian ? 24 - 8 * i : 8 * i));
}

static uint32_t crc32_of(const uint8_t *p, size_t n)
{
    uint32_t crc = 0xffffffffu;
    for (size_t i = 0; i < n; i++) {
        crc ^= p[i];
        for (int k = 0; k < 8; k++)
            crc = crc >> 1 ^ (0xedb88320u & (0u - (crc & 1)));
    }
    return ~crc;
}

static void png_bombs_meet_a_limit(void **state)
{
    data_fixture *f = *state;
    size_t size;
    uint8_t *bytes = load(f, "color.png", &size);
    put32(bytes + 16, 65535, true);
    put32(bytes + 20, 65535, true);
    put32(bytes + 29, crc32_of(bytes + 12, 17), true);
    check_bomb(f, bytes, size, QN_LIMIT);
    put32(bytes + 16, 9000, true); /* below the limit, but 240 MB cannot come out of 130 bytes */
    put32(bytes + 20, 9000, true);
    put32(bytes + 29, crc32_of(bytes + 12, 17), true);
    check_bomb(f, bytes, size, QN_CORRUPT);
    free(bytes);
}

static void png_text_bomb_meets_a_limit(void **state)
{
    data_fixture *f = *state;
    size_t size;
    uint8_t *png = load(f, "color.png", &size);
    const uint32_t text = 20u << 20;
    uint8_t *bytes = calloc(1, size + text + 12);
    memcpy(bytes, png, 33); /* signature and IHDR */
    put32(bytes + 33, text, true);
    memcpy(bytes + 37, "tEXtkey", 8);
    memset(bytes + 45, 'x', text - 4);
    put32(bytes + 41 + text, crc32_of(bytes + 37, text + 4), true);
    memcpy(bytes + 45 + text, png + 33, size - 33);
    check_bomb(f, bytes, size + text + 12, QN_LIMIT);
    free(bytes);
    free(png);
}

static void png_chunk_flood_meets_a_limit(void **state)
{
    data_fixture *f = *state;
    size_t size;
    uint8_t *png = load(f, "color.png", &size);
    const size_t copies = 100000, length = 12 + 4;
    uint8_t chunk[16] = {0, 0, 0, 4, 't', 'E', 'X', 't', 'k', 0, 'x', 'y'};
    put32(chunk + 12, crc32_of(chunk + 4, 8), true);
    uint8_t *bytes = malloc(size + copies * length);
    memcpy(bytes, png, 33);
    for (size_t i = 0; i < copies; i++)
        memcpy(bytes + 33 + i * length, chunk, length);
    memcpy(bytes + 33 + copies * length, png + 33, size - 33);
    check_bomb(f, bytes, size + copies * length, QN_LIMIT);
    free(bytes);
    free(png);
}

/* Offset of the frame header's height in a JPEG. */
static size_t jpeg_height_at(const uint8_t *bytes, size_t size)
{
    for (size_t i = 0; i + 9 < size; i++)
        if (bytes[i] == 0xff && (bytes[i + 1] == 0xc0 || bytes[i + 1] == 0xc2))
            return i + 5;
    fail_msg("no frame header");
    return 0;
}

static void jpeg_bombs_meet_a_limit(void **state)
{
    data_fixture *f = *state;
    size_t size;
    uint8_t *bytes = load(f, "progressive.jpg", &size);
    uint8_t *height = bytes + jpeg_height_at(bytes, size);
    memset(height, 0xff, 4);
    check_bomb(f, bytes, size, QN_LIMIT);
    put32(height, 9000u << 16 | 9000u, true);
    check_bomb(f, bytes, size, QN_CORRUPT);
    free(bytes);
}

/* A whole, valid scan, repeated. */
static void jpeg_scan_flood_meets_a_limit(void **state)
{
    data_fixture *f = *state;
    size_t size, scan = 2, end;
    uint8_t *bytes = load(f, "progressive.jpg", &size);
    while (bytes[scan] != 0xff || bytes[scan + 1] != 0xda)
        scan++;
    for (end = scan + 2; bytes[end] != 0xff || bytes[end + 1] == 0;)
        end++;
    const size_t length = end - scan, copies = 500;
    uint8_t *flood = malloc(size + copies * length);
    memcpy(flood, bytes, end);
    for (size_t i = 0; i < copies; i++)
        memcpy(flood + end + i * length, bytes + scan, length);
    memcpy(flood + end + copies * length, bytes + end, size - end);
    check_bomb(f, flood, size + copies * length, QN_LIMIT);
    assert_message_has(f, "scans");
    free(flood);
    free(bytes);
}

static void jpeg_empty_scans_are_refused(void **state)
{
    data_fixture *f = *state;
    size_t size, scan = 0;
    uint8_t *bytes = load(f, "progressive.jpg", &size);
    for (size_t i = 0; i + 1 < size; i++)
        if (bytes[i] == 0xff && bytes[i + 1] == 0xda)
            scan = i;
    put32(bytes + jpeg_height_at(bytes, size), 3000u << 16 | 3000u, true);
    const size_t header = 2 + (bytes[scan + 2] << 8 | bytes[scan + 3]), copies = 90;
    uint8_t *flood = malloc(size + copies * header);
    memcpy(flood, bytes, size - 2);
    for (size_t i = 0; i < copies; i++)
        memcpy(flood + size - 2 + i * header, bytes + scan, header);
    memcpy(flood + size - 2 + copies * header, "\xff\xd9", 2);
    check_bomb(f, flood, size + copies * header, QN_CORRUPT);
    assert_message_has(f, "scans without data");
    free(flood);
    free(bytes);
}

static void other_bombs_meet_a_limit(void **state)
{
    data_fixture *f = *state;
    static const char ppm[] = "P6 65535 65535 255\n0123456789";
    static const char small_ppm[] = "P3 9000 9000 255\n1 2 3";
    check_bomb(f, (const uint8_t *)ppm, sizeof(ppm) - 1, QN_LIMIT);
    check_bomb(f, (const uint8_t *)small_ppm, sizeof(small_ppm) - 1, QN_CORRUPT);
    size_t size;
    uint8_t *bytes = load(f, "color24.bmp", &size);
    put32(bytes + 18, INT32_MAX, false);
    put32(bytes + 22, 0x80000000u, false); /* a height of -2^31 */
    check_bomb(f, bytes, size, QN_LIMIT);
    put32(bytes + 18, 9000, false);
    put32(bytes + 22, 9000, false);
    check_bomb(f, bytes, size, QN_CORRUPT);
    free(bytes);
}

static void refusals_name_the_feature(void **state)
{
    data_fixture *f = *state;
    qn_image image;
    size_t size;
    uint8_t *bytes = load(f, "palette8.bmp", &size);
    bytes[30] = 1;
    assert_int_equal(decode(f, bytes, size, 3, &image), QN_UNSUPPORTED);
    assert_message_has(f, "RLE8");
    free(bytes);
    bytes = load(f, "color.jpg", &size);
    bytes[jpeg_height_at(bytes, size) - 1] = 12;
    assert_int_equal(decode(f, bytes, size, 3, &image), QN_UNSUPPORTED);
    free(bytes);
    assert_int_equal(decode(f, (const uint8_t *)"P7\nWIDTH", 8, 3, &image), QN_UNSUPPORTED);
    assert_message_has(f, "PAM");
    assert_int_equal(decode(f, (const uint8_t *)"GIF89a..", 8, 3, &image), QN_CORRUPT);
    assert_int_equal(decode(f, NULL, 0, 3, &image), QN_CORRUPT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_format_decodes),
        cmocka_unit_test(lossless_formats_keep_every_value),
        cmocka_unit_test(gray_is_pillows_luma),
        cmocka_unit_test(every_cut_is_refused),
        cmocka_unit_test(damaged_bytes_do_no_harm),
        cmocka_unit_test(png_bombs_meet_a_limit),
        cmocka_unit_test(png_text_bomb_meets_a_limit),
        cmocka_unit_test(png_chunk_flood_meets_a_limit),
        cmocka_unit_test(jpeg_bombs_meet_a_limit),
        cmocka_unit_test(jpeg_scan_flood_meets_a_limit),
        cmocka_unit_test(jpeg_empty_scans_are_refused),
        cmocka_unit_test(other_bombs_meet_a_limit),
        cmocka_unit_test(refusals_name_the_feature),
    };
    return cmocka_run_group_tests(tests, fixture_setup, fixture_teardown);
}
