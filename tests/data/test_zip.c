/* Arrays in zip archives, whole and damaged: every truncation and every byte changed is refused or gives
 * the same array, and never anything else. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include <stdlib.h>
#include <unistd.h>
#include <zlib.h>

#include "data/tensor_file.h"

enum { VALUES = 300, MAX_FILE = 8192 };

typedef struct archive {
    uint8_t bytes[MAX_FILE];
    size_t size;
} archive;

typedef struct fixture {
    qn_context *ctx;
    char path[64];
    float values[VALUES];
    archive stored, deflated;
} fixture;

static void put(archive *a, const void *data, size_t size)
{
    assert_true(a->size + size <= MAX_FILE);
    memcpy(a->bytes + a->size, data, size);
    a->size += size;
}

static void put_number(archive *a, uint32_t value, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        const uint8_t byte = (uint8_t)(value >> (8 * i));
        put(a, &byte, 1);
    }
}

static size_t npy_of(const float *values, uint8_t *out)
{
    char header[118];
    memset(header, ' ', sizeof(header));
    const int n = snprintf(header, sizeof(header),
                           "{'descr': '<f4', 'fortran_order': False, 'shape': (%d, 100), }",
                           VALUES / 100);
    header[n] = ' ';
    header[sizeof(header) - 1] = '\n';
    memcpy(out, "\x93NUMPY\x01\x00\x76\x00", 10);
    memcpy(out + 10, header, sizeof(header));
    memcpy(out + 128, values, VALUES * sizeof(float));
    return 128 + VALUES * sizeof(float);
}

/* Method, checksum, sizes: what the local header and the directory both say. */
static void put_facts(archive *a, unsigned method, uint32_t crc, size_t packed, size_t size)
{
    put_number(a, method, 2);
    put_number(a, 0, 4);
    put_number(a, crc, 4);
    put_number(a, (uint32_t)packed, 4);
    put_number(a, (uint32_t)size, 4);
    put_number(a, 5, 2); /* name */
    put_number(a, 0, 2); /* extra */
}

static void make_archive(archive *a, const uint8_t *npy, size_t size, bool deflated)
{
    uint8_t packed[MAX_FILE];
    size_t packed_size = size;
    memcpy(packed, npy, size);
    if (deflated) {
        z_stream z = {0};
        assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, -15, 8, Z_DEFAULT_STRATEGY), Z_OK);
        z.next_in = (z_const Bytef *)npy;
        z.avail_in = (uInt)size;
        z.next_out = packed;
        z.avail_out = sizeof(packed);
        assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
        packed_size = z.total_out;
        deflateEnd(&z);
    }
    const uint32_t crc = (uint32_t)crc32(0, npy, (uInt)size);
    a->size = 0;
    put_number(a, 0x04034b50, 4);
    put_number(a, 20, 2);
    put_number(a, 0, 2);
    put_facts(a, deflated ? 8 : 0, crc, packed_size, size);
    put(a, "x.npy", 5);
    put(a, packed, packed_size);
    const size_t directory = a->size;
    put_number(a, 0x02014b50, 4);
    put_number(a, 20, 2);
    put_number(a, 20, 2);
    put_number(a, 0, 2);
    put_facts(a, deflated ? 8 : 0, crc, packed_size, size);
    put_number(a, 0, 2);  /* comment */
    put_number(a, 0, 2);  /* disk */
    put_number(a, 0, 2);  /* internal attributes */
    put_number(a, 0, 4);  /* external ones */
    put_number(a, 0, 4);  /* local header */
    put(a, "x.npy", 5);
    const size_t bytes = a->size - directory;
    put_number(a, 0x06054b50, 4);
    put_number(a, 0, 4);
    put_number(a, 1, 2);
    put_number(a, 1, 2);
    put_number(a, (uint32_t)bytes, 4);
    put_number(a, (uint32_t)directory, 4);
    put_number(a, 0, 2);
}

static int make_fixture(void **state)
{
    static fixture f;
    uint8_t npy[2048];
    qn_context_options o;
    qn_context_options_init(&o);
    o.n_threads = 1;
    assert_int_equal(qn_context_create(&o, &f.ctx, NULL), QN_OK);
    strcpy(f.path, "/tmp/quench-zip-XXXXXX");
    const int fd = mkstemp(f.path);
    assert_true(fd >= 0);
    close(fd);
    for (size_t i = 0; i < VALUES; i++)
        f.values[i] = (float)(i % 7) * 0.5f;
    const size_t size = npy_of(f.values, npy);
    make_archive(&f.stored, npy, size, false);
    make_archive(&f.deflated, npy, size, true);
    assert_true(f.deflated.size < f.stored.size / 4);
    *state = &f;
    return 0;
}

static int free_fixture(void **state)
{
    fixture *f = *state;
    unlink(f->path);
    qn_context_destroy(f->ctx);
    return 0;
}

/* Writes bytes and reads them as input "x". True: the array came back as it was. */
static bool reads(const fixture *f, const uint8_t *bytes, size_t size)
{
    qn_tensor_file file;
    qn_error error = {0};
    float values[VALUES];
    FILE *out = fopen(f->path, "wb");
    assert_non_null(out);
    assert_int_equal(fwrite(bytes, 1, size, out), size);
    assert_int_equal(fclose(out), 0);
    const qn_status status =
        qn__tensor_file_open(f->ctx, f->path, "x", true, NULL, NULL, 0, &file, &error);
    if (status != QN_OK) {
        assert_true(error.message[0] != '\0' && strchr(error.message, '\n') == NULL);
        return false;
    }
    assert_true(file.rank == 2 && file.dims[0] == VALUES / 100 && file.dims[1] == 100);
    qn__tensor_file_read(&file, 0, VALUES, values);
    assert_memory_equal(values, f->values, sizeof(values));
    qn__tensor_file_close(&file);
    return true;
}

static void test_whole(void **state)
{
    const fixture *f = *state;
    assert_true(reads(f, f->stored.bytes, f->stored.size));
    assert_true(reads(f, f->deflated.bytes, f->deflated.size));
}

static void test_every_truncation(void **state)
{
    const fixture *f = *state;
    for (size_t n = 0; n < f->deflated.size; n++)
        assert_false(reads(f, f->deflated.bytes, n));
    for (size_t n = 0; n < f->stored.size; n++)
        assert_false(reads(f, f->stored.bytes, n));
}

/* Every byte changed in three ways. What nobody reads (times, versions, attributes) may change; what is
 * read is refused. */
static void test_every_byte(void **state)
{
    const fixture *f = *state;
    static const uint8_t masks[] = {0x01, 0x80, 0xFF};
    const archive *const all[] = {&f->stored, &f->deflated};
    for (size_t k = 0; k < 2; k++) {
        size_t accepted = 0;
        for (size_t i = 0; i < all[k]->size; i++)
            for (size_t m = 0; m < sizeof(masks); m++) {
                uint8_t bytes[MAX_FILE];
                memcpy(bytes, all[k]->bytes, all[k]->size);
                bytes[i] ^= masks[m];
                accepted += reads(f, bytes, all[k]->size);
            }
        assert_true(accepted < 3 * 70); /* of the headers' bytes */
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole),
        cmocka_unit_test(test_every_truncation),
        cmocka_unit_test(test_every_byte),
    };
    return cmocka_run_group_tests(tests, make_fixture, free_fixture);
}
