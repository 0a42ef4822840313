#include "core/nearest.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum { LONGEST = 200, MOST_EDITS = 2 };

void qn__nearest_init(qn_nearest *nearest, const char *word, size_t length)
{
    const size_t edits = length / 3 < MOST_EDITS ? length / 3 : MOST_EDITS;
    *nearest = (qn_nearest){.word = word, .length = length, .distance = edits + 1};
}

/* Edits (a byte put in, left out, replaced, or swapped with the next) that turn a into b, or more
 * than MOST_EDITS. Only the diagonals that so few edits can reach are looked at. */
static size_t distance(const char *a, size_t n, const char *b, size_t m)
{
    enum { FAR = MOST_EDITS + 1 };
    uint8_t rows[3][LONGEST + 2]; /* of a's bytes i-2, i-1, i, in turns */
    if (n > LONGEST || m > LONGEST || n > m + MOST_EDITS || m > n + MOST_EDITS)
        return FAR;
    memset(rows, FAR, sizeof rows);
    for (size_t j = 0; j <= m && j < FAR; j++)
        rows[0][j] = (uint8_t)j;
    for (size_t i = 1; i <= n; i++) {
        const uint8_t *const before = rows[(i + 1) % 3], *const above = rows[(i + 2) % 3];
        uint8_t *const row = rows[i % 3];
        const size_t from = i > MOST_EDITS ? i - MOST_EDITS : 0;
        const size_t to = i + MOST_EDITS < m ? i + MOST_EDITS : m;
        memset(row, FAR, LONGEST + 2);
        for (size_t j = from; j <= to; j++) {
            size_t best = above[j] + 1u;
            if (j > 0) {
                const size_t replaced = above[j - 1] + (size_t)(a[i - 1] != b[j - 1]);
                best = replaced < best ? replaced : best;
                best = row[j - 1] + 1u < best ? row[j - 1] + 1u : best;
            }
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                before[j - 2] + 1u < best)
                best = before[j - 2] + 1u;
            row[j] = (uint8_t)(best < FAR ? best : FAR);
        }
    }
    return rows[n % 3][m];
}

void qn__nearest_try(qn_nearest *nearest, const char *name)
{
    const size_t edits = distance(nearest->word, nearest->length, name, strlen(name));
    if (edits < nearest->distance) {
        nearest->distance = edits;
        nearest->best = name;
    }
}

const char *qn__nearest_text(const qn_nearest *nearest, char *text, size_t size)
{
    text[0] = '\0';
    if (nearest->best != NULL)
        (void)snprintf(text, size, ": did you mean \"%s\"?", nearest->best);
    return text;
}
