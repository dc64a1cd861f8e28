"""What is written in C, for speed alone: wherever it is missing, NumPy gives the same spectra.

The sources lie in this folder, and the library beside them, made when the package is built
(`scripts/compile_c.py`). Its functions leave other threads running.
"""

import ctypes
import functools
from pathlib import Path

LIBRARY = Path(__file__).with_name("compiled.so")


def compiled(name, *types):
    """Return a function of the library, which says 0 if all went well.

    Args:
        name: Its name.
        *types: Of its arguments, as `ctypes` has them.

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
