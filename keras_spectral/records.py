"""What one step leaves in the buffer, and how a log is made of its spectra.

Letters: `g` group (the whole batch first), `r` record.
"""

import numpy as np
import pandas as pd
import tensorflow as tf

from keras_spectral.groups import ALL
from keras_spectral.log import SpectralLog
from keras_spectral.log.schema import RESIDUAL
from keras_spectral.spectra.factors import FACTORS
from keras_spectral.spectra.keeping import kept_by
from keras_spectral.summaries import SUMMARIES, SpectrumTable


def encoded(layout, step, epoch, n, factors, mask, bases):
    """Return the tensors that one step leaves, a record for `spectra.pile`. Runs in the graph.

    Args:
        layout: `Layout`.
        step: Scalar integer tensor.
        epoch: Scalar integer tensor.
        n: Scalar integer tensor, the number of examples.
        factors: List of `Factors`, in the order of the layout's weights.
        mask: 0/1 tensor `[n, g - 1]`, or `None`.
        bases: `Bases` that follow the steps.

    Returns:
        List of tensors.
    """
    positions = [f.positions(name) for f in factors for name in FACTORS]
    head = tf.stack([tf.cast(value, tf.int64) for value in (step, epoch, *positions)])
    members = tf.zeros(tf.stack([n, 0]), tf.uint8) if mask is None else tf.cast(mask, tf.uint8)
    return [head, members, *kept_by(layout.stacks, factors, mask, n, bases)]


def decoded(spectra, membership):
    """Return the log of some records.

    Args:
        spectra: `SolvedRecords`.
        membership: `Membership` of the training examples, for its names.

    Returns:
        A `SpectralLog`: a row per present group, permuted groups as summaries.
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
    permutation = np.concatenate([[0], membership.permutation])[:n_groups]
    return {
        "layer": series[None, :, 0, None],
        "weight": series[None, :, 1, None],
        "quantity": series[None, :, 2, None],
        "group": names[None, None, :],
        "permutation": permutation[None, None, :],
    }


def _as_log(rows, sigma):
    real = (rows["permutation"] == 0).to_numpy()
    permuted = None if real.all() else _summaries(rows[~real], sigma[~real])
    kept = rows[real].drop(columns="permutation").reset_index(drop=True)
    return SpectralLog(kept, sigma[real], permuted)


def _summaries(rows, sigma):
    norms = rows["frobenius_norm"].to_numpy(dtype=float)
    table = SpectrumTable(sigma, norms, rows["truncated"].to_numpy(dtype=bool))
    derived = {name: summary(table) for name, summary in SUMMARIES.items()}
    kept = rows.drop(
        columns=["rank_bound", "frobenius_norm", "truncated", RESIDUAL], errors="ignore"
    )
    return kept.assign(**derived).reset_index(drop=True)
