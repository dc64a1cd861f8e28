"""What one step leaves in the buffer: written by the graph as two flat vectors, read back by NumPy.

Letters: `g` group, `k` rank of a singular value, `s` shared position.

A record's integers are `step, epoch, n`, the positions `s` of each weight, the examples of each
group. Its numbers are, for the whole batch and then for the groups, for each series (a weight and
a quantity), the norms `[g]` and the singular values `[g, k]`. `k` follows from the integers.
"""

from typing import NamedTuple

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
    """

    weights: list
    quantities: tuple
    top_k: int | None
    membership: object

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
        `(integers, numbers)`: int64 and float64 vectors.
    """
    integers = [n, *(tf.shape(factor.activation)[1] for factor in factors)]
    integers = tf.cast(tf.stack(integers), tf.int64)
    if rows is not None:
        integers = tf.concat([integers, tf.cast(rows.count, tf.int64)], 0)
    found = spectra(factors, rows, settings.quantities, settings.method, sizes)
    parts = []
    for block in range(1 if rows is None else 2):
        for result in found:
            for quantity in settings.quantities:
                sigma, norm = result[quantity][block]
                parts += [norm, tf.reshape(sigma[:, : settings.top_k], [-1])]
    return integers, tf.concat(parts, 0)


def decoded(integers, numbers, layout):
    """Return the log of all records in a drained buffer.

    Args:
        integers: int64 array, the integers of all records one after the other.
        numbers: float64 array, likewise.
        layout: `Layout` under which they were recorded.

    Returns:
        A `SpectralLog`: a row per present group, relabelled pseudo-groups as summaries.
    """
    n_weights = len(layout.weights)
    heads = integers.reshape(-1, 3 + n_weights + len(layout.membership.names))
    sizes = np.delete(heads, [0, 1, *range(3, 3 + n_weights)], axis=1)  # [r, 1 + g]
    positions = np.repeat(heads[:, 3 : 3 + n_weights], len(layout.quantities), axis=1)
    n_rows = sizes[:, None, :] * positions[:, :, None]  # [r, series, 1 + g]
    bounds = np.minimum(n_rows, layout.widths[:, None])
    kept = np.minimum(bounds, layout.top_k or bounds.max())
    norm, sigma = _spectra_of(numbers, kept)
    frame = {
        "run": np.full(1, "", dtype=object)[:, None, None],
        "epoch": heads[:, 1, None, None],
        "step": heads[:, 0, None, None],
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


def _spectra_of(numbers, kept):
    # The groups of a record share one padded width, that of the largest group.
    whole, groups = kept[:, :, 0], kept[:, :, 1:].max(axis=2, initial=0)
    n_groups = kept.shape[2] - 1
    groups = np.maximum(groups, 1) * (n_groups > 0)
    lengths = (1 + whole).sum(axis=1) + n_groups * (1 + groups).sum(axis=1)
    starts = np.cumsum(lengths) - lengths
    norm = np.empty(kept.shape)
    sigma = np.full((*kept.shape, kept.max()), np.nan)
    shapes, shape_of = np.unique(
        np.concatenate([whole, groups], axis=1), axis=0, return_inverse=True
    )
    for shape, (whole, groups) in enumerate(np.split(row, 2) for row in shapes):
        members = np.flatnonzero(shape_of == shape)
        part = numbers[starts[members, None] + np.arange(lengths[members[0]])]
        for columns, widths in ((slice(0, 1), whole), (slice(1, None), groups)):
            part = _unpacked(part, members, columns, widths, norm, sigma)
    sigma[np.arange(sigma.shape[3]) >= kept[..., None]] = np.nan
    return norm, sigma


def _unpacked(part, members, columns, widths, norm, sigma):
    n_groups = norm[:, 0, columns].shape[1]
    for j, k in enumerate(widths if n_groups else ()):
        norm[members, j, columns] = part[:, :n_groups]
        end = n_groups * (1 + k)
        values = part[:, n_groups:end].reshape(len(members), n_groups, k)
        sigma[members, j, columns, :k] = values[..., : sigma.shape[3]]
        part = part[:, end:]
    return part


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
