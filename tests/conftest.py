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


@pytest.fixture
def elsewhere(monkeypatch):
    """Pretend that all tensors lie on another device: they stay tensors until they are fetched."""
    from keras_spectral.matrices.base import array

    for name, module in list(sys.modules.items()):
        if name.startswith("keras_spectral") and vars(module).get("array") is array:
            monkeypatch.setattr(module, "array", lambda tensor: tensor)


@pytest.fixture(params=["host", "another device"])
def device(request):
    """Where tensors lie."""
    if request.param == "another device":
        request.getfixturevalue("elsewhere")
    return request.param
