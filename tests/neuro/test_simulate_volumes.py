"""Simulated volumes: what is planted is there, exactly there, and nothing else is."""

import numpy as np
import pytest
from scipy.ndimage import uniform_filter
from scipy.stats import ttest_ind

from keras_spectral.neuro.simulate import (
    simulated_fields,
    simulated_head,
    simulated_volumes,
    write_simulated_volumes,
)
from keras_spectral.neuro.simulate.volumes import DIAGNOSIS_FIELD, FIELD_SD, GROUP_FIELDS, NOISE_SD
from keras_spectral.neuro.volumes import load_volumes

ROUNDING = 1e-6  # of float32 values near 1
SMALL = (10, 12, 10)
MANY = 2000  # subjects, so that a standard deviation is known to about two percent


def scores(x):
    """How much of each field is in each volume: `[n, k]`, in units of intensity."""
    fields = simulated_fields(x.shape[1:4]).reshape(len(FIELD_SD), -1)
    n_voxels = simulated_head(x.shape[1:4]).sum()
    return x.reshape(len(x), -1) @ fields.T / n_voxels


@pytest.mark.parametrize("shape", [(8, 8, 8), SMALL, (24, 28, 24)])
def test_fields_are_orthogonal_and_of_mean_square_one_over_the_head(shape):
    fields, head = simulated_fields(shape), simulated_head(shape)
    inside = fields[:, head]
    np.testing.assert_allclose(inside @ inside.T / head.sum(), np.eye(len(FIELD_SD)), atol=1e-12)
    assert not fields[:, ~head].any()


def test_volumes_are_zero_outside_of_the_head_and_nowhere_in_it():
    x, _ = simulated_volumes(n_subjects=4)
    assert x.shape == (4, 24, 28, 24, 1)
    np.testing.assert_array_equal(x[..., 0] != 0, np.broadcast_to(simulated_head(), x.shape[:4]))


def test_the_group_difference_lies_in_the_group_fields_and_nowhere_else():
    null, planted = (simulated_volumes(group_effect=g)[0].astype(float) for g in (0, 1))
    difference = planted - null
    outside = difference[..., 0] - np.tensordot(
        scores(difference)[:, GROUP_FIELDS], simulated_fields()[GROUP_FIELDS], 1
    )
    np.testing.assert_allclose(outside, 0, atol=ROUNDING)


def test_the_group_is_wider_by_the_size_asked_for_and_only_there():
    x, phenotype = simulated_volumes(MANY, SMALL, effect=0, group_effect=1)
    found = scores(x)
    of_b = (phenotype["site"] == "B").to_numpy()
    ratio = found[of_b].std(axis=0) / found[~of_b].std(axis=0)
    # Noise in the direction of a field makes the ratio smaller.
    largest_noise = NOISE_SD / np.sqrt(simulated_head(SMALL).sum()) * 3
    assert largest_noise < 0.5 * FIELD_SD[GROUP_FIELDS].min()
    np.testing.assert_allclose(ratio[GROUP_FIELDS], 2, rtol=0.15)
    np.testing.assert_allclose(np.delete(ratio, np.r_[GROUP_FIELDS]), 1, rtol=0.1)
    assert ttest_ind(found[of_b], found[~of_b], equal_var=False).pvalue.min() > 1e-3


def test_diagnosis_darkens_the_ventricles_and_nothing_else():
    x, phenotype = simulated_volumes(MANY, SMALL, effect=1.5, group_effect=0)
    patients = (phenotype["diagnosis"] == "SZ").to_numpy()
    found = scores(x)
    shift = (found[patients].mean(axis=0) - found[~patients].mean(axis=0)) / FIELD_SD
    p = ttest_ind(found[patients], found[~patients]).pvalue
    assert shift[DIAGNOSIS_FIELD] == pytest.approx(1.5, abs=0.2)
    assert np.delete(p, DIAGNOSIS_FIELD).min() > 1e-3
    change = (x[patients].mean(axis=0) - x[~patients].mean(axis=0))[..., 0]
    darkest = np.unravel_index(np.argmin(change), SMALL)
    assert np.abs(np.array(darkest) - (np.array(SMALL) - 1) / 2).max() < 3


def test_normalized_volumes_still_show_the_group_in_their_patches(tmp_path):
    """As loaded, no norm is left that could."""
    x, _, phenotype = load_volumes(*write_simulated_volumes(tmp_path), "diagnosis")
    values = x.array()[..., 0]
    energy = (values**2).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(energy, energy[0], rtol=1e-4)
    smooth = (uniform_filter(values, (0, 3, 3, 3)) ** 2).sum(axis=(1, 2, 3)) / energy
    of_b = (phenotype["site"] == "B").to_numpy()
    assert ttest_ind(smooth[of_b], smooth[~of_b]).statistic < -5
