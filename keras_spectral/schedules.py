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
from statistics import median
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


@dataclass(frozen=True)
class budget:
    """Record as often as a part of the training time allows, at regular intervals.

    The first steps are timed: plain ones, and recorded ones until their spectra are found. Then
    every `interval`-th step is recorded, with the smallest interval of 1, 2, 5, 10, 20, 50, … with
    which recording takes at most `fraction` of the time of plain training. The next steps are
    recorded only once the time spent on the timed ones is within that fraction.

    Args:
        fraction: Time that recording may take, as a fraction of the time of plain training; above
            0 and below 10.
        interval: The interval if it is known, as from an earlier training; `None` to find it.
    """

    fraction: float = 0.1
    interval: int | None = None

    def __post_init__(self):
        is_number = isinstance(self.fraction, Real) and not isinstance(self.fraction, bool)
        if not is_number or not 0 < self.fraction < 10:
            raise SettingsError(
                "`fraction` must be a number above 0 and below 10. "
                f"Received: fraction={self.fraction!r}. Try fraction=0.1, a tenth."
            )
        if self.interval is not None:
            _require_positive("interval", self.interval)

    def __call__(self, step, epoch, batch):
        """Tell whether `step` is due by the interval found before, or is one of the first timed."""
        return step % (self.interval or TIMED_EVERY) == 0

    def started(self):
        """Return the schedule of a recording: itself, or one that times steps."""
        return self if self.interval else Budgeted(self.fraction)


TIMED_EVERY = 10
"""Steps between the recorded steps that are timed."""

TIMED = 3
"""Recorded steps that are timed; the first of them includes tracing and does not count."""


class Budgeted:
    """A schedule that finds its interval from the times of the first steps.

    Args:
        fraction: As in `budget`.

    Attributes:
        interval: Steps between recorded steps; `None` until it is found.
        plain: Seconds of a plain step, once the interval is found.
        extra: Seconds that a recorded step takes besides, likewise.
    """

    def __init__(self, fraction):
        self.fraction = fraction
        self.interval = self.plain = self.extra = None
        self._first = None
        self._seconds = {False: [], True: []}

    def __call__(self, step, epoch, batch):
        """Tell whether `step` is to be timed, or due by the interval and within the fraction."""
        if self._first is None:
            self._first = step
        if self.interval is None:
            return (step - self._first) % TIMED_EVERY == 0
        if step % self.interval:
            return False
        n_recorded, n_steps = len(self._seconds[True]) + 1, step - self._first + 1
        return n_recorded * self.extra <= self.fraction * self.plain * n_steps

    def observe(self, seconds, recorded):
        """Use the time of a step.

        Args:
            seconds: Duration in seconds, until its spectra were found.
            recorded: Whether it was recorded.

        Returns:
            Whether the interval has just been found.
        """
        self._seconds[recorded].append(seconds)
        plain, of_recorded = self._seconds[False][1:], self._seconds[True][1:]
        if self.interval is not None or not plain or len(of_recorded) < TIMED - 1:
            return False
        self.plain = median(plain)
        self.extra = max(0.0, min(of_recorded) - self.plain)
        allowed = self.fraction * self.plain
        steps = (lead * 10**power for power in range(9) for lead in (1, 2, 5))
        self.interval = next(n for n in steps if self.extra <= allowed * n or n >= 10**8)
        return True

    def facts(self):
        """Return what was found as plain data, for the provenance; empty until then."""
        if self.interval is None:
            return {}
        return {
            "fraction": self.fraction,
            "interval": self.interval,
            "plain_step_ms": round(1e3 * self.plain, 3),
            "recording_ms": round(1e3 * self.extra, 3),
        }


def interval_text(interval):
    """Return an interval that was found in words, such as `"every 5th step"`.

    Args:
        interval: Steps between recorded steps: 1, 2, 5, 10, 20, 50, …
    """
    return (
        "every step" if interval == 1 else f"every {interval}{'nd' if interval == 2 else 'th'} step"
    )


BY_NAME = {schedule.__name__: schedule for schedule in (every, epochs, at, logarithmic, budget)}


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
