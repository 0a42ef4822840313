#!/usr/bin/env python3
"""Run a command and write its wall time, CPU time and peak resident memory as JSON.

    run_measured.py RESULT.json COMMAND [ARGUMENT...]

A program of its own, importing next to nothing: Linux counts the memory of whoever starts a
process into that process's peak, so the starter has to be small.
"""

import os
import sys
import time


def main():
    result, command = sys.argv[1], sys.argv[2:]
    start = time.monotonic()
    child = os.posix_spawnp(command[0], command, os.environ)
    _, status, usage = os.wait4(child, 0)
    seconds = time.monotonic() - start
    with open(result, "w") as f:
        f.write(
            f'{{"seconds": {seconds:.4f}, "cpu_seconds": {usage.ru_utime + usage.ru_stime:.4f}, '
            f'"peak_rss_kib": {usage.ru_maxrss}}}\n'
        )
    sys.exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
