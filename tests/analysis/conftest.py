"""Synthetic logs: random activations and adjoints, their spectra by NumPy, no network."""

import itertools

import numpy as np
import pandas as pd
import pytest

from keras_spectral.groups import Membership
from keras_spectral.log import SpectralLog
from keras_spectral.permuted_groups import permutations
from keras_spectral.summaries import SUMMARIES, SpectrumTable

KEYS = ("run", "epoch", "step", "layer", "weight", "quantity", "group")


@pytest.fixture(scope="session")
def synthetic_log():
    """Return a function that makes logs."""
    return make_log


def make_log(
    groups=None,
    n_permutations=0,
    runs=("run",),
    steps=(0, 1, 2),
    layers=("dense",),
    quantities=("gradient",),
    effect=0.0,
    batch_size=None,
    width=(6, 4),
    seed=0,
    provenance=None,
):
    """Return the log of a pretended training: examples of the first group push `effect` harder."""
    generator = np.random.default_rng(seed)
    groups = {"HC": 20, "SZ": 14} if groups is None else groups
    labels = np.repeat(list(groups), list(groups.values()))
    members = Membership.of(labels)
    if n_permutations:
        members = permutations(labels, n=n_permutations, seed=int(generator.integers(2**31)))
    rows, sigma, permuted = [], [], []
    for run, step in itertools.product(runs, steps):
        batch = np.sort(generator.permutation(len(labels))[: batch_size or len(labels)])
        for depth, layer in enumerate(layers):
            matrices = _matrices(generator, labels[batch], members.names[0], effect, width)
            matrices = [matrix / (1 + depth) / (1 + 0.1 * step) for matrix in matrices]
            for quantity in quantities:
                key = (run, step // 10, step, layer, "kernel", quantity)
                _record(key, matrices, members[batch], rows, sigma, permuted)
    table = pd.DataFrame(rows)
    return SpectralLog(
        table, _padded(sigma), pd.DataFrame(permuted) if permuted else None, provenance
    )


def _matrices(generator, labels, first, effect, width):
    n = len(labels)
    strength = np.where(labels == first, 1.0 + effect, 1.0)[:, None]
    activations = generator.normal(size=(n, width[0])) * 0.7 ** np.arange(width[0])
    adjoints = generator.normal(size=(n, width[1])) * 0.5 ** np.arange(width[1])
    return activations, strength * adjoints / n


def _record(key, matrices, members, rows, sigma, permuted):
    masks = [("all", 0, np.ones(len(members), dtype=bool))]
    masks += zip(members.names, members.permutation, members.mask.T, strict=True)
    for name, permutation, mask in masks:
        if not mask.any():
            continue
        values = np.linalg.svd(_matrix(key[-1], matrices, mask), compute_uv=False)
        norm = float(np.sqrt((values**2).sum()))
        row = dict(zip(KEYS, (*key, name), strict=True))
        sizes = {"n_examples": int(mask.sum()), "batch_size": len(mask), "n_rows": int(mask.sum())}
        if permutation:
            spectrum = SpectrumTable(values[None], np.array([norm]), np.array([False]))
            summaries = {name: float(f(spectrum)[0]) for name, f in SUMMARIES.items()}
            permuted.append(row | {"permutation": int(permutation)} | sizes | summaries)
        else:
            facts = {"rank_bound": len(values), "frobenius_norm": norm, "truncated": False}
            rows.append(row | sizes | facts)
            sigma.append(values)


def _matrix(quantity, matrices, mask):
    activations, adjoints = (matrix[mask] for matrix in matrices)
    if quantity == "gradient":
        return activations.T @ adjoints
    return activations if quantity == "activation" else adjoints


def _padded(spectra):
    width = max(len(values) for values in spectra)
    padded = np.full((len(spectra), width), np.nan)
    for row, values in zip(padded, spectra, strict=True):
        row[: len(values)] = values
    return padded
