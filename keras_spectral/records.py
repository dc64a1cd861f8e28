"""Conversion of the spectra of recorded steps to a log, with names for all indices.

Letters: `g` group (the whole batch first), `r` record.
"""

import numpy as np
import pandas as pd

from keras_spectral.groups import ALL
from keras_spectral.log import SpectralLog
from keras_spectral.log.schema import RESIDUAL
from keras_spectral.summaries import SUMMARIES, SpectrumTable


def log_of(parts, membership):
    """Return the log of some recorded steps, ordered by step.

    Args:
        parts: List of `SolvedSteps`, at least one.
        membership: `Membership` of the training examples, for its names.

    Returns:
        A `SpectralLog`: a row per group that is present, permuted groups as summaries.
    """
    tables = [_table(part, membership) for part in parts]
    if len(tables) == 1:
        return _as_log(*tables[0])
    rows = pd.concat([rows for rows, _ in tables], ignore_index=True)
    longest = max(sigma.shape[1] for _, sigma in tables)
    padding = [((0, 0), (0, longest - sigma.shape[1])) for _, sigma in tables]
    padded = [
        np.pad(s, p, constant_values=np.nan) for (_, s), p in zip(tables, padding, strict=True)
    ]
    order = np.argsort(rows["step"].to_numpy(), kind="stable")
    return _as_log(rows.iloc[order].reset_index(drop=True), np.concatenate(padded)[order])


def _table(solved, membership):
    """Return a table of keys and facts, one row per spectrum, and singular values `[rows, k]`."""
    n_rows, bounds = solved.n_rows, solved.rank_bounds
    frame = {
        "run": "",
        "epoch": solved.epochs[:, None, None],
        "step": solved.steps[:, None, None],
        **_constant_columns(solved.plan, membership, solved.sizes.shape[1]),
        "n_examples": solved.sizes[:, None, :],
        "batch_size": solved.sizes[:, None, :1],
        "n_rows": n_rows,
        "rank_bound": bounds,
        "frobenius_norm": solved.norm,
        "truncated": solved.n_kept < bounds,
    }
    if not solved.plan.is_exact:
        frame[RESIDUAL] = solved.residual
    present = np.broadcast_to(solved.sizes[:, None, :] > 0, n_rows.shape)
    rows = {name: np.broadcast_to(column, n_rows.shape)[present] for name, column in frame.items()}
    return pd.DataFrame(rows), solved.sigma[present]


def _constant_columns(plan, membership, n_groups):
    """Return the columns that are equal in all records, as arrays `[1, series, g]`."""
    series = [(*series.weight, series.quantity) for series in plan.series]
    series = np.array(series, dtype=object).reshape(-1, 3)
    # Batches without groups, from `train_on_batch`, have no group but `all`.
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
