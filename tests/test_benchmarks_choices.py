"""The ways that a benchmark compares are what their names say."""

import pytest
import tensorflow as tf
from keras_spectral.spectra.factor_grams import FactorGrams
from keras_spectral.spectra.factors import Factors
from keras_spectral.spectra.row_grams import RowGrams
from keras_spectral.spectra.stacks import stacks_for

from benchmarks.choices import AUTO, FEATURES, MOST_ROWS, ROWS, side
from keras_spectral.settings import QUANTITIES

FEW_ROWS, FEW_FEATURES = (1, 200), (60, 20)
"""Positions and features of layers of which "auto" takes the side of the rows, or not."""


@pytest.mark.parametrize(
    ("way", "kinds"),
    [
        (AUTO, [RowGrams, FactorGrams]),
        (ROWS, [RowGrams, RowGrams]),
        (FEATURES, [FactorGrams, FactorGrams]),
    ],
)
def test_a_side_is_taken(way, kinds):
    found = []
    for s, width in (FEW_ROWS, FEW_FEATURES):
        factors = [Factors(tf.zeros([32, s, width]), tf.zeros([32, s, width]))]
        with side(way):
            (stack,) = stacks_for(factors, QUANTITIES, "auto", (32, 16, 16))
        found.append(type(stack))
    assert found == kinds


def test_not_that_of_too_many_rows():
    factors = [Factors(tf.zeros([32, MOST_ROWS // 32 + 1, 20]), None)]
    with side(ROWS):
        (stack,) = stacks_for(factors, ("activation",), "auto", (32, 16, 16))
    assert type(stack) is FactorGrams
