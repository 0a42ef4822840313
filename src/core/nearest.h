/* The name that was meant by a word that is none: "did you mean". */
#ifndef QN_CORE_NEAREST_H
#define QN_CORE_NEAREST_H

#include <stddef.h>

typedef struct qn_nearest {
    const char *word;
    size_t length;
    const char *best; /* nearest of the names tried; NULL: none is near */
    size_t distance;  /* edits that a name must stay below */
} qn_nearest;

/* Looks for names near the first length bytes of word: one edit away, two when it is long. */
void qn__nearest_init(qn_nearest *nearest, const char *word, size_t length);
void qn__nearest_try(qn_nearest *nearest, const char *name);
/* ": did you mean "NAME"?" into text, returned; empty when no name is near. */
const char *qn__nearest_text(const qn_nearest *nearest, char *text, size_t size);

#endif
