/* JPEG through libjpeg-turbo: slow integer DCT and fancy upsampling, the library's defaults and
 * Pillow's. A file that ends early is an error, damaged entropy data are not (as in Pillow). */
#include "data/image.h"
#include "data/image_jpeg.h"

#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include <jpeglib.h>
#include <jerror.h>

/* Every scan of a progressive file walks all coefficients; encoders write about ten. */
#define QN_JPEG_MAX_SCANS 100
/* Scans that run out of data before their end: one or two in a damaged file. Each costs a walk over
 * the whole picture, so a small file must not ask for many. */
#define QN_JPEG_MAX_STARVED_SCANS 3

typedef struct qn_jpeg_state {
    struct jpeg_error_mgr err; /* first: libjpeg hands back a pointer to it */
    jmp_buf jump;
    struct jpeg_decompress_struct cinfo;
    struct jpeg_source_mgr source;
    struct jpeg_progress_mgr progress;
    const qn_image_source *src;
    qn_error *error;
    qn_status status;
    int last_starved_scan, n_starved_scans;
    uint8_t *row;     /* scratch where the library's rows are not ours */
    uint8_t *samples; /* planes and rows of the coefficients' way */
    qn_image image;
} qn_jpeg_state;

static void jpeg_fail(j_common_ptr cinfo)
{
    qn_jpeg_state *state = (qn_jpeg_state *)cinfo->err;
    if (state->status == QN_OK) {
        char text[JMSG_LENGTH_MAX];
        cinfo->err->format_message(cinfo, text);
        switch (cinfo->err->msg_code) {
        case JERR_OUT_OF_MEMORY:
            state->status = QN_NO_MEMORY;
            break;
        case JERR_BAD_PRECISION: /* 12 bits per sample */
        case JERR_SOF_UNSUPPORTED:
        case JERR_ARITH_NOTIMPL:
        case JERR_CONVERSION_NOTIMPL:
        case JERR_NOTIMPL:
        case JERR_NOT_COMPILED:
            state->status = QN_UNSUPPORTED;
            break;
        case JERR_IMAGE_TOO_BIG:
            state->status = QN_LIMIT;
            break;
        default:
            state->status = QN_CORRUPT;
        }
        qn__error_set(state->error, state->status, "%s: JPEG: %s", state->src->name, text);
    }
    longjmp(state->jump, 1);
}

static void jpeg_warning(j_common_ptr cinfo, int level)
{
    qn_jpeg_state *state = (qn_jpeg_state *)cinfo->err;
    const int scan = state->cinfo.input_scan_number;
    if (level >= 0)
        return;
    cinfo->err->num_warnings++;
    if (cinfo->err->msg_code != JWRN_HIT_MARKER || scan == state->last_starved_scan)
        return;
    state->last_starved_scan = scan;
    if (++state->n_starved_scans <= QN_JPEG_MAX_STARVED_SCANS)
        return;
    state->status = qn__error_set(state->error, QN_CORRUPT, "%s: JPEG with %d scans without data",
                                  state->src->name, state->n_starved_scans);
    longjmp(state->jump, 1);
}

static void jpeg_no_output(j_common_ptr cinfo)
{
    (void)cinfo;
}

static void jpeg_progress(j_common_ptr cinfo)
{
    qn_jpeg_state *state = (qn_jpeg_state *)cinfo->err;
    if (state->cinfo.input_scan_number <= QN_JPEG_MAX_SCANS)
        return;
    state->status = qn__error_set(state->error, QN_LIMIT, "%s: JPEG with more than %d scans",
                                  state->src->name, QN_JPEG_MAX_SCANS);
    longjmp(state->jump, 1);
}

static void source_nothing(j_decompress_ptr cinfo)
{
    (void)cinfo;
}

static void jpeg_truncated(j_decompress_ptr cinfo)
{
    qn_jpeg_state *state = (qn_jpeg_state *)cinfo->err;
    state->status = qn__error_set(state->error, QN_CORRUPT, "%s: JPEG ends early, after %zu bytes",
                                  state->src->name, state->src->size_bytes);
    longjmp(state->jump, 1);
}

static boolean source_fill(j_decompress_ptr cinfo)
{
    jpeg_truncated(cinfo);
    return FALSE;
}

static void source_skip(j_decompress_ptr cinfo, long count)
{
    if (count <= 0)
        return;
    if ((size_t)count > cinfo->src->bytes_in_buffer)
        jpeg_truncated(cinfo);
    cinfo->src->next_input_byte += count;
    cinfo->src->bytes_in_buffer -= (size_t)count;
}

/* Adobe's inverted CMYK, which Pillow assumes for every four-channel file, to RGB. */
static void cmyk_to_rgb(const uint8_t *cmyk, uint8_t *rgb, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const uint32_t k = cmyk[4 * i + 3]; /* 255 - K */
        for (size_t c = 0; c < 3; c++) {
            const uint32_t t = (255u - cmyk[4 * i + c]) * k + 128;
            rgb[3 * i + c] = (uint8_t)(k - (((t >> 8) + t) >> 8));
        }
    }
}

static qn_status jpeg_check_header(qn_jpeg_state *state)
{
    const struct jpeg_decompress_struct *cinfo = &state->cinfo;
    QN_TRY(qn__image_check_size(state->src, cinfo->image_width, cinfo->image_height, state->error));
    QN_FAIL_IF(cinfo->num_components != 1 && cinfo->num_components != 3 &&
                   cinfo->num_components != 4,
               state->error, QN_UNSUPPORTED, "%s: JPEG with %d components", state->src->name,
               cinfo->num_components);
    QN_FAIL_IF(cinfo->arith_code, state->error, QN_UNSUPPORTED, "%s: arithmetic-coded JPEG",
               state->src->name);
    /* A Huffman-coded block takes at least one bit and covers at most 32 x 32 pixels: refuse to
     * allocate for a size the file cannot fill. */
    const uint64_t pixels = (uint64_t)cinfo->image_width * cinfo->image_height;
    QN_FAIL_IF(pixels / (32 * 32 * 8) > state->src->size_bytes, state->error, QN_CORRUPT,
               "%s: JPEG of %u x %u pixels cannot be in %zu bytes", state->src->name,
               cinfo->image_width, cinfo->image_height, state->src->size_bytes);
    return QN_OK;
}

static void jpeg_read_rows(qn_jpeg_state *state)
{
    struct jpeg_decompress_struct *cinfo = &state->cinfo;
    qn_image *image = &state->image;
    const size_t stride = (size_t)image->width * image->channels;
    while (cinfo->output_scanline < cinfo->output_height) {
        uint8_t *dst = image->pixels + stride * cinfo->output_scanline;
        JSAMPROW row = state->row != NULL ? state->row : dst;
        if (jpeg_read_scanlines(cinfo, &row, 1) != 1)
            jpeg_truncated(cinfo);
        if (state->row == NULL)
            continue;
        if (cinfo->out_color_space == JCS_CMYK)
            cmyk_to_rgb(state->row, image->channels == 3 ? dst : state->row, image->width);
        if (image->channels == 1)
            qn__rgb_to_gray(state->row, dst, image->width);
    }
}

/* Gray or YCbCr with whole ratios between its components. */
static bool jpeg_is_plain(const struct jpeg_decompress_struct *cinfo)
{
    if (cinfo->num_components == 1)
        return true;
    if (cinfo->num_components != 3 || cinfo->jpeg_color_space != JCS_YCbCr)
        return false;
    for (int c = 0; c < 3; c++)
        if (cinfo->max_h_samp_factor % cinfo->comp_info[c].h_samp_factor != 0 ||
            cinfo->max_v_samp_factor % cinfo->comp_info[c].v_samp_factor != 0)
            return false;
    return true;
}

/* Planes of whole blocks and a row for each, in one piece. */
static qn_status jpeg_planes_create(qn_jpeg_state *state, qn_jpeg_plane planes[3], uint8_t *rows[3])
{
    const struct jpeg_decompress_struct *cinfo = &state->cinfo;
    const size_t row_bytes = (size_t)cinfo->image_width + 8;
    size_t bytes = 0;
    for (int c = 0; c < cinfo->num_components; c++) {
        const jpeg_component_info *info = &cinfo->comp_info[c];
        bytes += (size_t)info->width_in_blocks * 8 * info->height_in_blocks * 8 + row_bytes;
    }
    state->samples = qn__alloc(state->src->ctx, bytes);
    if (state->samples == NULL)
        return QN_NOMEM(state->error);
    uint8_t *next = state->samples;
    for (int c = 0; c < cinfo->num_components; c++) {
        const jpeg_component_info *info = &cinfo->comp_info[c];
        const bool alone = cinfo->num_components == 1; /* its factors mean nothing */
        planes[c].hs = alone ? 1 : (size_t)(cinfo->max_h_samp_factor / info->h_samp_factor);
        planes[c].vs = alone ? 1 : (size_t)(cinfo->max_v_samp_factor / info->v_samp_factor);
        planes[c].stride = (size_t)info->width_in_blocks * 8;
        planes[c].width = (cinfo->image_width + planes[c].hs - 1) / planes[c].hs;
        planes[c].height = (cinfo->image_height + planes[c].vs - 1) / planes[c].vs;
        planes[c].samples = next;
        next += planes[c].stride * info->height_in_blocks * 8;
        rows[c] = next;
        next += row_bytes;
    }
    return QN_OK;
}

/* Coefficients only from the library, pixels as MNN's decoder makes them. */
static qn_status jpeg_read_coefficient_planes(qn_jpeg_state *state)
{
    struct jpeg_decompress_struct *cinfo = &state->cinfo;
    qn_jpeg_plane planes[3];
    uint8_t *rows[3] = {NULL, NULL, NULL};
    jvirt_barray_ptr *coefficients = jpeg_read_coefficients(cinfo);
    QN_TRY(jpeg_planes_create(state, planes, rows));
    for (int c = 0; c < cinfo->num_components; c++) {
        const jpeg_component_info *info = &cinfo->comp_info[c];
        QN_FAIL_IF(info->quant_table == NULL, state->error, QN_CORRUPT,
                   "%s: JPEG component without a quantization table", state->src->name);
        for (JDIMENSION y = 0; y < info->height_in_blocks; y++) {
            JBLOCKARRAY blocks =
                cinfo->mem->access_virt_barray((j_common_ptr)cinfo, coefficients[c], y, 1, FALSE);
            for (JDIMENSION x = 0; x < info->width_in_blocks; x++)
                qn__jpeg_plane_block(&planes[c], y, x, blocks[0][x], info->quant_table->quantval);
        }
    }
    qn__jpeg_planes_to_rgb(planes, (size_t)cinfo->num_components, rows, state->image.width,
                           state->image.height, state->image.pixels);
    jpeg_finish_decompress(cinfo);
    return QN_OK;
}

static qn_status jpeg_run(qn_jpeg_state *state)
{
    struct jpeg_decompress_struct *cinfo = &state->cinfo;
    if (setjmp(state->jump) != 0)
        return state->status;
    jpeg_create_decompress(cinfo);
    cinfo->src = &state->source;
    cinfo->progress = &state->progress;
    jpeg_read_header(cinfo, TRUE);
    QN_TRY(jpeg_check_header(state));
    const uint32_t channels = state->src->channels;
    if (cinfo->num_components == 4)
        cinfo->out_color_space = JCS_CMYK;
    else if (cinfo->num_components == 1)
        cinfo->out_color_space = channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
    else
        cinfo->out_color_space = JCS_RGB;
    cinfo->dct_method = JDCT_ISLOW;
    const uint32_t raw_channels = cinfo->out_color_space == JCS_CMYK        ? 4
                                  : cinfo->out_color_space == JCS_GRAYSCALE ? 1
                                                                            : 3;
    QN_TRY(qn__image_alloc(state->src->ctx, cinfo->image_width, cinfo->image_height, channels,
                           &state->image, state->error));
    if (state->src->as_mnn && channels == 3 && jpeg_is_plain(cinfo))
        return jpeg_read_coefficient_planes(state);
    if (raw_channels != channels) {
        state->row = qn__alloc(state->src->ctx, (size_t)cinfo->image_width * raw_channels);
        if (state->row == NULL)
            return QN_NOMEM(state->error);
    }
    jpeg_start_decompress(cinfo);
    jpeg_read_rows(state);
    jpeg_finish_decompress(cinfo); /* demands the end marker */
    return QN_OK;
}

qn_status qn__jpeg_decode(const qn_image_source *src, qn_image *out, qn_error *error)
{
    qn_jpeg_state state = {0};
    state.src = src;
    state.error = error;
    state.cinfo.err = jpeg_std_error(&state.err);
    state.err.error_exit = jpeg_fail;
    state.err.emit_message = jpeg_warning;
    state.err.output_message = jpeg_no_output;
    state.source.init_source = source_nothing;
    state.source.fill_input_buffer = source_fill;
    state.source.skip_input_data = source_skip;
    state.source.resync_to_restart = jpeg_resync_to_restart;
    state.source.term_source = source_nothing;
    state.source.next_input_byte = src->bytes;
    state.source.bytes_in_buffer = src->size_bytes;
    state.progress.progress_monitor = jpeg_progress;
    const qn_status status = jpeg_run(&state);
    jpeg_destroy_decompress(&state.cinfo);
    qn__free(src->ctx, state.row);
    qn__free(src->ctx, state.samples);
    if (status != QN_OK) {
        qn__image_free(&state.image);
        return status;
    }
    *out = state.image;
    return QN_OK;
}
