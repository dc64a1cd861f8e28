"""Threads that help the one that solves: NumPy and compiled code run side by side.

Training waits where records come faster than they are solved, and its cores are free then. Each
piece of work is the same whoever does it, so no number depends on how many threads there are.

Pieces may be cut into smaller ones. So who waits for pieces works on them meanwhile, and on what
they are cut into, of which an executor of the standard library knows nothing: its threads would
wait for each other. It begins nothing else, of which it could not tell how deep that leads.
"""

import functools
import itertools
import math
import os
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

MOST = 8
"""Threads at most: the rest of a large machine is the user's."""

WORTH_HANDING_OVER = 10_000_000
"""Multiplications of a piece of work, at least: about half a millisecond."""

PIECES = 4
"""Pieces for each thread, at most: one that is late delays the others less."""


def spread(work, items, cost):
    """Return what a function makes of each of some items, in their order.

    Args:
        work: Function of one item, which no other thread disturbs.
        items: Sequence.
        cost: Multiplications that all of it takes, about.

    Raises:
        Exception: What the function raised, of the first such item.
    """
    if len(items) < 2 or _pieces(cost) < 2:
        return [work(item) for item in items]
    return _crew(os.getpid()).share(work, items)


def cut(n, cost, unit=1):
    """Return slices of some items that are alike, as many as are worth a thread each.

    Args:
        n: Number of items.
        cost: Multiplications that all of them take, about.
        unit: Items that are best done together: every slice but the last has a multiple of them.
    """
    size = unit * max(1, math.ceil(n / unit / _pieces(cost)))
    return [slice(begin, begin + size) for begin in range(0, n, size)]


def _pieces(cost):
    n = number()
    return 1 if n < 2 else int(max(1, min(PIECES * n, cost // WORTH_HANDING_OVER)))


def number():
    """Return how many threads there are: one for each core that the process may use, or `MOST`."""
    allowed = getattr(os, "sched_getaffinity", None)
    return min(MOST, len(allowed(0)) if allowed else os.cpu_count() or 1)


@functools.cache
def _crew(pid):
    del pid  # a fork has no threads and needs its own
    return _Crew(number() - 1)


class _Piece(NamedTuple):
    """A piece of work.

    Attributes:
        path: Tuple of numbers, of what it is a piece, the outermost first.
        run: Function without arguments.
    """

    path: tuple
    run: Callable[[], None]


_DONE = object()


class _Crew:
    """Some threads, and who shares work with them.

    Args:
        size: Number of threads; fewer if the system has no more.
    """

    def __init__(self, size):
        self._changed = threading.Condition()
        self._open = []  # the last to be taken first
        self._numbers = itertools.count()
        self._own = threading.local()
        for k in range(size):
            name = f"keras_spectral_helper_{k}"
            try:
                threading.Thread(target=self._help, name=name, daemon=True).start()
            except RuntimeError:
                break

    def share(self, work, items):
        """Return what a function makes of each item, as `spread` does."""
        found = [None] * len(items)
        before = getattr(self._own, "path", ())
        path = (*before, next(self._numbers))

        def do(place):
            try:
                result = work(items[place]), None
            except BaseException as error:
                result = None, error
            with self._changed:
                found[place] = result
                self._changed.notify_all()

        pieces = [_Piece(path, functools.partial(do, place)) for place in range(len(items))]
        with self._changed:
            self._open += reversed(pieces)
            self._changed.notify_all()
        del pieces  # each is there until it is done, and no longer
        self._work_until(lambda: None not in found, path)
        self._own.path = before
        for _, error in found:
            if error is not None:
                raise error
        return [result for result, _ in found]

    def _help(self):
        np.seterr(invalid="ignore", over="ignore")  # NaN and Inf are recorded as NaN
        self._work_until(lambda: False, ())

    def _work_until(self, done, path):
        while True:
            with self._changed:
                piece: Any = self._changed.wait_for(lambda: _DONE if done() else self._take(path))
            if piece is _DONE:
                return
            self._own.path = piece.path
            piece.run()
            del piece  # and with it all that was worked on

    def _take(self, path):
        """Remove and return the last open piece of some work, or `None`."""
        for place in reversed(range(len(self._open))):
            if self._open[place].path[: len(path)] == path:
                return self._open.pop(place)
        return None
