/* SIGINT, SIGTERM and SIGHUP end the program at once with 128 + the signal's number; a temporary
 * file that was being written is removed first. */
#ifndef QN_CLI_INTERRUPT_H
#define QN_CLI_INTERRUPT_H

#include "quench/base.h"

/* Takes over the signals and gives the table of system calls that knows the temporary files. A
 * signal that is ignored, as under nohup, stays ignored. */
void cli_handle_interrupts(qn_io *io);

#endif
