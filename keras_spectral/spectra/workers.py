"""Threads that help the one that solves: NumPy and compiled code run side by side.

Training waits where records come faster than they are solved, and its cores are free then. Each
piece of work is the same whoever does it, so no number depends on how many threads there are.

Pieces may be cut into smaller ones. So who waits for pieces does others meanwhile, of which an
executor of the standard library knows nothing: its threads would wait for each other.
"""

import functools
import math
import os
import threading

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


class _Crew:
    """Some threads, and who shares work with them."""

    def __init__(self, size):
        self._changed = threading.Condition()
        self._open = []  # functions without arguments, the last to be taken first
        for k in range(size):
            name = f"keras_spectral_helper_{k}"
            threading.Thread(target=self._help, name=name, daemon=True).start()

    def share(self, work, items):
        """Return what a function makes of each item, as `spread` does."""
        found = [None] * len(items)

        def do(place):
            try:
                result = work(items[place]), None
            except BaseException as error:
                result = None, error
            with self._changed:
                found[place] = result
                self._changed.notify_all()

        with self._changed:
            self._open += [functools.partial(do, place) for place in reversed(range(len(items)))]
            self._changed.notify_all()
        self._work_until(lambda: None not in found)
        for _, error in found:
            if error is not None:
                raise error
        return [result for result, _ in found]

    def _help(self):
        np.seterr(invalid="ignore", over="ignore")  # NaN and Inf are recorded as NaN
        self._work_until(lambda: False)

    def _work_until(self, done):
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._open or done())
                if done():
                    return
                piece = self._open.pop()
            piece()
