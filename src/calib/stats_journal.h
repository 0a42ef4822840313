/* What the files of statistics share among themselves. */
#ifndef QN_CALIB_STATS_JOURNAL_H
#define QN_CALIB_STATS_JOURNAL_H

#include "calib/stats.h"
#include "core/io.h"

enum { QN_STATS_TAG_SEEN = 4 };

qn_status qn__stats_corrupt(const qn_stats *stats, const char *what, qn_error *error);
/* A text in the arena; NULL: out of memory, or the cursor failed. */
const char *qn__stats_get_name(qn_stats *stats, qn_qnm_cursor *c);
/* Dims, and the floats they stand for. */
bool qn__stats_get_dims(const qn_stats *stats, qn_qnm_cursor *c, uint32_t rank, int64_t *dims,
                        size_t *count);
qn_status qn__stats_new(const qn_context *ctx, const char *path, qn_stats **out, qn_error *error);
size_t qn__stats_begin_record(qn_strbuf *buf, uint32_t tag);
void qn__stats_end_record(qn_strbuf *buf, size_t at);
bool qn__stats_next_record(qn_qnm_cursor *file, uint32_t *tag, qn_qnm_cursor *payload, bool *good);
qn_status qn__stats_open_records(const char *path, const qn_file_view *view, qn_qnm_cursor *out,
                                 qn_error *error);
qn_status qn__stats_view(const qn_context *ctx, const char *path, qn_file_view *out,
                         qn_error *error);
/* A record of a stage's table, or of what was seen. */
void qn__stats_put_stage_record(const qn_stats *stats, qn_strbuf *buf, uint32_t stage, bool seen,
                                const qn_stats_stage *what);
/* A journal holds the part's number and can grow; a finished file has an end. */
qn_status qn__stats_write_as(const qn_stats *stats, const char *path, bool journal,
                             qn_error *error);
void qn__stats_journal_close(qn_stats *stats);
bool qn__preprocess_equal(const qn_preprocess *a, const qn_preprocess *b);

#endif
