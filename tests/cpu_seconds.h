/* Time for tests that bound it: of the processor, so that other work on the machine does not count;
 * under a tool that slows everything down (tools/valgrind), divided by QN_TEST_SLOW. */
#ifndef TEST_CPU_SECONDS_H
#define TEST_CPU_SECONDS_H

#include <stdlib.h>
#include <time.h>

static inline double cpu_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    const char *const slow = getenv("QN_TEST_SLOW");
    const double factor = slow != NULL ? strtod(slow, NULL) : 1.0;
    return ((double)now.tv_sec + 1e-9 * (double)now.tv_nsec) / (factor >= 1.0 ? factor : 1.0);
}

#endif
