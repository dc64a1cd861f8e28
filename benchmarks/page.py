"""What the pages of benchmarks have in common."""

import os
import platform

import keras
import tensorflow as tf

import keras_spectral as ks


def table(head, all_rows):
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *all_rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def machine():
    """Return a line about the machine and the versions."""
    return (
        f"{os.cpu_count()} CPU cores ({platform.machine()}), Python {platform.python_version()}, "
        f"TensorFlow {tf.__version__}, Keras {keras.__version__}, keras_spectral {ks.__version__}"
    )
