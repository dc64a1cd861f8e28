"""How tests choose a method that costs would not choose, and solve steps by it."""

import contextlib

import numpy as np
import pytest

from keras_spectral.settings import Spectra
from keras_spectral.spectra import feature_gram, row_gram
from keras_spectral.spectra.batching import Batching, Step

FORCED = ("row_gram, wide", "row_gram, thin", "feature_gram", "gram_of_each")
"""Methods that the costs choose among."""

FREE, DEAR = (lambda *_: 1.0), (lambda *_: 1e18)


@contextlib.contextmanager
def forced(method):
    """Make one of `FORCED` the cheapest wherever there is a choice."""
    with pytest.MonkeyPatch.context() as patch:
        by_rows = method.startswith("row_gram")
        patch.setattr(row_gram, "cost", FREE if by_rows else DEAR)
        patch.setattr(row_gram, "cost_of_gradient", FREE if by_rows else DEAR)
        patch.setattr(row_gram, "is_thin", lambda sizes: method.endswith("thin"))
        patch.setattr(feature_gram, "cost_of_each", FREE if method == "gram_of_each" else DEAR)
        yield


def step_of(number, factors, mask=None, shares=None):
    """Return a `Step` of a list of `Factors`, with the shares of its own groups if none are given.

    Factors of the same place are those of the same weight.
    """
    n = _n_examples(factors[0])
    mask = np.zeros((n, 0), bool) if mask is None else mask
    shares = tuple(mask.mean(axis=0).tolist()) if shares is None else shares
    named = {("layer", str(j)): each for j, each in enumerate(factors)}
    return Step(number, number // 3, named, mask, shares)


def _n_examples(factors):
    for part in factors[:3]:
        if part is not None:
            return part.n if hasattr(part, "n") else part.shape[0]
    raise AssertionError("factors of nothing")


def solved(steps, settings=None):
    """Return the `SolvedSteps` of some steps."""
    batching, found = Batching(Spectra() if settings is None else settings), []
    for step in steps:
        found += batching.add(step)
    return found + batching.rest()


def by_name(found):
    """Return `{(step, place of the weight, quantity, group): (sigma, norm, residual)}`.

    Of groups that are there; as many singular values as are kept.
    """
    result = {}
    for part in found:
        for r, p, g in np.ndindex(part.norm.shape):
            if part.sizes[r, g]:
                series = part.plan.series[p]
                key = int(part.steps[r]), int(series.weight[1]), series.quantity, g
                assert key not in result
                sigma = part.sigma[r, p, g]
                assert np.isnan(sigma[part.n_kept[r, p, g] :]).all()
                kept = sigma[: part.n_kept[r, p, g]]
                result[key] = kept, part.norm[r, p, g], part.residual[r, p, g]
            else:
                assert np.isnan(part.norm[r, p, g])
                assert np.isnan(part.sigma[r, p, g]).all()
    return result
