"""Records of several steps, solved together, so that they share the fixed cost of operations.

Letters: `n` example, `g` group (the whole batch first), `k` rank of a singular value, `r` record.
"""

import itertools
from collections import defaultdict
from typing import Any, NamedTuple

import numpy as np

from keras_spectral.matrices.factors import WeightMatrices
from keras_spectral.matrices.members import Members
from keras_spectral.spectra.host import n_threads, parallel
from keras_spectral.spectra.plan import plan_for

TOGETHER = 64
"""Most records that are solved together."""

TOGETHER_SPECTRA = 2048
"""Fewer records are solved together if there are many groups: about this many spectra of each
weight and quantity."""

TOGETHER_BYTES = 1_000_000
"""Fewer records are solved together if their statistics are large: about this many bytes."""


class Step(NamedTuple):
    """A recorded step, to be reduced.

    Attributes:
        step: Number of the step.
        epoch: Number of the epoch.
        factors: Dictionary `(layer path, weight name) -> Factors`, in the order of the model.
        mask: Boolean array `[n, g - 1]`, which example is in which group.
        shares: Tuple with the share of each group among all examples: expected group sizes.
    """

    step: int
    epoch: int
    factors: Any
    mask: Any
    shares: tuple


class SolvedSteps(NamedTuple):
    """Singular values of the matrices of several steps.

    Attributes:
        plan: `Plan`.
        steps: Integer array `[r]`.
        epochs: Integer array `[r]`.
        sizes: Integer array `[r, g]`, the examples of the whole batch and of each group.
        norm: float64 array `[r, series, g]` of Frobenius norms; NaN where there is no example, or
            NaN or Inf in the matrix.
        sigma: float64 array `[r, series, g, k]`, largest first, NaN where there are fewer.
        residual: float64 array `[r, series, g]` of the Frobenius norms of the parts outside a
            subspace, 0 where a spectrum is exact; NaN like the norm.
    """

    plan: Any
    steps: Any
    epochs: Any
    sizes: Any
    norm: Any
    sigma: Any
    residual: Any

    @property
    def n_rows(self):
        """Integer array `[r, series, g]` of the rows of each matrix.

        For a gradient these are the rows of the adjoint.
        """
        positions = np.array([series.positions for series in self.plan.series])
        return self.sizes[:, None, :] * positions[:, None]

    @property
    def rank_bounds(self):
        """Integer array `[r, series, g]` of the largest possible ranks."""
        return _rank_bounds(self.plan, self.n_rows)

    @property
    def n_kept(self):
        """Integer array `[r, series, g]` of how many singular values are recorded."""
        bounds = self.rank_bounds
        return np.minimum(bounds, self.plan.top_k or bounds.max())


class Batching:
    """Reduces each recorded step as it arrives, and solves several together.

    Args:
        settings: `Spectra`.

    Attributes:
        last_plan: `Plan` of the last step, or `None`.
    """

    def __init__(self, settings):
        self._settings = settings
        self._plans = {}
        self._state = {}
        self._waiting = []
        self._found = []
        self.last_plan: Any = None

    def add(self, step):
        """Reduce a recorded step.

        Args:
            step: `Step`.

        Returns:
            List of `SolvedSteps` of steps added now or earlier, each returned once.
        """
        weights = {name: WeightMatrices(own) for name, own in step.factors.items()}
        plan = self.plan(weights, step)
        if not plan.series:
            return []
        self.last_plan = plan
        members = Members.of(step.mask)
        with _quietly():
            statistics = _of_each(
                plan, lambda number: plan.methods[number].reduce(weights, members, self._state)
            )
        self._waiting.append(_Reduced(plan, step.step, step.epoch, members.mask, statistics))
        enough = max(1, min(TOGETHER, TOGETHER_SPECTRA // members.n_groups))
        many = len(self._waiting) >= enough
        large = sum(reduced.nbytes for reduced in self._waiting) >= TOGETHER_BYTES
        return self.rest() if many or large else []

    def rest(self):
        """Solve all steps that are reduced and not yet solved.

        Returns:
            List as in `add`. If some could not be solved, all others come at the next call.
        """
        by_plan = defaultdict(list)
        for reduced in self._waiting:
            by_plan[id(reduced.plan), reduced.mask.shape].append(reduced)
        while by_plan:
            alike = by_plan.pop(next(iter(by_plan)))
            # Those that fail are lost, and no others.
            self._waiting = [reduced for others in by_plan.values() for reduced in others]
            with _quietly():
                self._found.append(_solved(alike))
        found, self._found = self._found, []
        return found

    def plan(self, weights, step):
        """Return the plan for a step; plans are cached by shapes and group sizes.

        Args:
            weights: Dictionary of `WeightMatrices`.
            step: `Step`.
        """
        n = len(step.mask)
        shapes = tuple((name, _signature(own)) for name, own in step.factors.items())
        key = n, step.shares, shapes
        if key not in self._plans:
            examples = (n, *(n * share for share in step.shares))
            self._plans[key] = plan_for(weights, self._settings, examples)
        return self._plans[key]


class _Reduced(NamedTuple):
    """A reduced step: a statistic for each method of its plan."""

    plan: Any
    step: int
    epoch: int
    mask: Any
    statistics: list

    @property
    def nbytes(self):
        return sum(statistic.nbytes for statistic in self.statistics)


def _signature(factors):
    return tuple(
        part
        if part is None
        else (part.shape, part.dtype)
        if hasattr(part, "shape")
        else tuple(sorted((k, _frozen(v)) for k, v in vars(part).items() if k[0] != "_"))
        for part in factors
    )


def _frozen(value):
    if isinstance(value, tuple):
        return tuple(map(_frozen, value))
    return (tuple(value.shape), value.dtype) if hasattr(value, "shape") else value


def _quietly():
    return np.errstate(invalid="ignore", over="ignore")  # NaN and Inf are recorded as NaN


def _solved(alike):
    plan = alike[0].plan
    masks = np.stack([reduced.mask for reduced in alike])
    sizes = masks.sum(axis=1)
    steps, epochs = (np.array([getattr(r, name) for r in alike]) for name in ("step", "epoch"))
    norm, residual = np.full((2, len(alike), len(plan.series), sizes.shape[1]), np.nan)
    found = SolvedSteps(plan, steps, epochs, sizes, norm, None, residual)
    kept = found.n_kept
    sigma = np.full((*kept.shape, kept.max()), np.nan)
    places = {(series.weight, series.quantity): p for p, series in enumerate(plan.series)}

    def solved(number):
        statistics = [reduced.statistics[number] for reduced in alike]
        return list(_solved_by(plan.methods[number], statistics, masks))

    solved_by = _of_each(plan, solved, len(alike))
    for method, of_method in zip(plan.methods, solved_by, strict=True):
        series = np.array([places[name] for name in method.wanted])
        for members, several in of_method:
            for solved in several:
                at = members[solved.records], series[solved.wanted], solved.groups
                norm[at], residual[at] = solved.norm, solved.residual
                values = solved.sigma[:, : sigma.shape[-1]]
                sigma[..., : values.shape[-1]][at] = values
    sigma[np.arange(sigma.shape[-1]) >= kept[..., None]] = np.nan
    return found._replace(sigma=sigma)


def _of_each(plan, work, times=1):
    """Return the results of a function for each method of a plan, by its number.

    A method that takes more than the share of a thread is divided among the threads by itself;
    the others are divided among them whole.

    Args:
        plan: `Plan`.
        work: Function of the number of a method.
        times: Number of records that it works on.
    """
    numbers = range(len(plan.methods))
    large = [k for k in numbers if plan.methods[k].cost * n_threads() > plan.cost]
    small = [k for k in numbers if k not in large]
    cost = times * sum(plan.methods[k].cost for k in small)
    found = {k: work(k) for k in large}
    found |= dict(zip(small, parallel(work, small, cost), strict=True))
    return [found[k] for k in numbers]


def _solved_by(method, statistics, masks):
    """Yield `(records, [Solved, …])` for each set of records with statistics of equal shape."""
    for members, alike in _of_one_shape(statistics):
        yield members, list(method.solve(alike, masks[members]))


def _of_one_shape(statistics):
    """Yield `(records, statistics)` for each shape: indices of records, statistics as one array."""
    order = sorted(range(len(statistics)), key=lambda r: statistics[r].shape)
    for _, alike in itertools.groupby(order, key=lambda r: statistics[r].shape):
        members = np.array(list(alike))
        first = statistics[members[0]]
        yield (
            members,
            first[None] if len(members) == 1 else np.stack([statistics[r] for r in members]),
        )


def _rank_bounds(plan, n_rows):
    widths = np.array([series.width for series in plan.series])
    bounded = np.array([series.bounded_by_rows for series in plan.series])
    bounds = np.broadcast_to(widths[:, None], n_rows.shape)
    return np.where(bounded[:, None], np.minimum(n_rows, bounds), bounds)
