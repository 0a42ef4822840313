/* Preload that makes allocations of a whole process, or of its libraries alone, or its writes fail.
 * test_preload.py compiles it and sweeps the numbers.
 *
 *     QN_FAULT_MALLOC=N     the Nth malloc, calloc, realloc or aligned allocation after start-up
 *     QN_FAULT_LIBRARIES=1  count only those that the program's own code did not ask for
 *     QN_FAULT_WRITE=N      the Nth write gets half its bytes down, those after it fail with ENOSPC
 *     QN_FAULT_PERSISTENT=1 every allocation from the Nth on
 *     QN_FAULT_COUNT=FILE   at exit: how many allocations and writes there were
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);

static bool started, libraries_only, persistent;
static uint64_t malloc_at, write_at;
static _Atomic uint64_t mallocs, writes;
static uintptr_t program_start, program_end;

static uint64_t number(const char *name)
{
    const char *text = getenv(name);
    return text == NULL ? 0 : strtoull(text, NULL, 10);
}

/* The first object is the program itself. */
static int find_program(struct dl_phdr_info *info, size_t size, void *data)
{
    (void)size, (void)data;
    program_start = UINTPTR_MAX;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *const header = &info->dlpi_phdr[i];
        if (header->p_type != PT_LOAD)
            continue;
        const uintptr_t start = info->dlpi_addr + header->p_vaddr;
        if (start < program_start)
            program_start = start;
        if (start + header->p_memsz > program_end)
            program_end = start + header->p_memsz;
    }
    return 1;
}

__attribute__((constructor)) static void start(void)
{
    malloc_at = number("QN_FAULT_MALLOC");
    write_at = number("QN_FAULT_WRITE");
    libraries_only = number("QN_FAULT_LIBRARIES") != 0;
    persistent = number("QN_FAULT_PERSISTENT") != 0;
    dl_iterate_phdr(find_program, NULL);
    started = true;
}

__attribute__((destructor)) static void report(void)
{
    const char *path = getenv("QN_FAULT_COUNT");
    char text[64];
    started = false;
    if (path == NULL)
        return;
    const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    const int n = snprintf(text, sizeof text, "%llu %llu\n", (unsigned long long)mallocs,
                           (unsigned long long)writes);
    if (fd < 0 || syscall(SYS_write, fd, text, n) != n)
        _exit(125);
    close(fd);
}

static bool fails(const void *caller)
{
    const uintptr_t from = (uintptr_t)caller;
    if (!started || (libraries_only && from >= program_start && from < program_end))
        return false;
    const uint64_t call = ++mallocs;
    if (malloc_at == 0 || call < malloc_at || (call > malloc_at && !persistent))
        return false;
    errno = ENOMEM;
    return true;
}

void *malloc(size_t size)
{
    return fails(__builtin_return_address(0)) ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    return fails(__builtin_return_address(0)) ? NULL : __libc_calloc(count, size);
}

void *realloc(void *ptr, size_t size)
{
    return fails(__builtin_return_address(0)) ? NULL : __libc_realloc(ptr, size);
}

void *memalign(size_t alignment, size_t size)
{
    return fails(__builtin_return_address(0)) ? NULL : __libc_memalign(alignment, size);
}

void *aligned_alloc(size_t alignment, size_t size)
{
    return fails(__builtin_return_address(0)) ? NULL : __libc_memalign(alignment, size);
}

int posix_memalign(void **out, size_t alignment, size_t size)
{
    void *ptr = fails(__builtin_return_address(0)) ? NULL : __libc_memalign(alignment, size);
    if (ptr == NULL)
        return ENOMEM;
    *out = ptr;
    return 0;
}

ssize_t write(int fd, const void *data, size_t size)
{
    if (started && fd > 2) {
        const uint64_t call = ++writes;
        if (write_at != 0 && call > write_at) {
            errno = ENOSPC;
            return -1;
        }
        if (call == write_at && size > 1)
            size /= 2;
    }
    return syscall(SYS_write, fd, data, size);
}
