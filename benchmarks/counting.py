"""What a recorded step has to compute and to keep, counted from what the library chooses.

A count is of multiplications: of products of matrices in the graph and in the thread, and for every
eigenvalue problem the cube of its size. `Constants` turns counts into time on one machine.
"""

import math
import timeit
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf

from benchmarks.one_core import one_core
from keras_spectral.settings import QUANTITIES
from keras_spectral.spectra.eigen import LARGEST, eigenvalues
from keras_spectral.spectra.example_sums import ExampleSums
from keras_spectral.spectra.factor_grams import FactorGrams
from keras_spectral.spectra.factors import Factors
from keras_spectral.spectra.row_grams import RowGrams
from keras_spectral.spectra.stacks import stacks_for

ROOT_AND_PRODUCTS = 1 / 3 + 2
"""Multiplications of a Cholesky factor `L` and of `Lᵀ K L`, in cubes of their size."""

EIGENVALUE_SIZES = (16, 32, 64, 128, 256, 512, 1024, 2048)
"""Sizes of eigenvalue problems that are timed."""

SIDE_BY_SIDE = 64
"""Small eigenvalue problems that are timed together, as they are solved."""

PRODUCT = (1, 1024, 512)
"""Rows and features of the matrix whose products are timed."""


@dataclass
class Work:
    """What one recorded step does.

    Attributes:
        in_graph: Multiplications of products in the graph, by all cores.
        in_thread: Multiplications of products in the thread, by one core.
        eigen: `Counter` of the sizes of the eigenvalue problems.
        kept: Bytes that a step puts into the queue, but for the mask.
        condensed: Bytes of the same when the thread has condensed it.
        sides: Dictionary from the quantity to a set of "rows", "features" and "examples".
    """

    in_graph: float = 0.0
    in_thread: float = 0.0
    eigen: Counter = field(default_factory=Counter)
    kept: int = 0
    condensed: int = 0
    sides: dict = field(default_factory=dict)

    @property
    def side(self):
        """The side in a word, or those of each quantity."""
        different = set().union(*self.sides.values())
        if len(different) == 1:
            return different.pop()
        return ", ".join(f"{'/'.join(sorted(own))} of {q}" for q, own in self.sides.items())


def work_of(weights, examples, groups):
    """Return what a step does that records dense layers, three quantities, exactly.

    Args:
        weights: List of `(positions, inputs, outputs)` of each weight.
        examples: Examples of the batch.
        groups: Groups of equal size, which divide the batch.

    Returns:
        `Work`.
    """
    sizes = (examples, *[examples / groups] * groups)
    with tf.Graph().as_default():  # shapes without data
        factors = [
            Factors(*(tf.compat.v1.placeholder(tf.float32, (examples, s, w)) for w in widths))
            for s, *widths in weights
        ]
        stacks = stacks_for(factors, QUANTITIES, "auto", sizes)
        work = Work()
        for stack in stacks:
            if isinstance(stack, RowGrams):
                _add_rows(work, stack, factors, sizes)
            else:
                _add_features(work, stack, factors, sizes)
            if isinstance(stack, FactorGrams | ExampleSums):
                own = [(factors[kept.weight], kept.name) for kept in stack.factors]
                numbers = sum(factor.positions(name) * factor.width(name) for factor, name in own)
                work.kept += 4 * examples * numbers
    return work


def _add_rows(work, stack, factors, sizes):
    blocks = [n * stack.positions for n in sizes]
    rows = int(blocks[0])
    for (j, name), thin in zip(stack.factors, stack.thin, strict=True):
        width = factors[j].width(name)
        work.kept += 4 * rows * width
        work.condensed += 8 * rows * max(rows, *stack.thin)
        work.in_thread += 0 if thin else rows**2 * width
    thin = dict(zip(stack.factors, stack.thin, strict=True))
    for j, quantity in stack.wanted:
        work.sides.setdefault(quantity, set()).add("rows")
        both = [(j, "activation"), (j, "adjoint")]
        own = both if quantity == "gradient" else [(j, quantity)]
        widths = sorted(thin[name] for name in own if thin[name])
        for block in blocks:
            d = widths[0] if widths else block
            work.eigen[math.ceil(d)] += 1
            if quantity != "gradient":
                work.in_thread += block * d**2 if widths else 0
            elif widths:
                other = widths[1] if len(widths) == 2 else 0
                work.in_thread += block**2 * (d + other) + block * d**2
            else:
                work.in_thread += ROOT_AND_PRODUCTS * block**3


def _add_features(work, stack, factors, sizes):
    by_example, in_thread = isinstance(stack, ExampleSums), bool(getattr(stack, "factors", ()))
    for j, quantity in stack.wanted:
        work.sides.setdefault(quantity, set()).add("examples" if by_example else "features")
        positions, d = factors[j].positions(quantity), factors[j].width(quantity)
        is_gradient = quantity == "gradient"
        i, o = factors[j].gradient_shape if is_gradient else (d, d)
        products = sizes[0] * positions * i * o  # groups divide it
        square = len(sizes) * d * d * max(i, o) if is_gradient else 0
        work.condensed += 8 * (sizes[0] * i * o if by_example else len(sizes) * d * d)
        sums = sizes[0] * len(sizes) * i * o if by_example else 0
        if in_thread:
            work.in_thread += products + sums + square
        elif by_example:
            work.in_graph += products
            work.in_thread += sums + square
            work.kept += 8 * sizes[0] * i * o
        else:
            work.in_graph += products + square
            work.kept += 8 * len(sizes) * d * d
        work.eigen[d] += len(sizes)


@dataclass(frozen=True)
class Constants:
    """What counts cost on this machine, in nanoseconds.

    Attributes:
        in_graph: A multiplication of a float64 product by TensorFlow, all cores.
        in_thread: The same by NumPy, one core.
        eigen: Dictionary from size `d` to one `d`³-th of an eigenvalue problem, one core.
        product: Dictionary from size `d` to a multiplication of a product of two such matrices.
    """

    in_graph: float
    in_thread: float
    eigen: dict
    product: dict

    def eigen_seconds(self, d):
        """Return the time of one eigenvalue problem; beyond the largest measured, by its cube."""
        known = sorted(self.eigen)
        cube = np.interp(math.log(max(d, 1)), np.log(known), [self.eigen[k] for k in known])
        return cube * d**3 / 1e9

    def parts(self, work):
        """Return what a recorded step needs: `{part: seconds}`, were nothing done beside it."""
        return {
            "products in the graph": self.in_graph * work.in_graph / 1e9,
            "products in the thread": self.in_thread * work.in_thread / 1e9,
            "eigenvalues": sum(self.eigen_seconds(d) * k for d, k in work.eigen.items()),
        }


def measured_constants():
    """Return the `Constants` of this machine."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal(PRODUCT)
    count = rows.size * rows.shape[-1]
    tensor = tf.constant(rows)
    in_graph = _seconds(lambda: tf.matmul(tensor, tensor, transpose_a=True).numpy()) / count
    eigen, product = {}, {}
    with one_core():
        in_thread = _seconds(lambda: rows @ rows.swapaxes(-1, -2)) / (rows.size * rows.shape[-2])
        for d in EIGENVALUE_SIZES:
            number = SIDE_BY_SIDE if d <= LARGEST else 1
            matrices = rng.standard_normal((number, d, d))
            grams = matrices @ matrices.swapaxes(-1, -2)
            repeats = 5 if d < 1024 else 3
            each = number * d**3
            eigen[d] = _seconds(lambda: eigenvalues(grams), repeats) / each * 1e9  # noqa: B023
            product[d] = _seconds(lambda: matrices @ matrices, repeats) / each * 1e9  # noqa: B023
    return Constants(in_graph * 1e9, in_thread * 1e9, eigen, product)


def _seconds(work, repeats=5):
    return min(timeit.repeat(work, number=1, repeat=repeats))
