/* rt_net classifier|tiny FILE.qnm: writes a network of the runtime's tests as a compact file. */
#include "rt/rt_net.h"

int main(int argc, char **argv)
{
    builder b;
    if (argc != 3)
        return fprintf(stderr, "usage: rt_net classifier|tiny FILE.qnm\n"), 2;
    if (strcmp(argv[1], "tiny") == 0)
        rt_build_tiny(&b);
    else
        rt_build_classifier(&b, 8);
    const qn_status status = compact_write(b.graph, argv[2], &b.error);
    if (status != QN_OK)
        fprintf(stderr, "error: %s\n", b.error.message);
    build_end(&b);
    return status != QN_OK;
}
