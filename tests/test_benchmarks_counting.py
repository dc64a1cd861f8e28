"""What the benchmarks count is what the library does."""

import keras
import numpy as np
import pytest

import keras_spectral as ks
from benchmarks.counting import work_of
from keras_spectral.solver import Solver

N = 12

# Positions, features, groups.
CASES = {
    "rows": (1, 40, 2),
    "thin factors": (1, 6, 2),
    "features": (200, 8, 3),
    "sums of examples": (30, 4, N),
}


def records(s, w, n_groups, monkeypatch):
    """Return the records of a training of two dense layers, of `w` features at `s` positions."""
    found, submit = [], Solver.submit

    def listening(self, records, layout, membership):
        found.extend(records)
        submit(self, records, layout, membership)

    monkeypatch.setattr(Solver, "submit", listening)
    inputs = keras.Input((s, w))
    hidden = keras.layers.Dense(w, activation="tanh")(inputs)
    model = ks.SpectralModel(inputs, keras.layers.Dense(w)(hidden))
    model.compile("sgd", "mse", spectra=1)
    x = np.random.default_rng(0).standard_normal((N, s, w)).astype("f")
    groups = np.arange(N) % n_groups
    model.fit(x, x, groups=groups, batch_size=N, verbose=0)
    return found, model.spectral_log


@pytest.mark.parametrize("name", CASES)
def test_bytes_and_eigenvalue_problems_are_those_of_a_record(name, monkeypatch):
    s, w, n_groups = CASES[name]
    (record,), log = records(s, w, n_groups, monkeypatch)
    kept = record[2:]  # beside a head and the mask
    work = work_of([(s, w, w)] * 2, N, n_groups)
    assert work.kept == sum(part.nbytes for part in kept)
    assert work.eigen.total() == len(log)
    assert work.in_thread > 0
