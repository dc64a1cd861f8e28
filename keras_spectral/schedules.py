"""Schedules: which training steps are recorded.

A schedule is a plain Python function `(step, epoch, batch) -> bool`, called before every step.
`step` counts batches from 0 over the whole life of the model, `epoch` is the epoch of the current
`fit`, `batch` counts batches from 0 within that epoch; all three are `int`.

Example:
    >>> from keras_spectral import schedules
    >>> due = schedules.every(16)
    >>> [step for step in range(40) if due(step, 0, step)]
    [0, 16, 32]
"""

from dataclasses import asdict, dataclass
from functools import cached_property
from numbers import Real
from typing import Any

import numpy as np

from keras_spectral.errors import SettingsError


@dataclass(frozen=True)
class every:
    """Record every `n`-th step, the first one included.

    Args:
        n: Positive integer, in steps.
    """

    n: int = 1

    def __post_init__(self):
        _require_positive("n", self.n)

    def __call__(self, step, epoch, batch):
        """Tell whether `step` is due."""
        return step % self.n == 0


@dataclass(frozen=True)
class epochs:
    """Record once every `n` epochs: the first step of epochs 0, n, 2n and so on.

    Args:
        n: Positive integer, in epochs.
    """

    n: int = 1

    def __post_init__(self):
        _require_positive("n", self.n)

    def __call__(self, step, epoch, batch):
        """Tell whether `batch` is the first one of a due epoch."""
        return epoch % self.n == 0 and batch == 0


@dataclass(frozen=True)
class at:
    """Record at the given steps only.

    Args:
        steps: Sequence of non-negative integers.
    """

    steps: tuple[int, ...]

    def __post_init__(self):
        given = self.steps if np.ndim(self.steps) == 1 else ()
        steps = tuple(sorted({_whole_number("steps", step) for step in given}))
        if not steps or steps[0] < 0:
            raise SettingsError(
                "`steps` must hold at least one step, none negative. "
                f"Received: steps={self.steps}. Try `schedules.at([0, 10, 100])`."
            )
        object.__setattr__(self, "steps", steps)

    @cached_property
    def _among(self):
        return frozenset(self.steps)

    def __call__(self, step, epoch, batch):
        """Tell whether `step` is one of the given steps."""
        return step in self._among


@dataclass(frozen=True)
class logarithmic:
    """Record densely at first, then ever more rarely: about `per_decade` steps per factor of ten.

    The recorded steps are 0 and the distinct values of `round(10^(j / per_decade))`, up to 10^9.

    Args:
        per_decade: Positive integer.
    """

    per_decade: int = 10

    def __post_init__(self):
        _require_positive("per_decade", self.per_decade)

    @cached_property
    def steps(self):
        """All recorded steps below 10^9, as a sorted tuple."""
        powers = (round(10 ** (j / self.per_decade)) for j in range(9 * self.per_decade + 1))
        return (0, *sorted(set(powers)))

    @cached_property
    def _among(self):
        return frozenset(self.steps)

    def __call__(self, step, epoch, batch):
        """Tell whether `step` lies on the logarithmic grid."""
        return step in self._among


BY_NAME = {schedule.__name__: schedule for schedule in (every, epochs, at, logarithmic)}


def to_config(schedule) -> dict[str, Any]:
    """Return a schedule as plain data, for JSON.

    Args:
        schedule: A schedule of this module.

    Returns:
        A dictionary with the schedule's `name` and its arguments.

    Raises:
        SettingsError: If the schedule is a function of the user's, which has no plain form.
    """
    name = type(schedule).__name__
    if BY_NAME.get(name) is not type(schedule):
        raise SettingsError(
            "`every` must be a schedule of `keras_spectral.schedules` to be saved with a model. "
            f"Received: every={schedule!r}. Try `schedules.at(steps)`, or compile after loading."
        )
    return {"name": name, **asdict(schedule)}


def from_config(config):
    """Return the schedule that `to_config` described.

    Args:
        config: The dictionary made by `to_config`.

    Returns:
        A schedule of this module.
    """
    arguments = dict(config)
    return BY_NAME[arguments.pop("name")](**arguments)


def _whole_number(name, value):
    if isinstance(value, bool) or not isinstance(value, Real) or value % 1 != 0:
        raise SettingsError(f"`{name}` must hold whole numbers. Received: {name}={value!r}.")
    return int(value)


def _require_positive(name, value):
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise SettingsError(
            f"`{name}` must be a positive whole number. Received: {name}={value!r}. Try {name}=1."
        )
