/* fb_tool dump FILE: the tables of a .mnn file as text. fb_tool rebuild FILE OUT: reads it and lays
 * all of it out anew. */
#include <stdio.h>
#include <string.h>

#include "core/io.h"
#include "format/mnn/mnn_schema.h"

int main(int argc, char **argv)
{
    const bool rebuild = argc == 4 && strcmp(argv[1], "rebuild") == 0;
    if (!rebuild && !(argc == 3 && strcmp(argv[1], "dump") == 0))
        return 2;
    qn_error error;
    qn_context *ctx = NULL;
    qn_file_view view;
    qn_blob *file = NULL;
    qn_fb_document doc;
    qn_status status = qn_context_create(NULL, &ctx, &error);
    if (status == QN_OK)
        status = qn__file_open(ctx, argv[2], &view, &error);
    if (status == QN_OK) {
        file = qn__blob_from_file(ctx, &view);
        status = file ? qn__fb_read(ctx, &qn__mnn_schema, argv[2], file, &doc, &error)
                      : QN_NOMEM(&error);
        if (!file)
            qn__file_close(ctx, &view);
    }
    if (status == QN_OK && rebuild) {
        uint8_t *bytes;
        size_t size;
        status = qn__fb_build(&doc, &bytes, &size, &error);
        if (status == QN_OK) {
            status = qn__file_write_all(ctx, argv[3], bytes, size, &error);
            qn__free(ctx, bytes);
        }
        qn__fb_free(&doc);
    } else if (status == QN_OK) {
        qn_strbuf text;
        qn__strbuf_init(&text, ctx, 1u << 30);
        qn__fb_dump(&doc, &text);
        fputs(text.data, stdout);
        qn__strbuf_free(&text);
        qn__fb_free(&doc);
    }
    if (status != QN_OK)
        fprintf(stderr, "error: %s: %s\n", qn_status_name(status), error.message);
    qn__blob_unref(file);
    qn_context_destroy(ctx);
    return status == QN_OK ? 0 : 1;
}
