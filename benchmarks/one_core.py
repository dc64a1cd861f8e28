"""One core alone, for times that are told of one core."""

import contextlib
import unittest.mock

import threadpoolctl

from keras_spectral.spectra import host


@contextlib.contextmanager
def one_core():
    """Return a context in which BLAS and the solving thread use one core each."""
    alone = unittest.mock.patch.object(host, "n_threads", return_value=1)
    with threadpoolctl.threadpool_limits(1, "blas"), alone:
        yield
