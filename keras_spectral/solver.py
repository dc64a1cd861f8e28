"""The thread that finds the spectra of records, beside training."""

import functools
from concurrent.futures import ThreadPoolExecutor

import threadpoolctl

from keras_spectral.records import condensed, decoded

TOGETHER = 64
"""Records that are solved together: what is done once for all of them costs each little."""

TOGETHER_SPECTRA = 2048
"""Fewer records are solved together if there are many groups: about this many of each series."""

TOGETHER_BYTES = 2_000_000
"""Fewer records are solved together if they are large, condensed: about this many bytes."""


class Solver:
    """Turns records into logs, in one thread of its own.

    Records are condensed as they come and solved when there are enough of them. The thread works
    on one thing at a time: `wait` comes before anything else.
    """

    def __init__(self):
        self._thread = ThreadPoolExecutor(1, "keras_spectral")
        self._job = None
        self._waiting = []
        self._waits_for = None, None
        self._logs = []

    def submit(self, records, layout, membership):
        """Hand over some records.

        Args:
            records: List of records, as `encoded` made them, in NumPy arrays.
            layout: `Layout` under which they were recorded.
            membership: `Membership` of the training examples, for its names.
        """
        self._job = self._thread.submit(_quietly, self._take, records, layout, membership)

    def submit_rest(self):
        """Have all that still waits for company solved."""
        self._job = self._thread.submit(_quietly, self._solve)

    def wait(self):
        """Wait for the thread. What it raised is raised here, once, and the records are lost.

        Returns:
            List of `SpectralLog`, those made since the last call.
        """
        if self._job is not None:
            error = self._job.exception()  # may be interrupted: the job is then waited for again
            self._job = None
            if error is not None:
                raise error
        logs, self._logs = self._logs, []
        return logs

    def _take(self, records, layout, membership):
        if self._waits_for[0] != layout or self._waits_for[1] is not membership:
            self._solve()
            self._waits_for = layout, membership
        for record in records:
            self._waiting.append(condensed(record, layout))
            if len(self._waiting) >= _number_together(self._waiting[-1]):
                self._solve()

    def _solve(self):
        records, self._waiting = self._waiting, []
        if records:
            self._logs.append(decoded(records, *self._waits_for))


def _number_together(record):
    _, mask, *arrays = record
    n_bytes = sum(array.nbytes for array in arrays)
    return min(TOGETHER, TOGETHER_SPECTRA // (1 + mask.shape[1]), TOGETHER_BYTES // max(1, n_bytes))


def _quietly(job, *arguments):
    # BLAS threads wait by spinning, on the cores that training needs.
    with _blas().limit(limits=1, user_api="blas"):
        job(*arguments)


@functools.cache
def _blas():
    return threadpoolctl.ThreadpoolController()
