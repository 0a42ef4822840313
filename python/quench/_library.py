"""Finds libquench and declares what the package calls."""

import ctypes
import ctypes.util
import os
import sys
from pathlib import Path

QN_LOG_WARNING = 2


class QuenchError(Exception):
    """A refused input or a failed run. `status` is the C library's status name ("CORRUPT")."""

    def __init__(self, status, message):
        super().__init__(message)
        self.status = status


class Error(ctypes.Structure):  # qn_error
    _fields_ = [("status", ctypes.c_int), ("message", ctypes.c_char * 1024)]


LogFunction = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p)
PrintFunction = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_char_p)


class ContextOptions(ctypes.Structure):  # qn_context_options
    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("allocator", ctypes.c_void_p),
        ("io", ctypes.c_void_p),
        ("limits", ctypes.c_void_p),
        ("log", LogFunction),
        ("log_ctx", ctypes.c_void_p),
        ("n_threads", ctypes.c_uint32),
        ("cpu_mask", ctypes.c_char_p),
        ("progress", ctypes.c_void_p),
        ("progress_ctx", ctypes.c_void_p),
    ]


class MnnOptions(ctypes.Structure):  # qn_mnn_options
    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("exact", ctypes.c_char_p),
        ("print", PrintFunction),
        ("print_ctx", ctypes.c_void_p),
    ]


def _candidates():
    suffix = ".dylib" if sys.platform == "darwin" else ".so"
    if os.environ.get("QUENCH_LIBRARY"):
        yield os.environ["QUENCH_LIBRARY"]
        return
    inside = Path(__file__).parent / f"libquench{suffix}"
    if inside.exists():
        yield str(inside)
    installed = ctypes.util.find_library("quench")
    if installed:
        yield installed


def _load():
    for path in _candidates():
        try:
            return ctypes.CDLL(path)
        except OSError as failed:
            raise QuenchError("IO", f"{path}: {failed}") from None
    raise QuenchError("IO", "libquench is not installed; QUENCH_LIBRARY may name its file")


def _initialized(initialize, options):
    """Options with their defaults. A library whose struct is larger would write behind ours."""
    room = (ctypes.c_size_t * 512)()
    initialize(room)
    if room[0] != ctypes.sizeof(options):
        raise QuenchError("UNSUPPORTED", "libquench is of another version than this package")
    return options.from_buffer_copy(room)


def context_options():
    return _initialized(library().qn_context_options_init, ContextOptions)


def mnn_options():
    return _initialized(library().qn_mnn_options_init, MnnOptions)


_loaded = None


def library():
    """The C library, loaded at the first call."""
    global _loaded
    if _loaded is None:
        c = _load()
        pointer = ctypes.POINTER
        c.qn_status_name.restype = ctypes.c_char_p
        c.qn_status_name.argtypes = [ctypes.c_int]
        c.qn_context_options_init.restype = None
        c.qn_context_options_init.argtypes = [ctypes.c_void_p]
        c.qn_context_create.argtypes = [
            pointer(ContextOptions),
            pointer(ctypes.c_void_p),
            pointer(Error),
        ]
        c.qn_context_destroy.restype = None
        c.qn_context_destroy.argtypes = [ctypes.c_void_p]
        c.qn_mnn_options_init.restype = None
        c.qn_mnn_options_init.argtypes = [ctypes.c_void_p]
        c.qn_mnn_quantize.argtypes = [
            ctypes.c_void_p,
            ctypes.c_char_p,
            ctypes.c_char_p,
            ctypes.c_char_p,
            pointer(MnnOptions),
            pointer(Error),
        ]
        _loaded = c
    return _loaded


def check(status, error):
    if status != 0:
        name = library().qn_status_name(status).decode()
        raise QuenchError(name, error.message.decode(errors="replace"))
