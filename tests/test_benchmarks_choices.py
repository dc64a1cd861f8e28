"""The ways that a benchmark compares are what their names say."""

import numpy as np
import pytest

from benchmarks.choices import AUTO, FEATURES, MOST_ROWS, ROWS, side
from keras_spectral.matrices.factors import Factors, WeightMatrices
from keras_spectral.settings import Spectra
from keras_spectral.spectra.plan import plan_for

FEW_ROWS, FEW_FEATURES = (1, 200), (60, 20)
"""Positions and features of layers of which "auto" takes the side of the rows, or not."""

N = 32
GROUPS = (N, N / 2, N / 2)


def methods(s, width, **settings):
    """Return the methods chosen for a dense layer."""
    zeros = np.zeros((N, s, width), "float32")
    weights = {("layer", "kernel"): WeightMatrices(Factors(zeros, zeros))}
    return {choice.method for choice in plan_for(weights, Spectra(**settings), GROUPS).choices}


@pytest.mark.parametrize(
    ("way", "expected"),
    [
        (AUTO, ["row_gram", "feature_gram"]),
        (ROWS, ["row_gram", "row_gram"]),
        (FEATURES, ["feature_gram", "feature_gram"]),
    ],
)
def test_a_side_is_taken(way, expected):
    with side(way):
        found = [methods(s, width) for s, width in (FEW_ROWS, FEW_FEATURES)]
    assert found == [{method} for method in expected]


def test_not_that_of_too_many_rows():
    with side(ROWS):
        assert methods(MOST_ROWS // N + 1, 20) == {"feature_gram"}


def test_the_choice_is_free_again():
    before = methods(*FEW_ROWS)
    with side(FEATURES):
        pass
    assert methods(*FEW_ROWS) == before
