"""What one core does alone, for figures that tell of one."""

import contextlib
import unittest.mock

import threadpoolctl

from keras_spectral.spectra import workers


@contextlib.contextmanager
def one_core():
    """Return a context in which neither BLAS nor the thread that solves has helpers."""
    alone = unittest.mock.patch.object(workers, "number", return_value=1)
    with threadpoolctl.threadpool_limits(1, "blas"), alone:
        yield
