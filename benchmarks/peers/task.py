"""What a peer is given, and what it must offer. NumPy alone."""

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from benchmarks.peers import oracle

CHECK = "small MLP"
"""Name of the network whose spectra `oracle` knows."""

STEPS = 16
"""Batches that a peer goes round in."""

GROUPS = ("a", "b", "all")

QUANTITIES = ("activation", "adjoint", "gradient")

GRADIENT = ("gradient",)
"""What peers find that do not see activations and adjoints."""


@dataclass(frozen=True)
class Task:
    """A network by its name, and data for it.

    Attributes:
        network: `CHECK`, or a key of `benchmarks.workloads.WORKLOADS`.
        x: Inputs of all examples.
        y: Targets, 0 or 1.
        labels: Group of each example, "a" or "b".
        batch: Examples of a batch.
    """

    network: str
    x: np.ndarray
    y: np.ndarray
    labels: np.ndarray
    batch: int

    def batches(self):
        """Yield `(x, y, masks [group, n])` for ever, group by group as in `GROUPS`."""
        whole = np.ones(len(self.y), bool)
        masks = np.stack([self.labels == "a", self.labels == "b", whole])
        for begin in itertools.cycle(range(0, len(self.y), self.batch)):
            chosen = slice(begin, begin + self.batch)
            yield self.x[chosen], self.y[chosen], masks[:, chosen]


def check_task():
    """Return one batch for the network whose spectra are known."""
    x, y, labels = oracle.data()
    return Task(CHECK, x, y, labels, len(y))


class Loop:
    """Trains batch after batch, and keeps what the last step returned.

    Args:
        step: Function of `x`, `y` and `masks` that trains one step.
        task: `Task`.
    """

    def __init__(self, step, task):
        self._step = step
        self._batches = task.batches()
        self.result = None

    def __call__(self, seconds):
        """Train one step, and more until so many seconds are over.

        Returns:
            Milliseconds per step, number of steps.
        """
        begin, number = time.perf_counter(), 0
        while not number or time.perf_counter() - begin < seconds:
            self.result = self._step(*next(self._batches))
            number += 1
        return (time.perf_counter() - begin) / number * 1e3, number


class Peer(NamedTuple):
    """Training without recording, and with.

    Attributes:
        plain: Function of seconds, as `Loop`.
        recorded: The same.
        found: Function that returns what the last recorded step found: singular values by
            `(layer, quantity, group)`, or what `oracle.errors` compares in their place.
    """

    plain: Callable[[float], Any]
    recorded: Callable[[float], Any]
    found: Callable[[], dict]
