#include "run/ops/igemm_run.h"

#include "core/checked.h"

/* Packed weights used again and again by a block of rows should stay in the second-level cache, and
 * so should the block of input rows while it is read once per block of columns. */
enum { WEIGHT_BLOCK_BYTES = 512 << 10, INPUT_BLOCK_BYTES = 512 << 10, TASKS_PER_THREAD = 4 };
/* Columns are cut at multiples of this many panels: what a kernel may take at once. */
enum { PANEL_STEP = 3 };

typedef struct blocks {
    const qn_igemm_job *job;
    size_t tiles;      /* of mr rows */
    size_t row_blocks; /* the tiles are cut into */
    size_t panels, panels_per_block, column_blocks;
    size_t panel_floats;
    bool rows_outer; /* task order: row blocks outside, column blocks inside */
} blocks;

bool qn__igemm_buffer_bytes(size_t *out, const qn_f32_igemm *kernel, size_t m, size_t ks,
                            size_t groups)
{
    size_t tile, count;
    if (!qn_mul_size(&tile, ks, kernel->mr))
        return false;
    if (tile <= QN_IGEMM_STACK_ROWS) {
        *out = 0;
        return true;
    }
    return qn_mul_size(&count, tile, qn_div_up(m, kernel->mr)) &&
           qn_mul_size(&count, count, groups) && qn_mul_size(out, count, sizeof(const float *));
}

static blocks plan_blocks(const qn_igemm_job *job, size_t threads)
{
    blocks b = {.job = job};
    const size_t k = job->ks * job->kc;
    b.tiles = qn_div_up(job->m, job->kernel->mr);
    b.panels = qn_div_up(job->n, job->kernel->nr);
    b.panel_floats = job->kernel->nr * (1 + k);
    const size_t panel_bytes = b.panel_floats * sizeof(float);
    const size_t weight_bytes = b.panels * panel_bytes;
    const size_t input_bytes = job->m * job->kc * sizeof(float);
    b.panels_per_block = b.panels;
    b.row_blocks = 1;
    /* A private row buffer per tile is written by whoever runs the tile: columns stay together. */
    if (job->row_buffer == NULL) {
        const size_t block =
            job->kernel->repack == NULL ? WEIGHT_BLOCK_BYTES : 4 * WEIGHT_BLOCK_BYTES;
        if (weight_bytes > block)
            b.panels_per_block = block > panel_bytes ? block / panel_bytes : 1;
        /* Few rows: the threads share the columns. */
        const size_t wanted = threads * TASKS_PER_THREAD;
        if (threads > 1 && (b.tiles < 2 * threads || weight_bytes > 2 * input_bytes) &&
            qn_div_up(b.panels, b.panels_per_block) < wanted)
            b.panels_per_block = qn_div_up(b.panels, wanted);
        b.panels_per_block = qn_div_up(b.panels_per_block, PANEL_STEP) * PANEL_STEP;
        b.column_blocks = qn_div_up(b.panels, b.panels_per_block);
        if (b.column_blocks > 1)
            b.row_blocks = qn_div_up(input_bytes, INPUT_BLOCK_BYTES);
        b.rows_outer = input_bytes > weight_bytes;
    }
    b.column_blocks = qn_div_up(b.panels, b.panels_per_block);
    const size_t tasks = b.column_blocks * job->groups;
    if (threads > 1 && tasks * b.row_blocks < threads * TASKS_PER_THREAD)
        b.row_blocks = qn_div_up(threads * TASKS_PER_THREAD, tasks);
    b.row_blocks = b.row_blocks < b.tiles ? b.row_blocks : b.tiles;
    return b;
}

static void run_task(void *arg, size_t index)
{
    const blocks *const b = arg;
    const qn_igemm_job *const job = b->job;
    const size_t mr_max = job->kernel->mr;
    const size_t group = index / (b->row_blocks * b->column_blocks);
    const size_t task = index % (b->row_blocks * b->column_blocks);
    const size_t row_block = b->rows_outer ? task / b->column_blocks : task % b->row_blocks;
    const size_t column_block = b->rows_outer ? task % b->column_blocks : task / b->row_blocks;
    const size_t n0 = column_block * b->panels_per_block * job->kernel->nr;
    const size_t n_left = job->n - n0;
    const size_t n_block = b->panels_per_block * job->kernel->nr;
    const size_t nc = n_left < n_block ? n_left : n_block;
    const float *const packed = job->packed + group * job->packed_stride +
                                column_block * b->panels_per_block * b->panel_floats;
    const float *stack_rows[QN_IGEMM_STACK_ROWS];
    const size_t tile_begin = row_block * b->tiles / b->row_blocks;
    const size_t tile_end = (row_block + 1) * b->tiles / b->row_blocks;
    for (size_t tile = tile_begin; tile < tile_end; tile++) {
        /* Even cuts: 49 rows are seven tiles of 7, not six of 8 and a slow one of 1. */
        const size_t m0 = tile * job->m / b->tiles;
        const size_t mr = (tile + 1) * job->m / b->tiles - m0;
        const float **const a =
            job->row_buffer == NULL
                ? stack_rows
                : job->row_buffer + (group * b->tiles + tile) * job->ks * mr_max;
        job->rows(job, group, m0, mr, a);
        job->kernel->fn(mr, nc, job->kc, job->ks, a, packed,
                        job->c + group * job->c_group + m0 * job->c_stride + n0, job->c_stride,
                        &job->clamp);
    }
}

void qn__igemm_run(const qn_igemm_job *job, qn_pool *pool)
{
    if (job->m == 0 || job->n == 0 || job->groups == 0)
        return;
    blocks b = plan_blocks(job, qn__pool_size(pool));
    qn__parallel(pool, run_task, &b, b.row_blocks * b.column_blocks * job->groups);
}

enum { PANELS_PER_TASK = 4 };

typedef struct pack_job {
    float *packed;
    const float *w, *bias;
    size_t n, kc, ks, stride_n, stride_p, stride_k, nr;
} pack_job;

static void pack_panels(void *arg, size_t index)
{
    const pack_job *const j = arg;
    const size_t most = PANELS_PER_TASK * j->nr, n0 = index * most;
    const size_t n = j->n - n0 < most ? j->n - n0 : most;
    qn__f32_gemm_pack(j->packed + qn__f32_gemm_packed_count(n0, j->kc, j->ks, j->nr),
                      j->w + n0 * j->stride_n, j->bias == NULL ? NULL : j->bias + n0, n, j->kc,
                      j->ks, j->stride_n, j->stride_p, j->stride_k, j->nr);
}

void qn__igemm_pack(qn_pool *pool, float *packed, const float *w, const float *bias, size_t n,
                    size_t kc, size_t ks, size_t stride_n, size_t stride_p, size_t stride_k,
                    size_t nr)
{
    pack_job job = {packed, w, bias, n, kc, ks, stride_n, stride_p, stride_k, nr};
    qn__parallel(pool, pack_panels, &job, qn_div_up(n, PANELS_PER_TASK * nr));
}
