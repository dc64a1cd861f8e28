"""What all tests share."""

import gc
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import pytest

gc.set_threshold(100_000, 50, 100)  # tracing makes many objects, which Python would search often


@pytest.fixture(scope="module", autouse=True)
def garbage():
    """Collect it once a module, and never look again at what stays."""
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def fixed_seed():
    """Give every test the same random start, whatever ran before."""
    keras.utils.set_random_seed(0)
    keras.backend.clear_session(free_memory=False)


@pytest.fixture(params=["host", "another device"])
def device(request, monkeypatch):
    """Where tensors lie. Those on another device stay tensors until they are fetched."""
    if request.param == "another device":
        from keras_spectral.matrices.base import array

        for name, module in list(sys.modules.items()):
            if name.startswith("keras_spectral") and vars(module).get("array") is array:
                monkeypatch.setattr(module, "array", lambda tensor: tensor)
    return request.param
