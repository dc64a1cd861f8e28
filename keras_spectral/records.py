"""What one step leaves in the buffer: written by the graph as two flat vectors, read back by NumPy.

Letters: `g` group, `k` rank of a singular value, `s` shared position.

A record's integers are `step, epoch, n`, the positions `s` of each weight, the examples of each
group. Its numbers are, for the whole batch and then for the groups, for each weight and quantity,
the norms `[g]` and the singular values `[g, k]`. `k` follows from the integers.
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

    def width(self, weight, quantity):
        """Return the largest number of singular values that the features allow."""
        *_, i, o = weight
        return {"activation": i, "adjoint": o, "gradient": min(i, o)}[quantity]


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
    n_groups = len(layout.membership.names)
    per_record = integers.reshape(-1, 3 + len(layout.weights) + n_groups)
    rows, values, position = [], [], 0
    for record in per_record:
        cells, sigmas, position = _decoded_record(record, numbers, position, layout)
        rows += cells
        values += sigmas
    return _as_log(rows, values, layout)


def _decoded_record(record, numbers, position, layout):
    step, epoch, n = record[:3]
    positions = record[3 : 3 + len(layout.weights)]
    counts = record[3 + len(layout.weights) :]
    spectra_of = {}
    for block in [np.array([n])] + ([counts] if len(counts) else []):
        largest = max(int(block.max()), 1)
        for weight, s in zip(layout.weights, positions, strict=True):
            for quantity in layout.quantities:
                k = min(largest * int(s), layout.width(weight, quantity), layout.top_k or 2**31)
                norm = numbers[position : position + len(block)]
                end = position + len(block) * (1 + k)
                sigma = numbers[position + len(block) : end].reshape(len(block), k)
                spectra_of.setdefault((weight, int(s), quantity), []).append((norm, sigma))
                position = end
    sizes = np.concatenate([[n], counts])
    cells = [(step, epoch, n, sizes, *key) for key in spectra_of]
    return cells, list(spectra_of.values()), position


def _as_log(cells, values, layout):
    names = np.array([ALL, *layout.membership.names], dtype=object)
    relabeling = np.concatenate([[0], layout.membership.relabeling])
    tables, sigmas = [], []
    for (step, epoch, n, sizes, weight, s, quantity), blocks in zip(cells, values, strict=True):
        present = sizes > 0
        bound = np.minimum(sizes * s, layout.width(weight, quantity))
        kept = np.minimum(bound, layout.top_k or 2**31)
        sigma = np.full((len(sizes), int(kept.max())), np.nan)
        sigma[0, : blocks[0][1].shape[1]] = blocks[0][1][0]
        if len(blocks) > 1:
            sigma[1:, : blocks[1][1].shape[1]] = blocks[1][1]
        sigma[np.arange(sigma.shape[1]) >= kept[:, None]] = np.nan
        table = {
            "epoch": epoch,
            "step": step,
            "layer": weight[0],
            "weight": weight[1],
            "quantity": quantity,
            "group": names,
            "relabeling": relabeling,
            "n_examples": sizes,
            "batch_size": n,
            "n_rows": sizes * s,
            "rank_bound": bound,
            "frobenius_norm": np.concatenate([norm for norm, _ in blocks]),
            "truncated": kept < bound,
        }
        tables.append({k: np.broadcast_to(v, len(sizes))[present] for k, v in table.items()})
        sigmas.append(sigma[present])
    return _split(tables, sigmas)


def _split(tables, sigmas):
    if not tables:
        return SpectralLog()
    rows = pd.DataFrame({k: np.concatenate([t[k] for t in tables]) for k in tables[0]})
    rows.insert(0, "run", "")
    width = max(sigma.shape[1] for sigma in sigmas)
    padded = [np.pad(s, ((0, 0), (0, width - s.shape[1])), constant_values=np.nan) for s in sigmas]
    sigma = np.concatenate(padded)
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
