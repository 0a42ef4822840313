/* Open addressing with linear probing. A removed name keeps its slot (value NULL) so that probing
 * goes on; it is reused when the same name comes back, which is what passes do. */
#include "ir/names.h"

#include <inttypes.h>
#include <string.h>

static uint64_t hash_text(const char *text)
{
    uint64_t hash = 1469598103934665603u; /* FNV-1a */
    for (const unsigned char *p = (const unsigned char *)text; *p != 0; p++)
        hash = (hash ^ *p) * 1099511628211u;
    return hash ^ (hash >> 32);
}

void qn__names_free(const qn_context *ctx, qn_name_table *table)
{
    qn__free(ctx, table->entries);
    *table = (qn_name_table){0};
}

static qn_name_entry *probe(qn_name_entry *entries, size_t capacity, const char *key, uint64_t hash)
{
    size_t i = (size_t)hash & (capacity - 1);
    while (entries[i].key != NULL && (entries[i].hash != hash || strcmp(entries[i].key, key) != 0))
        i = (i + 1) & (capacity - 1);
    return &entries[i];
}

qn_name_entry *qn__names_find(const qn_name_table *table, const char *key)
{
    if (table->capacity == 0)
        return NULL;
    qn_name_entry *entry = probe(table->entries, table->capacity, key, hash_text(key));
    return entry->key != NULL ? entry : NULL;
}

void *qn__names_get(const qn_name_table *table, const char *key)
{
    const qn_name_entry *entry = qn__names_find(table, key);
    return entry != NULL ? entry->value : NULL;
}

static bool grow(const qn_context *ctx, qn_name_table *table)
{
    const size_t capacity = table->capacity == 0 ? 64 : table->capacity * 2;
    qn_name_entry *entries = qn__calloc(ctx, capacity, sizeof(*entries));
    if (entries == NULL)
        return false;
    for (size_t i = 0; i < table->capacity; i++) {
        const qn_name_entry *old = &table->entries[i];
        if (old->key != NULL)
            *probe(entries, capacity, old->key, old->hash) = *old;
    }
    qn__free(ctx, table->entries);
    table->entries = entries;
    table->capacity = capacity;
    return true;
}

bool qn__names_put(const qn_context *ctx, qn_name_table *table, const char *key, void *value)
{
    if (table->used >= table->capacity / 2 && !grow(ctx, table))
        return false;
    const uint64_t hash = hash_text(key);
    qn_name_entry *entry = probe(table->entries, table->capacity, key, hash);
    if (entry->key == NULL)
        table->used++;
    entry->key = key;
    entry->hash = hash;
    entry->value = value;
    return true;
}

void qn__names_remove(qn_name_table *table, const char *key)
{
    qn_name_entry *entry = qn__names_find(table, key);
    if (entry != NULL)
        entry->value = NULL;
}

const char *qn__names_unique(qn_name_table *table, qn_arena *arena, const char *name)
{
    qn_name_entry *entry = qn__names_find(table, name);
    if (entry == NULL || entry->value == NULL)
        return qn__arena_strdup(arena, name);
    /* The counter makes a file of a million equal names cost a million tries, not their square. */
    for (;;) {
        const char *candidate =
            qn__arena_printf(arena, "%s_%" PRIu64, name, entry->next_suffix + 1);
        if (candidate == NULL)
            return NULL;
        entry->next_suffix++;
        if (qn__names_get(table, candidate) == NULL)
            return candidate;
    }
}
