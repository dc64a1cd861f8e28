"""What a recorded step has to compute and to hold, counted from what the library chooses.

A count is of multiplications: of float64 products of matrices, of which a Gram matrix needs half,
and for every eigenvalue problem the cube of its size. `Constants` turns counts into time on one
machine.
"""

import math
import timeit
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from benchmarks.one_core import one_core
from keras_spectral.matrices.factors import FACTORS, Factors, WeightMatrices
from keras_spectral.settings import Spectra
from keras_spectral.spectra.feature_gram import FeatureGram, FeatureGramByExample, GramOfEach
from keras_spectral.spectra.host import LARGEST, eigenvalues
from keras_spectral.spectra.plan import plan_for, sizes_of
from keras_spectral.spectra.row_gram import RowGram

FLOAT32, FLOAT64 = 4, 8
"""Bytes of a number."""

ROOT_AND_PRODUCTS = 1 / 3 + 2
"""Multiplications of a Cholesky factor `L` and of `Lᵀ K L`, in cubes of their size."""

EIGENVALUE_SIZES = (16, 32, 64, 128, 256, 512, 1024, 2048)
"""Sizes of eigenvalue problems that are timed."""

SIDE_BY_SIDE = 64
"""Small eigenvalue problems that are timed together, as they are solved."""

PRODUCT = 512
"""Size of the matrices whose product is timed."""


@dataclass
class Work:
    """What one recorded step does.

    Attributes:
        products: Multiplications of products.
        eigen: `Counter` of the sizes of the eigenvalue problems.
        factors: Bytes of activations and adjoints that a step hands over.
        statistics: Bytes of the statistics that they are reduced to.
        sides: Dictionary from the quantity to a set of "rows", "features", "examples" and "each".
    """

    products: float = 0.0
    eigen: Counter = field(default_factory=Counter)
    factors: int = 0
    statistics: int = 0
    sides: dict = field(default_factory=dict)

    @property
    def side(self):
        """The side as a text, or those of each quantity."""
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
    matrices = {}
    work = Work()
    for number, (s, *widths) in enumerate(weights):
        # Shapes without data.
        factors = [np.broadcast_to(np.float32(0), (examples, s, width)) for width in widths]
        matrices["", number] = WeightMatrices(Factors(*factors))
        work.factors += FLOAT32 * examples * s * sum(widths)
    for method in plan_for(matrices, Spectra(), sizes).methods:
        side, add = _COUNTED[type(method)]
        add(work, method, matrices, sizes)
        for _, quantity in method.wanted:
            work.sides.setdefault(quantity, set()).add(side)
    return work


def _add_rows(work, method, matrices, examples):
    blocks = [n * method.positions for n in examples]
    rows = int(blocks[0])
    work.statistics += FLOAT64 * len(method.factors) * rows * max(rows, *method.thin)
    thin = dict(zip(method.factors, method.thin, strict=True))
    for (weight, name), width in thin.items():
        work.products += 0 if width else rows**2 * matrices[weight].of(name).width / 2
    for weight, quantity in method.wanted:
        own = FACTORS if quantity == "gradient" else (quantity,)
        widths = sorted(thin[weight, name] for name in own if thin[weight, name])
        for block in blocks:
            d = widths[0] if widths else block
            work.eigen[math.ceil(d)] += 1
            if quantity != "gradient":
                work.products += block * d**2 if widths else 0
            elif widths:
                other = widths[1] if len(widths) == 2 else 0
                work.products += block**2 * (d + other) + block * d**2
            else:
                work.products += ROOT_AND_PRODUCTS * block**3


def _add_features(work, method, matrices, examples):
    by_example = isinstance(method, FeatureGramByExample)
    for weight, quantity in method.wanted:
        sizes = sizes_of(matrices[weight], quantity, examples)
        small, large = sorted((sizes.i, sizes.o or sizes.i))
        if sizes.o:
            work.products += sizes.products(small * large) + len(examples) * small**2 * large
        else:
            work.products += sizes.products(small**2 / 2)
        entries = examples[0] * small * large if by_example else len(examples) * small**2
        work.statistics += FLOAT64 * entries
        work.eigen[small] += len(examples)


def _add_each(work, method, matrices, examples):
    ((weight, quantity),) = method.wanted
    sizes = sizes_of(matrices[weight], quantity, examples)
    sides = [sorted((math.ceil(rows), sizes.i)) for rows in sizes.rows]
    work.products += sum(small**2 * large / 2 for small, large in sides)
    work.statistics += FLOAT64 * len(sides) * (1 + max(small for small, _ in sides))
    work.eigen.update(small for small, _ in sides)


_COUNTED = {
    RowGram: ("rows", _add_rows),
    FeatureGram: ("features", _add_features),
    FeatureGramByExample: ("examples", _add_features),
    GramOfEach: ("each", _add_each),
}


@dataclass(frozen=True)
class Constants:
    """How long what is counted takes on this machine, in nanoseconds of one core.

    Attributes:
        eigen: Dictionary from size `d` to one `d`³-th of an eigenvalue problem.
        products: Dictionary from size `d` to a multiplication of a product of two such matrices.
    """

    eigen: dict
    products: dict

    @property
    def product(self):
        """A multiplication of a float64 product of matrices of size `PRODUCT`."""
        return self.products[PRODUCT]

    def eigen_seconds(self, d):
        """Return the time of one eigenvalue problem; beyond the largest measured, by its cube."""
        known = sorted(self.eigen)
        cube = np.interp(math.log(max(d, 1)), np.log(known), [self.eigen[k] for k in known])
        return cube * d**3 / 1e9

    def parts(self, work):
        """Return what a recorded step needs: `{part: seconds}`, one after the other."""
        return {
            "products": self.product * work.products / 1e9,
            "eigenvalues": sum(self.eigen_seconds(d) * k for d, k in work.eigen.items()),
        }


def measured_constants(sizes=EIGENVALUE_SIZES):
    """Return the `Constants` of this machine.

    Args:
        sizes: Sizes of the matrices that are timed, `PRODUCT` among them.
    """
    rng = np.random.default_rng(0)
    eigen, products = {}, {}
    with one_core():
        for d in sizes:
            number = SIDE_BY_SIDE if d <= LARGEST else 1
            matrices = rng.standard_normal((number, d, d))
            grams = matrices @ matrices.swapaxes(-1, -2)
            repeats = 5 if d < 1024 else 3
            each = number * d**3
            eigen[d] = _seconds(lambda: eigenvalues(grams), repeats) / each * 1e9  # noqa: B023
            products[d] = _seconds(lambda: matrices @ matrices, repeats) / each * 1e9  # noqa: B023
    return Constants(eigen, products)


def _seconds(work, repeats):
    return min(timeit.repeat(work, number=1, repeat=repeats))
