#include "streams.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static cli_color color = CLI_COLOR_AUTO;
static volatile sig_atomic_t status_width; /* of the line shown, 0: none */

void cli_open_streams(void)
{
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
    for (int fd = 0; fd <= 2; fd++) {
        /* the lowest number that is free is this one; the wrong way round, so that its use fails */
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY) != fd)
            _exit(1);
    }
}

static bool reader_has_gone(void)
{
    struct pollfd output = {.fd = STDOUT_FILENO, .events = POLLOUT};
    return poll(&output, 1, 0) == 1 && (output.revents & POLLERR) != 0;
}

int cli_close_output(int code)
{
    if ((fflush(stdout) == 0 && ferror(stdout) == 0) || code != 0)
        return code;
    if (reader_has_gone())
        return 128 + SIGPIPE;
    cli_print_kind("error");
    fputs("cannot write to standard output\n", stderr);
    return 1;
}

void cli_set_color(cli_color wanted)
{
    color = wanted;
}

bool cli_on_terminal(void)
{
    const char *const term = getenv("TERM");
    return isatty(STDERR_FILENO) && (term == NULL || strcmp(term, "dumb") != 0);
}

static bool colored(void)
{
    const char *const no_color = getenv("NO_COLOR");
    if (color != CLI_COLOR_AUTO)
        return color == CLI_COLOR_ALWAYS;
    return (no_color == NULL || no_color[0] == '\0') && cli_on_terminal();
}

void cli_show_status(const char *line)
{
    const int width = (int)strlen(line);
    const int rest = status_width > width ? (int)status_width - width : 0;
    status_width = width; /* first: an interrupt right behind the line has to end it */
    fprintf(stderr, "\r%s%*s", line, rest, "");
}

void cli_clear_status(void)
{
    if (status_width > 0)
        fprintf(stderr, "\r%*s\r", (int)status_width, "");
    status_width = 0;
}

void cli_abandon_status(void)
{
    if (status_width > 0 && write(STDERR_FILENO, "\n", 1) != 1)
        status_width = 0; /* there is nobody to tell */
}

void cli_print_kind(const char *kind)
{
    cli_clear_status();
    if (colored())
        fprintf(stderr, "\033[%sm%s:\033[0m ", strcmp(kind, "error") == 0 ? "1;31" : "1;33", kind);
    else
        fprintf(stderr, "%s: ", kind);
}
