"""What tests of spectra share."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from keras_spectral.spectra import host


@pytest.fixture
def threads(monkeypatch):
    """Return a function that pretends there are so many cores, and all work is worth sharing."""
    pools = []

    def pretend(number):
        pool = ThreadPoolExecutor(number)
        pools.append(pool)
        monkeypatch.setattr(host, "n_threads", lambda: number)
        monkeypatch.setattr(host, "_pool", lambda pid: pool)
        monkeypatch.setattr(host, "WORTH_A_THREAD", 1)

    yield pretend
    for pool in pools:
        pool.shutdown()
