"""Runs a command and reports the most anonymous memory it held (RssAnon of Linux's /proc).

    anon_peak.py COMMAND...

Mapped files are pages that the system may drop and read again, so they are not counted. Sampled
every 5 ms; the last line of standard error is "anon_peak BYTES".
"""

import subprocess
import sys
import time


def anon_bytes(pid):
    try:
        with open(f"/proc/{pid}/status", encoding="ascii") as status:
            for line in status:
                if line.startswith("RssAnon:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def run(command, **kwargs):
    """The finished process and its peak in bytes."""
    process = subprocess.Popen(command, **kwargs)
    peak = 0
    while process.poll() is None:
        peak = max(peak, anon_bytes(process.pid))
        time.sleep(0.005)
    return process, peak


if __name__ == "__main__":
    finished, most = run(sys.argv[1:])
    print(f"anon_peak {most}", file=sys.stderr)
    sys.exit(finished.returncode)
