/* Statistics of calibration as files: parts made on different machines or at different times, whose
 * merge is the bytes of one run over all samples.
 *
 * A file is a row of records, each with its length and checksum: the head (model, samples,
 * preprocessing), and for each stage a table of what is observed and contributions. A finished file
 * has one contribution in each stage and an end; a journal, which grows while calibrating, one for
 * each sample. docs/internals/calib.md has the layout. */
#ifndef QN_CALIB_STATS_H
#define QN_CALIB_STATS_H

#include "calib/calib.h"
#include "calib/stats_wire.h"

enum { QN_STATS_EQUALIZE = 0, QN_STATS_MAIN = 1, QN_STATS_STAGES = 2 };

typedef struct qn_stats_input {
    const char *name;
    uint32_t rank;
    int64_t dims[QN_MODEL_MAX_RANK]; /* of the first sample */
    size_t count;
} qn_stats_input;

typedef struct qn_stats_head {
    uint64_t model;     /* hash of the simplified float graph */
    uint64_t n_samples; /* of all parts together */
    uint64_t names;     /* hash of their names, in order */
    qn_preprocess preprocess;
    bool pictures; /* preprocess was applied */
    size_t n_inputs;
    qn_stats_input *inputs;
} qn_stats_head;

/* One sample that was seen. inputs: its values, of the few that drift (drift.h) runs again. */
typedef struct qn_stats_sample {
    uint64_t index, hash;
    const char *name;
    float **inputs;                           /* [n_inputs], or NULL */
    const int64_t (*dims)[QN_MODEL_MAX_RANK]; /* [n_inputs] of those, NULL: the head's */
} qn_stats_sample;

typedef struct qn_stats_mean {
    size_t channels; /* 0: nothing seen */
    qn_fixed *sums, *few;
    float *peaks; /* NULL unless wanted */
} qn_stats_mean;

typedef struct qn_stats_row { /* of a layer: see rows.h */
    const char *node;
    uint64_t groups, k, n_rows;
    float *data; /* [n_rows][groups * k], NULL: none seen or wanted */
} qn_stats_row;

/* Statistics of one run over the graph: what is observed, and what was seen. */
typedef struct qn_stats_stage {
    bool present, want_peaks;
    uint64_t graph;         /* hash of the graph that ran */
    uint64_t n_used, n_few; /* samples of the run, and of them those kept */
    size_t n_items, n_means, n_rows;
    const char **item_names;
    const qn_feature_method **methods; /* [n_items] of the state's kind */
    void **states;                     /* [n_items] */
    const char **mean_names;
    qn_stats_mean *means;
    qn_stats_row *rows;
    qn_stats_sample *samples; /* by index */
    size_t n_samples, samples_capacity;
} qn_stats_stage;

typedef struct qn_stats qn_stats;
struct qn_stats {
    const qn_context *ctx;
    qn_arena arena; /* names, tables */
    char *path;     /* of the finished file */
    bool complete;  /* read to its end */
    bool sound;     /* of a journal: nothing behind its last record */
    bool resumed;
    _Atomic bool appended; /* a sample, by this run */
    qn_stats_head head;
    qn_stats_stage stages[QN_STATS_STAGES];
    uint64_t part, n_parts; /* of a journal; 0: a finished file */
    struct qn_stats_journal *journal;
};

/* --- stats_file.c: reading, merging, writing --- */
/* A finished file, whole and checked. */
qn_status qn__stats_open(const qn_context *ctx, const char *path, qn_stats **out, qn_error *error);
/* The same of a journal, what is damaged at its end left out; false in *found: there is none. */
qn_status qn__stats_open_journal(const qn_context *ctx, const char *path, qn_stats **out,
                                 qn_error *error);
void qn__stats_free(qn_stats *stats);
/* Adds what `from` saw; INVALID_ARGUMENT naming both files where they are not parts of one run. */
qn_status qn__stats_merge(qn_stats *into, const qn_stats *from, qn_error *error);
qn_status qn__stats_write(const qn_stats *stats, const char *path, qn_error *error);
/* First difference between two heads, as words; NULL: there is none. */
const char *qn__stats_head_differs(const qn_stats_head *a, const qn_stats_head *b);
/* Samples [begin, end) of n that part 1 .. n_parts is. */
static inline uint64_t qn_stats_part_begin(uint64_t n, uint64_t part, uint64_t n_parts)
{
    return (uint64_t)((unsigned __int128)n * (part - 1) / n_parts);
}
/* Sample i * all / few for some i: the first at or after it is the only candidate. */
static inline bool qn_is_one_of_few(uint64_t sample, uint64_t few, uint64_t all)
{
    const uint64_t i = (uint64_t)(((unsigned __int128)sample * few + all - 1) / all);
    return i < few && (uint64_t)((unsigned __int128)i * all / few) == sample;
}

/* --- stats_record.c: tables and contributions as bytes --- */
void qn__stats_put_head(qn_strbuf *buf, const qn_stats_head *head);
qn_status qn__stats_get_head(qn_stats *stats, qn_qnm_cursor *from, qn_error *error);
void qn__stats_put_table(qn_strbuf *buf, const qn_stats_stage *stage);
qn_status qn__stats_get_table(qn_stats *stats, qn_qnm_cursor *from, qn_stats_stage *stage,
                              qn_error *error);
/* What stage holds, or one sample of it: its samples are the only ones whose rows are written. */
void qn__stats_put_seen(const qn_stats *stats, qn_strbuf *buf, const qn_stats_stage *stage);
/* Adds contributions to a stage; samples are then to be sorted (qn__stats_sort). */
qn_status qn__stats_add_seen(qn_stats *stats, qn_stats_stage *stage, const qn_qnm_cursor *seen,
                             size_t n_seen, qn_error *error);
/* By index; CORRUPT where one comes twice. */
qn_status qn__stats_sort(const qn_stats *stats, qn_stats_stage *stage, qn_error *error);
bool qn__stats_has(const qn_stats_stage *stage, uint64_t sample);
void qn__stats_stage_clear(qn_stats *stats, qn_stats_stage *stage); /* the table stays */

/* --- stats_collect.c: while calibrating, and taking the result --- */
typedef struct qn_stats_collect_options {
    const char *path;       /* of the file to be made; the journal is path.partial */
    uint64_t part, n_parts; /* 1, 1: everything */
    bool resume;
} qn_stats_collect_options;
qn_status qn__stats_collect(const qn_graph *simplified, const qn_dataset *dataset,
                            const qn_stats_collect_options *options, qn_stats **out,
                            qn_error *error);
/* Statistics are of this model; with a dataset, of its samples and preprocessing too. */
qn_status qn__stats_check_model(const qn_stats *stats, const qn_graph *simplified,
                                const qn_preprocess *preprocess, qn_error *error);
/* The table of a stage is made, or compared with what a journal had. */
qn_status qn__stats_begin_stage(qn_stats *stats, uint32_t stage, const qn_graph *graph,
                                const qn_calib_options *options, uint64_t n_used, uint64_t n_few,
                                qn_error *error);
/* Is sample one that the stage lacks? */
bool qn__stats_lacks(const qn_stats *stats, uint32_t stage, uint64_t sample);
/* Appends one sample; may be called by several threads. */
qn_status qn__stats_append(qn_stats *stats, uint32_t stage, const qn_stats_stage *seen,
                           qn_error *error);
/* Everything appended is in the stage afterwards. */
qn_status qn__stats_end_stage(qn_stats *stats, uint32_t stage, qn_error *error);
/* A journal with no sample in it is of no use to a later run: taken away. */
void qn__stats_give_up(qn_stats *stats);
/* Writes the finished file and takes the journal away. */
qn_status qn__stats_finish(qn_stats *stats, qn_error *error);
/* What qn__calibrate needs of a stage: states (initialized), means, rows. */
qn_status qn__stats_take(const qn_stats *stats, uint32_t stage, const qn_graph *graph,
                         const qn_calib_options *options, uint64_t n_used, uint64_t n_few,
                         void **states, qn_stats_mean *means, qn_error *error);
/* The samples as a dataset: names, hashes, shapes; only those kept can be loaded. */
qn_status qn__stats_dataset(const qn_stats *stats, qn_dataset **out, qn_error *error);
uint64_t qn__graph_hash(const qn_graph *graph);

#endif
