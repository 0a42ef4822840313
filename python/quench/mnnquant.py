"""The command mnnquant: quantized.out's arguments, output and exit codes."""

import signal
import sys
import time

from ._library import QuenchError
from .mnn import mnn_quantize

USAGE = "Usage: ./quantized.out src.mnn dst.mnn preTreatConfig.json"


def main(arguments=None):
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    exact = None
    positional = []
    for argument in arguments:
        if argument == "--exact-mnn":
            exact = "all"
        elif argument.startswith("--exact-mnn="):
            exact = argument.partition("=")[2]
        elif argument.startswith("--"):
            known = "there is --exact-mnn[=LIST]"
            print(f'error: unknown option "{argument}" ({known})', file=sys.stderr)
            return 2
        else:
            positional.append(argument)
    if len(positional) < 3:
        print(f"[{time.strftime('%H:%M:%S')}] @ 1719: {USAGE}")
        return 2

    def output(text):
        sys.stdout.write(text)
        sys.stdout.flush()

    def warn(line):
        sys.stdout.flush()
        print(f"warning: {line}", file=sys.stderr)

    try:
        # Python's own handler waits until the library returns, which can take minutes.
        interrupt = signal.signal(signal.SIGINT, signal.SIG_DFL)
    except ValueError:
        interrupt = None  # not the main thread: the signal is not its business
    try:
        mnn_quantize(*positional[:3], exact=exact, output=output, warn=warn)
    except QuenchError as failed:
        sys.stdout.flush()
        print(f"error: {failed}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        return 1
    finally:
        if interrupt is not None:
            signal.signal(signal.SIGINT, interrupt)
    return 0


if __name__ == "__main__":
    sys.exit(main())
