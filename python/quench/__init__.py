"""quench in Python: the C library through ctypes, nothing but the standard library."""

from ._library import QuenchError
from .mnn import mnn_quantize

__all__ = ["QuenchError", "mnn_quantize"]
__version__ = "0.1.0"
