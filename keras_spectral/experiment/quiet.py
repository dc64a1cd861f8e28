"""Import of TensorFlow without its messages."""

import os


def load_tensorflow():
    """Import TensorFlow without the start-up messages that no setting of its C++ part disables."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    stderr = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        import tensorflow
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
    tensorflow.get_logger().setLevel("ERROR")  # a new model per fold would warn of retracing
