/* Names that were meant. */
#include "core/nearest.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(list) (sizeof(list) / sizeof((list)[0]))

static const char *nearest(const char *word, const char *const *names, size_t count)
{
    qn_nearest n;
    qn__nearest_init(&n, word, strlen(word));
    for (size_t i = 0; i < count; i++)
        qn__nearest_try(&n, names[i]);
    return n.best != NULL ? n.best : "";
}

static void test_words(void **state)
{
    (void)state;
    static const char *const names[] = {"minmax", "ema", "ema-train", "percentile",
                                        "kl",     "mse", ""};
    static const struct {
        const char *word, *wanted;
    } rows[] = {{"minmax", "minmax"},  /* itself */
                {"mimax", "minmax"},   /* one left out */
                {"minmaxx", "minmax"}, /* one too many */
                {"nimmax", "minmax"},  /* two replaced */
                {"imnmax", "minmax"},  /* two swapped */
                {"eam", "ema"},        /* the same of a short word */
                {"ems", "ema"},        /* one edit: ema comes first */
                {"em", ""},            /* a short word is near to nothing */
                {"l", ""},
                {"", ""},
                {"maxmin", ""},
                {"percentil", "percentile"},
                {"ercentil", "percentile"},
                {"rcentil", ""},
                {"emaa-trainn", "ema-train"}};
    for (size_t i = 0; i < COUNT(rows); i++)
        assert_string_equal(nearest(rows[i].word, names, COUNT(names)), rows[i].wanted);
}

static void test_long_names(void **state)
{
    (void)state;
    char word[300], name[300];
    memset(word, 'a', sizeof word - 1);
    memset(name, 'a', sizeof name - 1);
    word[299] = name[299] = '\0';
    const char *const names[] = {name};
    assert_string_equal(nearest(word, names, 1), ""); /* too long to be looked at */
    word[201] = name[201] = '\0';
    assert_string_equal(nearest(word, names, 1), "");
    word[199] = name[198] = '\0';
    assert_string_equal(nearest(word, names, 1), name);
    word[150] = word[100] = word[50] = 'b';
    assert_string_equal(nearest(word, names, 1), "");
    name[100] = 'b';
    assert_string_equal(nearest(word, names, 1), name);
}

/* The textbook's table of distances, on all short words over two letters. */
static size_t slow_distance(const char *a, const char *b)
{
    size_t d[8][8];
    const size_t n = strlen(a), m = strlen(b);
    for (size_t i = 0; i <= n; i++)
        for (size_t j = 0; j <= m; j++) {
            size_t best = i == 0 ? j : j == 0 ? i : SIZE_MAX;
            if (i > 0 && j > 0) {
                best = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
                best = d[i - 1][j] + 1 < best ? d[i - 1][j] + 1 : best;
                best = d[i][j - 1] + 1 < best ? d[i][j - 1] + 1 : best;
            }
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                d[i - 2][j - 2] + 1 < best)
                best = d[i - 2][j - 2] + 1;
            d[i][j] = best;
        }
    return d[n][m];
}

static void test_distances(void **state)
{
    (void)state;
    char words[254][8];
    size_t count = 0;
    for (size_t length = 1; length <= 7; length++)
        for (unsigned bits = 0; bits < 1u << length; bits++, count++) {
            for (size_t i = 0; i < length; i++)
                words[count][i] = (bits >> i & 1) != 0 ? 'a' : 'b';
            words[count][length] = '\0';
        }
    assert_int_equal(count, COUNT(words));
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < count; j++) {
            const char *const names[] = {words[j]};
            const size_t length = strlen(words[i]);
            const size_t most = length / 3 < 2 ? length / 3 : 2;
            const bool near = nearest(words[i], names, 1)[0] != '\0';
            assert_int_equal(near, slow_distance(words[i], words[j]) <= most);
        }
}

static void test_text(void **state)
{
    (void)state;
    qn_nearest n;
    char text[64], small[8];
    qn__nearest_init(&n, "qantize", 7);
    assert_string_equal(qn__nearest_text(&n, text, sizeof text), "");
    qn__nearest_try(&n, "quantize");
    qn__nearest_try(&n, "quantise"); /* farther */
    assert_string_equal(qn__nearest_text(&n, text, sizeof text), ": did you mean \"quantize\"?");
    assert_string_equal(qn__nearest_text(&n, small, sizeof small), ": did y");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_words),
        cmocka_unit_test(test_long_names),
        cmocka_unit_test(test_distances),
        cmocka_unit_test(test_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
