"""MNN's offline quantizer."""

import contextlib
import ctypes
import os
import signal
import threading

from . import _library


@contextlib.contextmanager
def _keep_interrupts(raised):
    """Ctrl-C would end in whatever callback runs, and be lost there: it is kept, as exceptions are."""
    python = signal.default_int_handler
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not python
    ):
        yield
        return
    signal.signal(signal.SIGINT, lambda *_: raised.append(KeyboardInterrupt()))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, python)


def mnn_quantize(source, destination, config, *, exact=None, threads=0, output=None, warn=None):
    """Quantizes the .mnn file `source` as the JSON file `config` says into `destination`, and writes
    the scales into `destination` + ".json".

    exact: choices of MNN's own tool to restore ("all", or a comma-separated list; docs/mnn.md).
    threads: 0 means one per core. output, warn: called with the run's text and with each warning.
    Raises QuenchError; then neither file was touched.
    """
    c = _library.library()
    raised = []

    def guarded(function):
        """An exception cannot cross C: it is kept, and raised when the call is over."""

        def call(text):
            try:
                if function is not None and not raised:
                    function(text.decode(errors="replace"))
            except BaseException as exception:
                raised.append(exception)

        return call

    say, complain = guarded(output), guarded(warn)

    @_library.PrintFunction
    def on_print(_, text):
        say(text)

    @_library.LogFunction
    def on_log(_, level, line):
        if level == _library.QN_LOG_WARNING:
            complain(line)

    error = _library.Error()
    settings = _library.context_options()
    settings.log = on_log
    settings.n_threads = threads
    context = ctypes.c_void_p()
    status = c.qn_context_create(ctypes.byref(settings), ctypes.byref(context), ctypes.byref(error))
    _library.check(status, error)
    try:
        options = _library.mnn_options()
        options.exact = None if exact is None else exact.encode()
        options.print = on_print
        paths = [os.fsencode(path) for path in (source, destination, config)]
        with _keep_interrupts(raised):
            status = c.qn_mnn_quantize(context, *paths, ctypes.byref(options), ctypes.byref(error))
    finally:
        c.qn_context_destroy(context)
    if raised:
        raise raised[0]
    _library.check(status, error)
