"""What one step leaves in the buffer: written by the graph as two flat vectors, read back by NumPy.

Letters: `g` group, `k` rank of a singular value, `s` shared position, `p` spectra of a stack, `r`
record.

A record's integers are `step, epoch, n`, the positions `s` of each weight, the examples of each
group, and for the whole batch and then the groups the number `d` of singular values in each stack
of spectra. Its numbers are, in that order, the norms `[p, g]` and singular values `[p, g, d]` of
each stack.
"""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import tensorflow as tf

from keras_spectral.log import SpectralLog
from keras_spectral.spectra.groups import ALL
from keras_spectral.spectra.spectrum import spectra
from keras_spectral.spectra.summaries import SUMMARIES, SpectrumTable


class Layout(NamedTuple):
    """What is recorded at each step, and in which order.

    Attributes:
        weights: List of `(layer path, weight name, i, o)`.
        quantities: The recorded quantities.
        top_k: Largest number of singular values kept, or `None`.
        membership: `Membership` of the training examples, for its names.
        stacks: For each stack of spectra, its names `(weight index, quantity)`.
    """

    weights: list
    quantities: tuple
    top_k: int | None
    membership: Any
    stacks: tuple = ()

    @property
    def widths(self):
        """Largest number of singular values that the features allow, for each series."""
        limits = {"activation": lambda i, o: i, "adjoint": lambda i, o: o, "gradient": min}
        return np.array([limits[q](*w[2:]) for w in self.weights for q in self.quantities])

    def columns(self):
        """Return what is the same in every record, as arrays `[1, series, 1 + g]`."""
        series = [
            (*weight[:2], quantity) for weight in self.weights for quantity in self.quantities
        ]
        series = np.array(series, dtype=object).reshape(-1, 3)
        names = np.array([ALL, *self.membership.names], dtype=object)
        return {
            "layer": series[None, :, 0, None],
            "weight": series[None, :, 1, None],
            "quantity": series[None, :, 2, None],
            "group": names[None, None, :],
            "relabeling": np.concatenate([[0], self.membership.relabeling])[None, None, :],
        }


def encoded(factors, rows, n, settings, sizes):
    """Return the integers and numbers that one step leaves, without step and epoch.

    Args:
        factors: List of `Factors`, in the order of the layout's weights.
        rows: `GroupRows` of the batch, or `None`.
        n: Scalar tensor, the number of examples.
        settings: `Spectra`.
        sizes: Expected examples of the batch and of each group.

    Returns:
        `(integers, numbers, stacks)`: int64 and float64 vectors, and the layout's `stacks`.
    """
    integers = [n, *(tf.shape(factor.activation)[1] for factor in factors)]
    parts = []
    widths = []
    for block in spectra(factors, rows, settings.quantities, settings.method, sizes):
        for solved in block:
            sigma = solved.sigma[..., : settings.top_k]
            parts += [tf.reshape(solved.norm, [-1]), tf.reshape(sigma, [-1])]
            widths.append(tf.shape(sigma)[-1])
    counts = [] if rows is None else [rows.count]
    integers = tf.concat([tf.stack(integers), *counts, tf.stack(widths)], 0)
    return tf.cast(integers, tf.int64), tf.concat(parts, 0), tuple(s.names for s in block)


def decoded(integers, numbers, layout):
    """Return the log of all records in a drained buffer.

    Args:
        integers: int64 array, the integers of all records one after the other.
        numbers: float64 array, likewise.
        layout: `Layout` under which they were recorded.

    Returns:
        A `SpectralLog`: a row per present group, relabelled pseudo-groups as summaries.
    """
    n_weights, n_groups = len(layout.weights), len(layout.membership.names)
    n_widths = len(layout.stacks) * (2 if n_groups else 1)
    heads = integers.reshape(-1, 3 + n_weights + n_groups + n_widths)
    edges = np.cumsum([2, 1, n_weights, n_groups])
    moments, n, positions, counts, widths = np.split(heads, edges, axis=1)
    sizes = np.concatenate([n, counts], axis=1)  # [r, 1 + g]
    positions = np.repeat(positions, len(layout.quantities), axis=1)
    n_rows = sizes[:, None, :] * positions[:, :, None]  # [r, series, 1 + g]
    bounds = np.minimum(n_rows, layout.widths[:, None])
    kept = np.minimum(bounds, layout.top_k or bounds.max())
    norm, sigma = _spectra_of(numbers, widths, kept, layout)
    frame = {
        "run": np.full(1, "", dtype=object)[:, None, None],
        "epoch": moments[:, 1, None, None],
        "step": moments[:, 0, None, None],
        **layout.columns(),
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


def _spectra_of(numbers, widths, kept, layout):
    # Records whose stacks have equal widths lie in memory alike: unpacked together.
    n_groups = kept.shape[2] - 1
    norm = np.empty(kept.shape)
    sigma = np.full((*kept.shape, kept.max()), np.nan)
    lengths = _lengths(layout.stacks, widths, n_groups)
    starts = np.cumsum(lengths) - lengths
    shapes, shape_of = np.unique(widths, axis=0, return_inverse=True)
    for shape, shared in enumerate(shapes):
        members = np.flatnonzero(shape_of == shape)
        part = numbers[starts[members, None] + np.arange(lengths[members[0]])]
        _unpack(part, members, shared, layout, norm, sigma)
    sigma[np.arange(sigma.shape[3]) >= kept[..., None]] = np.nan
    return norm, sigma


def _lengths(stacks, widths, n_groups):
    spectra_per_stack = [len(names) for names in stacks]
    blocks = [1] if n_groups == 0 else [1, n_groups]
    counts = np.concatenate([np.multiply(spectra_per_stack, g) for g in blocks])
    return (counts * (1 + widths)).sum(axis=1)


def _unpack(part, members, widths, layout, norm, sigma):
    n_groups = norm.shape[2] - 1
    blocks = [slice(0, 1)] if n_groups == 0 else [slice(0, 1), slice(1, None)]
    order = [(block, names) for block in blocks for names in layout.stacks]
    for (block, names), d in zip(order, widths, strict=True):
        series = [j * len(layout.quantities) + layout.quantities.index(q) for j, q in names]
        shape = (len(members), len(names), norm[:, :, block].shape[2])
        n_norms = shape[1] * shape[2]
        values = part[:, n_norms : n_norms * (1 + d)].reshape(*shape, d)[..., : sigma.shape[3]]
        place = np.ix_(members, series)
        norm[:, :, block][place] = part[:, :n_norms].reshape(shape)
        sigma[:, :, block, : values.shape[3]][place] = values
        part = part[:, n_norms * (1 + d) :]


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
