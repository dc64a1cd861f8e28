"""What one recorded step leaves, by name, and how a log is made of its spectra.

Letters: `g` group (the whole batch first), `r` record.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf

from keras_spectral.groups import ALL, Membership
from keras_spectral.log import SpectralLog
from keras_spectral.log.schema import RESIDUAL
from keras_spectral.spectra.factors import FACTORS
from keras_spectral.spectra.keeping import kept_by
from keras_spectral.summaries import SUMMARIES, SpectrumTable


@dataclass(frozen=True)
class Record:
    """What one recorded step leaves.

    Attributes:
        step: Number of the step.
        epoch: Number of the epoch.
        mask: Boolean array `[n, g]`, which example is in which group.
        factors: Dictionary `(layer path, weight name) -> Factors`, in the order of the model.
        membership: `Membership` of all examples, whose groups are the columns of the mask.
    """

    step: int
    epoch: int
    mask: Any
    factors: Any
    membership: Membership

    @property
    def n(self):
        """Number of examples."""
        return len(self.mask)

    @property
    def nbytes(self):
        """Bytes of all tensors."""
        leaves = tf.nest.flatten(list(self.factors.values()), expand_composites=True)
        return sum(x.dtype.size * int(np.prod(x.shape)) for x in leaves if x is not None)


def encoded(layout, record, bases):
    """Return what is known of a step as a list of arrays, a record for `spectra.pile`.

    Args:
        layout: `Layout`.
        record: `Record`.
        bases: `Bases` that follow the steps.

    Returns:
        List of arrays.
    """
    factors = list(record.factors.values())
    positions = [int(f.positions(name)) for f in factors for name in FACTORS]
    head = np.array([record.step, record.epoch, *positions])
    mask = None if not record.mask.shape[1] else record.mask
    kept = kept_by(layout.stacks, factors, mask, record.n, bases)
    return [head, record.mask, *(np.asarray(part) for part in kept)]


def decoded(spectra, membership):
    """Return the log of some records.

    Args:
        spectra: `SolvedRecords`.
        membership: `Membership` of the training examples, for its names.

    Returns:
        A `SpectralLog`: a row per present group, relabelled pseudo-groups as summaries.
    """
    layout, heads, sizes, norm, sigma, residual = spectra
    n_rows = layout.n_rows(heads, sizes)
    kept, bounds = layout.n_kept(n_rows)
    frame = {
        "run": np.full(1, "", dtype=object)[:, None, None],
        "epoch": heads[:, 1, None, None],
        "step": heads[:, 0, None, None],
        **_constant_columns(layout, membership, sizes.shape[1]),
        "n_examples": sizes[:, None, :],
        "batch_size": sizes[:, None, :1],
        "n_rows": n_rows,
        "rank_bound": bounds,
        "frobenius_norm": norm,
        "truncated": kept < bounds,
    }
    if not layout.is_exact:
        frame[RESIDUAL] = residual
    present = np.broadcast_to(sizes[:, None, :] > 0, n_rows.shape)
    rows = {name: np.broadcast_to(column, n_rows.shape)[present] for name, column in frame.items()}
    return _as_log(pd.DataFrame(rows), sigma[present])


def _constant_columns(layout, membership, n_groups):
    """Return what is the same in every record, as arrays `[1, series, g]`."""
    series = [(*layout.weights[j][:2], quantity) for j, quantity in layout.series]
    series = np.array(series, dtype=object).reshape(-1, 3)
    # Batches without a mask, from `train_on_batch`, have no group but `all`.
    names = np.array([ALL, *membership.names], dtype=object)[:n_groups]
    relabeling = np.concatenate([[0], membership.relabeling])[:n_groups]
    return {
        "layer": series[None, :, 0, None],
        "weight": series[None, :, 1, None],
        "quantity": series[None, :, 2, None],
        "group": names[None, None, :],
        "relabeling": relabeling[None, None, :],
    }


def _as_log(rows, sigma):
    real = (rows["relabeling"] == 0).to_numpy()
    pseudo = None if real.all() else _summaries(rows[~real], sigma[~real])
    kept = rows[real].drop(columns="relabeling").reset_index(drop=True)
    return SpectralLog(kept, sigma[real], pseudo)


def _summaries(rows, sigma):
    norms = rows["frobenius_norm"].to_numpy(dtype=float)
    table = SpectrumTable(sigma, norms, rows["truncated"].to_numpy(dtype=bool))
    derived = {name: summary(table) for name, summary in SUMMARIES.items()}
    kept = rows.drop(
        columns=["rank_bound", "frobenius_norm", "truncated", RESIDUAL], errors="ignore"
    )
    return kept.assign(**derived).reset_index(drop=True)
