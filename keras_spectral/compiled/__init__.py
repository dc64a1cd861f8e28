"""Functions in C, for speed only: without the library NumPy gives the same spectra.

The sources are in this folder, and so is the library, compiled when the package is built
(`scripts/compile_c.py`). Its functions are called without the interpreter's lock.
"""

import ctypes
import functools
from pathlib import Path

LIBRARY = Path(__file__).with_name("compiled.so")


def compiled(name, *types):
    """Return a function of the library, which returns 0 on success.

    Args:
        name: Its name.
        *types: `ctypes` types of its arguments.

    Returns:
        The function, or `None` if there is no library.
    """
    return _function(LIBRARY, name, types)


@functools.cache
def _function(library, name, types):
    if not library.exists():
        return None
    function = ctypes.CDLL(str(library))[name]
    function.argtypes = types
    return function
