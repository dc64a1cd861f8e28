"""Is what a simulator plants found where it is planted, and nothing where nothing is?

Small networks learn the diagnosis of simulated subjects; then their layers are compared between the
sites, which are not the target. Studies of one kind share a compiled network, which starts anew, at
random, in every study.
"""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pytest
from scipy.stats import kstest

import keras_spectral as ks
from keras_spectral.analysis import compare_groups
from keras_spectral.neuro import models, simulate
from keras_spectral.neuro.tables import load_tables
from keras_spectral.neuro.time_series import load_time_series
from keras_spectral.neuro.volumes import Volumes, load_volumes

STUDIES, FOUND = 20, 18
LEVEL = 0.05
NULL_STUDIES = 100
NULL_LEVEL = 0.001  # of the Kolmogorov-Smirnov test: of a thousand valid tests, one fails
PERMUTATIONS = 99

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Kind:
    write: Any
    load: Any
    model: Any
    first_layer: str
    planted: dict  # settings of the studies with a difference, beside the defaults
    small: dict  # settings of the many studies without one


def mlp(shape):
    return models.mlp(*shape, 2, hidden=(8,))


def cnn1d(shape):
    return models.cnn1d(*shape, 2, filters=(8, 16), kernel_size=5)


def cnn3d(shape):
    return models.cnn3d(shape[:3], 2, filters=(4, 4))


KINDS = {
    "connectivity": Kind(
        simulate.write_simulated_tables,
        load_tables,
        mlp,
        "hidden_1",
        {"group_effect": 2.0},  # of 20 studies with the default of 1, 11 are found
        {"n_subjects": 40, "n_features": 66},
    ),
    "FreeSurfer": Kind(
        simulate.write_simulated_freesurfer, load_tables, mlp, "hidden_1", {}, {"n_subjects": 40}
    ),
    "time series": Kind(
        simulate.write_simulated_time_series,
        load_time_series,
        cnn1d,
        "conv_1",
        {},
        {"n_subjects": 30, "n_time": 40, "n_regions": 10},
    ),
    "volumes": Kind(
        simulate.write_simulated_volumes,
        load_volumes,
        cnn3d,
        "conv_1",
        {},
        {"n_subjects": 30, "shape": (10, 12, 10)},
    ),
}


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


def loaded(kind, folder, **settings):
    """Write subjects, and load them as a user would."""
    x, y, phenotype = kind.load(*kind.write(folder, **settings), "diagnosis")
    x = x.array() if isinstance(x, Volumes) else np.asarray(x, dtype="float32")
    if x.ndim == 2:
        x = (x - x.mean(axis=0)) / x.std(axis=0)
    return x, y, phenotype["site"]


def compiled(kind, shape):
    model = kind.model(shape)
    model.compile(keras.optimizers.SGD(0.05), "sparse_categorical_crossentropy")
    return model


def look(model, x, y, site, seed, spectra=None):
    """Train from a new start, and look at the whole data with permuted sites."""
    keras.utils.set_random_seed(seed)
    model.set_weights(keras.models.clone_model(model).get_weights())
    model.fit(x, y, epochs=3, batch_size=15, verbose=0)
    groups = ks.permutations(site, n=PERMUTATIONS, seed=seed)
    return ks.introspect(model, x, y, groups=groups, spectra=spectra)


def test_a_planted_difference_is_found_in_what_enters_the_first_layer(kind, tmp_path):
    """Found: some summary is significant, family-wise over all layers, quantities, summaries."""
    model, found = None, 0
    for seed in range(STUDIES):
        x, y, site = loaded(kind, tmp_path / str(seed), seed=seed, **kind.planted)
        model = model or compiled(kind, x.shape[1:])
        table = compare_groups(look(model, x, y, site, seed), "A", "B")
        assert table["layer"].nunique() > 1
        planted = table.query("layer == @kind.first_layer and quantity == 'activation'")
        found += (planted["p_adjusted"] < LEVEL).any()
    assert found >= FOUND


def test_without_a_difference_p_values_of_one_comparison_are_uniform(kind, tmp_path):
    """The comparison, fixed beforehand: the norm of what enters the last layer."""
    model, p_values = None, []
    for seed in range(NULL_STUDIES):
        settings = {**kind.small, "group_effect": 0, "seed": 1000 + seed}
        x, y, site = loaded(kind, tmp_path / str(seed), **settings)
        model = model or compiled(kind, x.shape[1:])
        spectra = ks.Spectra(layers="output", quantities="activation")
        table = compare_groups(
            look(model, x, y, site, seed, spectra), "A", "B", summaries="frobenius_norm"
        )
        p_values.append(table["p"].item())
    # A p-value is one of 0.01, 0.02, …, 1, each as likely. Spread evenly over the gap below it, it
    # is uniform on the whole interval, for which the test is exact.
    gaps = np.random.default_rng(0).uniform(size=NULL_STUDIES) / (PERMUTATIONS + 1)
    assert kstest(p_values - gaps, "uniform").pvalue > NULL_LEVEL
