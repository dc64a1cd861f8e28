"""Sums of products of what two arrays hold around the points of lattices. NumPy, or compiled.

Letters: `l` lattice, `i` row, `j` column.

A lattice has four axes, and its points lie in the memory of an array: at a sum of steps, as many
along each axis as the place of the point says.
"""

import itertools
from ctypes import c_int64, c_void_p
from typing import Any, NamedTuple

import numpy as np

from keras_spectral.spectra.compiled import compiled

AXES = 4
LANES = 8
"""Numbers that are read at once, from each column on."""

_TYPES = (c_void_p, c_void_p, c_int64, *[c_void_p] * 6, c_int64, c_void_p, c_int64, c_void_p)


class Points(NamedTuple):
    """The points of lattices in one of the arrays.

    Attributes:
        memory: float64 array of one axis.
        begins: Integer array `[l]`, the index of the first point of each.
        steps: Integer array `[AXES]`, the distance of neighbours along each axis.
    """

    memory: Any
    begins: Any
    steps: Any


def room_for(shape):
    """Return zeros of a shape, and the memory they lie in, where columns may end beyond them.

    Args:
        shape: Tuple of integers.

    Returns:
        `(array, memory)`, float64, the latter of one axis.
    """
    size = int(np.prod(shape))
    memory = np.zeros(size + LANES)
    return memory[:size].reshape(shape), memory


def lattice_products(left, right, sizes, rows, columns):
    """Sum over the points of each lattice the products of what lies around them.

    Args:
        left: `Points`.
        right: `Points`.
        sizes: Integer array `[l, AXES]`, the number of points along each axis.
        rows: Integer array `[i]`, where numbers of the left lie, from a point on.
        columns: Integer array `[j]`, where `LANES` numbers of the right each begin, from a point
            on. All lie in the memory.

    Returns:
        float64 array `[l, i, j, LANES]`.
    """
    found = np.zeros((len(sizes), len(rows), len(columns), LANES))
    add = compiled("lattice_products", *_TYPES)
    if add is None:
        for own, size, begin, other in zip(found, sizes, left.begins, right.begins, strict=True):
            _add(
                left._replace(begins=begin), right._replace(begins=other), size, rows, columns, own
            )
        return found
    begins, sizes, steps = (left.begins, right.begins), [sizes], (left.steps, right.steps)
    integers = [_integers(array) for array in (*begins, *sizes, *steps)]
    rows, columns = _integers(rows), _integers(columns)
    add(
        left.memory.ctypes.data,
        right.memory.ctypes.data,
        len(found),
        *(array.ctypes.data for array in integers),
        rows.ctypes.data,
        len(rows),
        columns.ctypes.data,
        len(columns),
        found.ctypes.data,
    )
    return found


def _integers(array):
    return np.ascontiguousarray(array, dtype=np.int64)


def _add(left, right, sizes, rows, columns, found):
    columns = (columns[:, None] + np.arange(LANES)).ravel()
    last = np.arange(sizes[-1])
    for first in itertools.product(*map(range, sizes[:-1])):
        at, to = (
            (part.begins + np.dot(first, part.steps[:-1]) + last * part.steps[-1])[:, None]
            for part in (left, right)
        )
        products = left.memory[at + rows].T @ right.memory[to + columns]
        found += products.reshape(found.shape)
