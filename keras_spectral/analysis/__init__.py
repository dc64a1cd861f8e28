"""Analysis of a log: comparison of groups, figures, and a report. Needs no TensorFlow.

Names are loaded when first used, so comparing groups needs no matplotlib.
"""

import importlib

_HOME = {
    "compare_groups": "compare",
    "report": "html_report",
    "z_by_step": "compare",
}

__all__ = ["compare_groups", "figures", "report", "z_by_step"]


def __getattr__(name):
    if name == "figures":
        return importlib.import_module(f"{__name__}.figures")
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return __all__
