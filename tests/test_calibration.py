"""Does the comparison say "significant" as often as it may, and does it when it should?

Small networks on simulated subjects, 60 of site A and 30 of site B, which is not the target.
"""

import keras
import numpy as np
import pytest
from scipy import stats

import keras_spectral as ks
from keras_spectral.analysis import compare_groups
from keras_spectral.neuro.simulate import simulated_fnc

RUNS = 200
LEVEL = 0.05
CONFIDENCE = 0.95

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model():
    inputs = keras.Input((378,))
    x = keras.layers.Dense(8, activation="relu", name="hidden")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2, activation="softmax", name="out")(x))
    model.compile(keras.optimizers.SGD(0.01), "sparse_categorical_crossentropy")
    return model


def p_value(model, seed, group_effect):
    """Train anew on new subjects; compare the sites in one comparison that was fixed beforehand."""
    x, phenotype = simulated_fnc(group_effect=group_effect, group_size=30, seed=seed)
    y = (phenotype["diagnosis"] == "SZ").to_numpy(int)
    rng = np.random.default_rng(seed)
    model.set_weights([rng.normal(0, 0.05, w.shape) for w in model.get_weights()])
    model.fit(x, y, epochs=3, batch_size=30, verbose=0)
    groups = ks.permutations(phenotype["site"], n=99, seed=seed)
    log = ks.introspect(model, x, y, groups=groups, spectra=ks.Spectra(layers="out"))
    table = compare_groups(
        log, "A", "B", layers="out", quantities="activation", summaries="frobenius_norm"
    )
    assert len(table) == 1
    return table["p"].iloc[0]


def test_without_a_difference_one_in_twenty_comparisons_is_significant(model):
    significant = sum(p_value(model, seed, group_effect=0) < LEVEL for seed in range(RUNS))
    low, high = stats.binom.interval(CONFIDENCE, RUNS, LEVEL)
    assert low <= significant <= high


def test_a_planted_difference_is_found(model):
    found = [p_value(model, 1000 + seed, group_effect=4) < LEVEL for seed in range(10)]
    assert sum(found) >= 8
