"""What the pages of benchmarks have in common."""

import os
import platform
import re
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
import threadpoolctl

import keras_spectral as ks

SECTION = re.compile(r"^## (.+)\n(?:(?!## ).*\n?)*", re.MULTILINE)
"""A section of a page, its heading included, up to the next one of its level."""


def table(head, all_rows):
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *all_rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def section(page, title):
    """Return a section of a page, its heading included, or nothing if it is not there.

    Args:
        page: Text in Markdown.
        title: Heading of the section.
    """
    return next((found[0] for found in SECTION.finditer(page) if found[1] == title), "")


def with_section(page, text):
    """Return a page with a section in the place of that of the same heading, else at the end.

    Args:
        page: Text in Markdown.
        text: The section, its heading included.
    """
    title = SECTION.match(text)[1]
    before = section(page, title)
    text = text.strip() + "\n"
    if not before:
        return f"{page.rstrip()}\n\n{text}"
    end = "\n" if before.endswith("\n\n") else ""
    return page.replace(before, text + end)


def machine():
    """Return a line about the machine and the versions."""
    onednn = os.environ.get("TF_ENABLE_ONEDNN_OPTS", "not set")
    return ", ".join(
        [
            f"{os.cpu_count()} CPU cores ({_processor()})",
            f"Python {platform.python_version()}",
            f"NumPy {np.__version__} ({_blas()})",
            f"TensorFlow {tf.__version__} (TF_ENABLE_ONEDNN_OPTS {onednn})",
            f"Keras {keras.__version__}",
            f"keras_spectral {ks.__version__}",
        ]
    )


def _processor():
    """Return the kind of processor, and the widest registers that Linux says it has."""
    information = Path("/proc/cpuinfo")
    flags = information.read_text().split() if information.exists() else []
    widest = next((name for name in ("avx512f", "avx2") if name in flags), None)
    return ", ".join(filter(None, (platform.machine(), widest)))


def _blas():
    """Return which products NumPy uses, and for which processor they were written."""
    loaded = threadpoolctl.threadpool_info()
    own = [one for one in loaded if one["user_api"] == "blas" and "numpy" in one["filepath"]]
    known = [one.get(key) for one in own for key in ("internal_api", "version", "architecture")]
    return " ".join(filter(None, known)) or "products unknown"
