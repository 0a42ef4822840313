#include "interrupt.h"

#include "streams.h"

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

/* The library makes every output as a new file under another name and renames it; a command has at
 * most two of them open. The handler runs in the thread that writes here, never while it does. */
enum { MAX_TEMPORARIES = 4 };
static char temporaries[MAX_TEMPORARIES][PATH_MAX];
static qn_io real;
static const int SIGNALS[] = {SIGINT, SIGTERM, SIGHUP};
enum { N_SIGNALS = sizeof SIGNALS / sizeof SIGNALS[0] };

static void on_signal(int number)
{
    for (size_t i = 0; i < MAX_TEMPORARIES; i++)
        if (temporaries[i][0] != '\0')
            unlink(temporaries[i]);
    cli_abandon_status();
    _exit(128 + number);
}

static void hold_signals(sigset_t *before)
{
    sigset_t held;
    sigemptyset(&held);
    for (size_t i = 0; i < N_SIGNALS; i++)
        sigaddset(&held, SIGNALS[i]);
    pthread_sigmask(SIG_BLOCK, &held, before);
}

static void forget(const char *path)
{
    for (size_t i = 0; i < MAX_TEMPORARIES; i++)
        if (strcmp(temporaries[i], path) == 0)
            temporaries[i][0] = '\0';
}

static void remember(const char *path)
{
    const size_t length = strlen(path);
    for (size_t i = 0; i < MAX_TEMPORARIES && length < PATH_MAX; i++)
        if (temporaries[i][0] == '\0') {
            memcpy(temporaries[i], path, length + 1);
            return;
        }
}

static int open_file(void *ctx, const char *path, int flags, int mode)
{
    (void)ctx;
    if ((flags & O_CREAT) == 0)
        return real.open(real.ctx, path, flags, mode);
    sigset_t before;
    hold_signals(&before);
    const int fd = real.open(real.ctx, path, flags, mode);
    if (fd >= 0)
        remember(path);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return fd;
}

static int rename_file(void *ctx, const char *from, const char *to)
{
    (void)ctx;
    sigset_t before;
    hold_signals(&before);
    const int result = real.rename(real.ctx, from, to);
    if (result == 0)
        forget(from);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return result;
}

static int unlink_file(void *ctx, const char *path)
{
    (void)ctx;
    sigset_t before;
    hold_signals(&before);
    const int result = real.unlink(real.ctx, path);
    forget(path);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return result;
}

void cli_handle_interrupts(qn_io *io)
{
    const struct sigaction action = {.sa_handler = on_signal};
    qn_io_init(&real);
    *io = real;
    io->open = open_file;
    io->rename = rename_file;
    io->unlink = unlink_file;
    for (size_t i = 0; i < N_SIGNALS; i++) {
        struct sigaction old;
        if (sigaction(SIGNALS[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN)
            sigaction(SIGNALS[i], &action, NULL);
    }
}
