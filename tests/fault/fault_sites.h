/* Allocations worth failing: the first of each way through the code that asks for memory. A run
 * that only counts learns them, over many runs each way is failed once. One thread. A build without
 * unwind tables tells no ways apart: there a few allocations of each run are taken. */
#ifndef QN_TESTS_FAULT_SITES_H
#define QN_TESTS_FAULT_SITES_H

#include "fault/fault.h"

#include <stdio.h>
#include <unwind.h>

enum {
    SITE_FRAMES = 16,
    SITES_MAX = 1 << 18,
    SITE_CALLS = 1 << 16,
    SITE_LEAST_FRAMES = 8,
    SITES_BLIND = 4
};

typedef struct fault_sites {
    fault memory; /* first: the allocator's state */
    bool learns;
    uint64_t seen[SITES_MAX]; /* hashes of return addresses; 0: empty */
    size_t n_seen;
    uint64_t calls[SITE_CALLS]; /* of the run that learns: those never seen before */
    size_t n_calls;
    bool blind; /* no unwind tables */
} fault_sites;

typedef struct site_trace {
    uint64_t hash;
    int frames;
} site_trace;

static inline _Unwind_Reason_Code site_frame(struct _Unwind_Context *frame, void *arg)
{
    site_trace *const t = arg;
    t->hash = (t->hash ^ (uint64_t)_Unwind_GetIP(frame)) * 0x100000001b3u;
    return ++t->frames < SITE_FRAMES ? _URC_NO_REASON : _URC_END_OF_STACK;
}

static inline void sites_see(fault_sites *s)
{
    if (!s->learns)
        return;
    site_trace t = {.hash = 0xcbf29ce484222325u};
    _Unwind_Backtrace(site_frame, &t);
    if (t.frames < SITE_LEAST_FRAMES) { /* the C library's start alone has more */
        s->blind = true;
        return;
    }
    const uint64_t key = t.hash | 1;
    size_t at = (size_t)(key >> 17) % SITES_MAX;
    while (s->seen[at] != 0 && s->seen[at] != key)
        at = (at + 1) % SITES_MAX;
    if (s->seen[at] == key || s->n_calls == SITE_CALLS || s->n_seen == SITES_MAX / 2)
        return;
    s->seen[at] = key;
    s->n_seen++;
    s->calls[s->n_calls++] = s->memory.calls + 1; /* the call that is being made */
}

static inline void *sites_alloc(void *ctx, size_t size_bytes)
{
    sites_see(ctx);
    return fault_alloc(&((fault_sites *)ctx)->memory, size_bytes);
}

static inline void *sites_realloc(void *ctx, void *old, size_t size_bytes)
{
    sites_see(ctx);
    return fault_realloc(&((fault_sites *)ctx)->memory, old, size_bytes);
}

static inline void sites_free(void *ctx, void *ptr)
{
    fault_free(&((fault_sites *)ctx)->memory, ptr);
}

/* After the run that learns. */
static inline void sites_learnt(fault_sites *s)
{
    s->learns = false;
    for (uint64_t i = 0; s->blind && i < SITES_BLIND && i < s->memory.calls; i++)
        s->calls[s->n_calls++] = s->memory.calls - i * s->memory.calls / SITES_BLIND;
}

static inline qn_allocator sites_allocator(fault_sites *s)
{
    return (qn_allocator){sites_alloc, sites_realloc, sites_free, s};
}

#endif
