/* Errors, sizes, memory, blobs, text buffers and threads. */
#include "core/blob.h"
#include "core/checked.h"
#include "core/context.h"
#include "core/strbuf.h"
#include "core/threads.h"
#include "fault/fault.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

static qn_context *new_context(void)
{
    qn_context *ctx = NULL;
    assert_int_equal(qn_context_create(NULL, &ctx, NULL), QN_OK);
    return ctx;
}

static void an_error_is_one_printable_line(void **state)
{
    (void)state;
    qn_error error;
    assert_int_equal(qn__error_set(&error, QN_CORRUPT, "node \"%s\"", "a\nb\x1b[0m"), QN_CORRUPT);
    assert_string_equal(error.message, "node \"a?b?[0m\"");
    assert_int_equal(qn__error_prefix(&error, QN_CORRUPT, "%s", "m.onnx"), QN_CORRUPT);
    assert_string_equal(error.message, "m.onnx: node \"a?b?[0m\"");
    qn__error_prefix(&error, QN_CORRUPT, "%s", "m.onnx");
    assert_string_equal(error.message, "m.onnx: node \"a?b?[0m\"");
    assert_int_equal(qn__error_set(NULL, QN_IO, "nobody listens"), QN_IO);
}

static void a_long_prefix_is_cut_and_terminated(void **state)
{
    (void)state;
    qn_error error;
    char name[3000];
    memset(name, 'x', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    qn__error_set(&error, QN_IO, "reason");
    qn__error_prefix(&error, QN_IO, "%s", name);
    assert_true(strlen(error.message) < sizeof error.message);
    qn__error_set(&error, QN_IO, "%s", name);
    qn__error_prefix(&error, QN_IO, "file");
    assert_memory_equal(error.message, "file: xxx", 9);
    assert_true(strlen(error.message) < sizeof error.message);
}

static void sizes_do_not_wrap(void **state)
{
    (void)state;
    size_t out = 7;
    assert_false(qn_mul_size(&out, SIZE_MAX / 2 + 1, 2));
    assert_false(qn_add_size(&out, SIZE_MAX, 1));
    assert_false(qn_align_size(&out, SIZE_MAX - 3, 64));
    assert_int_equal(out, 7);
    assert_true(qn_mul_size(&out, 0, SIZE_MAX));
    assert_int_equal(out, 0);
    assert_false(qn_shape_count(&out, (int64_t[]){2, -1}, 2));
    assert_false(qn_shape_count(&out, (int64_t[]){INT64_MAX, 4}, 2));
    assert_true(qn_shape_count(&out, (int64_t[]){3, 0, 5}, 3));
    assert_int_equal(out, 0);
    assert_true(qn_shape_count(&out, NULL, 0));
    assert_int_equal(out, 1);
}

static void arena_memory_is_zeroed_aligned_and_kept(void **state)
{
    (void)state;
    qn_context *ctx = new_context();
    qn_arena arena;
    qn__arena_init(&arena, ctx);
    uint8_t *previous[200];
    for (size_t i = 0; i < 200; i++) {
        const size_t size = (i * 977) % 9000 + 1;
        previous[i] = qn__arena_alloc(&arena, size);
        assert_non_null(previous[i]);
        assert_int_equal((uintptr_t)previous[i] % 16, 0);
        for (size_t k = 0; k < size; k++)
            assert_int_equal(previous[i][k], 0);
        memset(previous[i], (int)i, size);
    }
    for (size_t i = 0; i < 200; i++)
        assert_int_equal(previous[i][(i * 977) % 9000], (uint8_t)i);
    assert_string_equal(qn__arena_printf(&arena, "%s_%d", "conv", 3), "conv_3");
    assert_null(qn__arena_calloc(&arena, SIZE_MAX / 2, 4));
    qn__arena_free(&arena);
    qn_context_destroy(ctx);
}

static void tensor_memory_is_aligned_to_64(void **state)
{
    (void)state;
    qn_context *ctx = new_context();
    for (size_t size = 0; size < 300; size += 7) {
        void *ptr = qn__alloc_aligned(ctx, size);
        assert_int_equal((uintptr_t)ptr % 64, 0);
        memset(ptr, 1, size);
        qn__free_aligned(ctx, ptr);
    }
    qn_context_destroy(ctx);
}

static void a_blob_slice_keeps_its_parent_alive(void **state)
{
    (void)state;
    fault counter = {0};
    const qn_allocator allocator = fault_allocator(&counter);
    qn_context_options options;
    qn_context_options_init(&options);
    options.allocator = &allocator;
    options.n_threads = 1;
    qn_context *ctx = NULL;
    assert_int_equal(qn_context_create(&options, &ctx, NULL), QN_OK);
    void *bytes;
    qn_blob *blob = qn__blob_create(ctx, 16, &bytes);
    memcpy(bytes, "0123456789abcdef", 16);
    qn_blob *slice = qn__blob_slice(blob, 10, 6);
    assert_null(qn__blob_slice(blob, 10, 7));
    assert_null(qn__blob_slice(blob, 17, 0));
    assert_null(qn__blob_slice(blob, SIZE_MAX, 2));
    qn__blob_unref(blob);
    assert_memory_equal(slice->data, "abcdef", 6);
    qn__blob_unref(slice);
    qn_context_destroy(ctx);
    assert_int_equal(counter.live, 0);
}

static void text_above_its_maximum_fails_and_stays_failed(void **state)
{
    (void)state;
    qn_context *ctx = new_context();
    qn_strbuf text;
    qn__strbuf_init(&text, ctx, 10);
    qn__strbuf_puts(&text, "12345");
    qn__strbuf_printf(&text, "%d", 6789);
    assert_string_equal(text.data, "123456789");
    assert_false(text.failed);
    qn__strbuf_puts(&text, "x");
    assert_true(text.failed);
    qn__strbuf_puts(&text, "");
    assert_string_equal(text.data, "123456789");
    qn__strbuf_free(&text);
    qn_context_destroy(ctx);
}

static void count_index(void *arg, size_t index)
{
    _Atomic uint32_t *const seen = arg;
    seen[index]++;
}

static void count_worker(void *arg, uint32_t worker, size_t index)
{
    if (worker >= 3)
        abort();
    count_index(arg, index);
}

static void a_parallel_loop_visits_every_index_once(void **state)
{
    (void)state;
    for (uint32_t threads = 1; threads <= 3; threads++) {
        qn_context_options options;
        qn_context_options_init(&options);
        options.n_threads = threads;
        qn_context *ctx = NULL;
        assert_int_equal(qn_context_create(&options, &ctx, NULL), QN_OK);
        assert_int_equal(qn_context_n_threads(ctx), threads);
        static _Atomic uint32_t seen[1000];
        memset((void *)seen, 0, sizeof seen);
        qn__parallel(ctx->pool, count_index, (void *)seen, 1000);
        qn__parallel_worker(ctx->pool, count_worker, (void *)seen, 1000);
        for (size_t i = 0; i < 1000; i++)
            assert_int_equal(seen[i], 2);
        qn_context_destroy(ctx);
    }
}

static void a_cpu_mask_only_takes_away(void **state)
{
    (void)state;
    const uint32_t all = qn__cpu_detect();
    const char *const names[] = {"",     "scalar", "avx2", "avxvnni", "avx512",
                                 "vnni", "amx",    "neon", "dotprod", "i8mm"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        uint32_t flags = all;
        assert_true(qn__cpu_mask(&flags, names[i]));
        assert_int_equal(flags & ~all, 0);
    }
    uint32_t flags = all;
    assert_false(qn__cpu_mask(&flags, "sse9"));
    qn_context_options options;
    qn_context_options_init(&options);
    options.cpu_mask = "sse9";
    qn_context *ctx = NULL;
    qn_error error;
    assert_int_equal(qn_context_create(&options, &ctx, &error), QN_INVALID_ARGUMENT);
    assert_null(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_error_is_one_printable_line),
        cmocka_unit_test(a_long_prefix_is_cut_and_terminated),
        cmocka_unit_test(sizes_do_not_wrap),
        cmocka_unit_test(arena_memory_is_zeroed_aligned_and_kept),
        cmocka_unit_test(tensor_memory_is_aligned_to_64),
        cmocka_unit_test(a_blob_slice_keeps_its_parent_alive),
        cmocka_unit_test(text_above_its_maximum_fails_and_stays_failed),
        cmocka_unit_test(a_parallel_loop_visits_every_index_once),
        cmocka_unit_test(a_cpu_mask_only_takes_away),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
