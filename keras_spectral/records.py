"""What one step leaves in the buffer, and how a log is made of it.

Letters: `g` group (the whole batch first), `k` rank of a singular value, `s` shared position, `r`
record.

A record is a list of tensors: `step, epoch` and the positions `s` of each weight, the mask
`[n, g - 1]`, and what each stack of the layout keeps. A condensed record is small: in place of the
latter it holds one array per stack.
"""

from collections import defaultdict
from typing import NamedTuple

import numpy as np
import pandas as pd
import tensorflow as tf

from keras_spectral.log import SpectralLog
from keras_spectral.spectra.groups import ALL
from keras_spectral.spectra.stacks import condensed_by, kept_by, solved_by
from keras_spectral.spectra.summaries import SUMMARIES, SpectrumTable


class Layout(NamedTuple):
    """What is recorded at each step, and in which order.

    Attributes:
        weights: Tuple of `(layer path, weight name, i, o)`.
        quantities: The recorded quantities.
        top_k: Largest number of singular values kept, or `None`.
        stacks: What `spectra.stacks.stacks_for` chose.
    """

    weights: tuple
    quantities: tuple
    top_k: int | None
    stacks: tuple

    @property
    def series(self):
        """Tuple of `(weight index, quantity)`, in the order of the log."""
        return tuple((j, q) for j in range(len(self.weights)) for q in self.quantities)

    @property
    def widths(self):
        """Largest number of singular values that the features allow, for each series."""
        limits = {"activation": lambda i, o: i, "adjoint": lambda i, o: o, "gradient": min}
        return np.array([limits[q](*self.weights[j][2:]) for j, q in self.series])


def encoded(layout, step, epoch, n, factors, mask):
    """Return the tensors that one step leaves. Runs in the graph.

    Args:
        layout: `Layout`.
        step: Scalar integer tensor.
        epoch: Scalar integer tensor.
        n: Scalar integer tensor, the number of examples.
        factors: List of `Factors`, in the order of the layout's weights.
        mask: 0/1 tensor `[n, g - 1]`, or `None`.

    Returns:
        List of tensors.
    """
    positions = [tf.shape(factor.activation)[1] for factor in factors]
    head = tf.stack([tf.cast(value, tf.int64) for value in (step, epoch, *positions)])
    members = tf.zeros(tf.stack([n, 0]), tf.uint8) if mask is None else tf.cast(mask, tf.uint8)
    return [head, members, *kept_by(layout.stacks, factors, mask)]


def condensed(record, layout):
    """Return a record without what its spectra do not need.

    Args:
        record: List of arrays, as `encoded` made it.
        layout: `Layout` under which it was recorded.

    Returns:
        List of arrays.
    """
    head, mask, *kept = record
    return [head, mask, *condensed_by(layout.stacks, kept)]


def decoded(records, layout, membership):
    """Return the log of some records.

    Args:
        records: List of condensed records.
        layout: `Layout` under which they were recorded.
        membership: `Membership` of the training examples, for its names.

    Returns:
        A `SpectralLog`: a row per present group, relabelled pseudo-groups as summaries.
    """
    heads = np.stack([head for head, *_ in records])
    masks = [mask for _, mask, *_ in records]
    sizes = np.stack([[len(mask), *mask.sum(axis=0, dtype=int)] for mask in masks])  # [r, g]
    positions = heads[:, [2 + j for j, _ in layout.series]]
    n_rows = sizes[:, None, :] * positions[:, :, None]  # [r, series, g]
    bounds = np.minimum(n_rows, layout.widths[:, None])
    kept = np.minimum(bounds, layout.top_k or bounds.max())
    norm, sigma = _spectra_of(records, kept, layout)
    frame = {
        "run": np.full(1, "", dtype=object)[:, None, None],
        "epoch": heads[:, 1, None, None],
        "step": heads[:, 0, None, None],
        **_constant_columns(layout, membership),
        "n_examples": sizes[:, None, :],
        "batch_size": sizes[:, None, :1],
        "n_rows": n_rows,
        "rank_bound": bounds,
        "frobenius_norm": norm,
        "truncated": kept < bounds,
    }
    present = np.broadcast_to(sizes[:, None, :] > 0, n_rows.shape)
    rows = {name: np.broadcast_to(column, n_rows.shape)[present] for name, column in frame.items()}
    return _as_log(pd.DataFrame(rows), sigma[present])


def _constant_columns(layout, membership):
    """Return what is the same in every record, as arrays `[1, series, g]`."""
    series = [(*layout.weights[j][:2], quantity) for j, quantity in layout.series]
    series = np.array(series, dtype=object).reshape(-1, 3)
    names = np.array([ALL, *membership.names], dtype=object)
    return {
        "layer": series[None, :, 0, None],
        "weight": series[None, :, 1, None],
        "quantity": series[None, :, 2, None],
        "group": names[None, None, :],
        "relabeling": np.concatenate([[0], membership.relabeling])[None, None, :],
    }


def _spectra_of(records, kept, layout):
    # Records of equal shape, which most batches give, are solved together.
    norm = np.full(kept.shape, np.nan)
    sigma = np.full((*kept.shape, kept.max()), np.nan)
    place = {name: number for number, name in enumerate(layout.series)}
    alike = defaultdict(list)
    for r, record in enumerate(records):
        alike[tuple(part.shape for part in record)].append(r)
    for members in alike.values():
        _, masks, *contents = zip(*(records[r] for r in members), strict=True)
        for solved in solved_by(layout.stacks, contents, np.stack(masks).astype(bool)):
            block = np.asarray(members)[solved.records], solved.groups
            values = solved.sigma[..., : sigma.shape[-1]]
            for p, name in enumerate(solved.names):
                at = block[0], place[name], block[1]
                norm[at] = solved.norm[:, p]
                sigma[..., : values.shape[-1]][at] = values[:, p]
    sigma[np.arange(sigma.shape[-1]) >= kept[..., None]] = np.nan
    return norm, sigma


def _as_log(rows, sigma):
    real = (rows["relabeling"] == 0).to_numpy()
    pseudo = None if real.all() else _summaries(rows[~real], sigma[~real])
    kept = rows[real].drop(columns="relabeling").reset_index(drop=True)
    return SpectralLog(kept, sigma[real], pseudo)


def _summaries(rows, sigma):
    norms = rows["frobenius_norm"].to_numpy(dtype=float)
    table = SpectrumTable(sigma, norms, rows["truncated"].to_numpy(dtype=bool))
    derived = {name: summary(table) for name, summary in SUMMARIES.items()}
    kept = rows.drop(columns=["rank_bound", "frobenius_norm", "truncated"])
    return kept.assign(**derived).reset_index(drop=True)
