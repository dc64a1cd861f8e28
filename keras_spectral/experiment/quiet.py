"""TensorFlow, imported without a word."""

import os


def load_tensorflow():
    """Import TensorFlow without the start-up notes that its C++ part prints whatever one sets."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        import tensorflow
    finally:
        os.dup2(kept, 2)
        os.close(kept)
    tensorflow.get_logger().setLevel("ERROR")  # a new model per fold is not "retracing"
