"""What the benchmarks count is what the library does."""

from collections import Counter

import keras
import numpy as np
import pytest

import keras_spectral as ks
from benchmarks.counting import work_of
from keras_spectral import solver
from keras_spectral.spectra import host
from keras_spectral.spectra.batching import Batching

N = 12

# Side, positions, features, groups.
CASES = {
    "wide factors": ("rows", 1, 40, 2),
    "thin factors": ("rows", 1, 6, 2),
    "features": ("features", 200, 8, 3),
    "sums of examples": ("examples", 30, 4, N),
    "the smaller side of each": ("each", 50, 300, 3),
}


@pytest.fixture
def done(monkeypatch):
    """Return what is found in a training: bytes, and the sizes of eigenvalue problems."""
    found = {"factors": 0, "statistics": 0, "eigen": []}
    submit, rest, eigenvalues = solver.Solver.submit, Batching.rest, host.eigenvalues

    def submitting(self, step, epoch, factors, *args):
        found["factors"] += sum(own.on_host().nbytes for own in factors.values())
        submit(self, step, epoch, factors, *args)

    def resting(self):
        found["statistics"] += sum(reduced.nbytes for reduced in self._waiting)
        return rest(self)

    def solving(matrices):
        *numbers, _, d = matrices.shape
        found["eigen"] += [d] * int(np.prod(numbers))
        return eigenvalues(matrices)

    monkeypatch.setattr(solver.Solver, "submit", submitting)
    monkeypatch.setattr(Batching, "rest", resting)
    monkeypatch.setattr(host, "eigenvalues", solving)
    return found


@pytest.mark.parametrize("name", CASES)
def test_bytes_and_eigenvalue_problems_are_those_of_a_recorded_step(name, done):
    side, s, w, n_groups = CASES[name]
    inputs = keras.Input((s, w))
    hidden = keras.layers.Dense(w, activation="tanh")(inputs)
    model = ks.SpectralModel(inputs, keras.layers.Dense(w)(hidden))
    model.compile("sgd", "mse", spectra=1)
    x = np.random.default_rng(0).standard_normal((N, s, w)).astype("f")
    model.fit(x, x, groups=np.arange(N) % n_groups, batch_size=N, verbose=0)
    work = work_of([(s, w, w)] * 2, N, n_groups)
    assert side in work.sides["activation"]
    assert work.factors == done["factors"]
    assert work.statistics == done["statistics"]
    assert work.eigen == Counter(done["eigen"])
    assert work.eigen.total() == len(model.spectral_log)
    assert work.products > 0
