"""The thread that finds the spectra of records, beside training."""

import collections
import functools
from concurrent.futures import ThreadPoolExecutor

import threadpoolctl

from keras_spectral.records import decoded
from keras_spectral.spectra.pile import Pile

BACKLOG_BYTES = 4_000_000
"""Records that wait for the thread hold at most about this many bytes; then training waits."""


class Solver:
    """Turns records into logs, in one thread of its own.

    An interrupt reaches the main thread alone: whatever was handed over is solved, and what was not
    yet taken from here is there at the next call.
    """

    def __init__(self):
        self._thread = ThreadPoolExecutor(1, "keras_spectral")
        self._jobs = collections.deque()
        self._pile = Pile()

    def submit(self, records, layout, membership):
        """Hand over some records.

        Args:
            records: List of records, as `records.encoded` made them, in NumPy arrays.
            layout: `Layout` under which they were recorded.
            membership: `Membership` of the training examples, for its names.
        """
        n_bytes = sum(part.nbytes for record in records for part in record)
        self._submit(n_bytes, functools.partial(self._pile.add, records, layout), membership)

    def submit_rest(self, membership):
        """Have everything solved that still waits for company.

        Args:
            membership: As in `submit`.
        """
        self._submit(0, self._pile.rest, membership)

    def logs(self, most_bytes=BACKLOG_BYTES):
        """Yield what has been made of the records handed over, each once.

        Args:
            most_bytes: Wait until what is not yet done holds no more than this.

        Yields:
            `SpectralLog`.
        """
        while self._jobs and (self._jobs[0][1].done() or self._backlog() > most_bytes):
            logs = self._jobs[0][1].exception() or self._jobs[0][1].result()
            self._jobs.popleft()
            if isinstance(logs, BaseException):
                raise logs
            yield from logs

    def _backlog(self):
        return sum(n_bytes for n_bytes, _ in self._jobs)

    def _submit(self, n_bytes, job, membership):
        # At least one byte, so that `most_bytes=0` waits for every job.
        self._jobs.append((n_bytes + 1, self._thread.submit(_logs, job, membership)))


def _logs(job, membership):
    # BLAS threads wait by spinning, on the cores that training needs.
    with _blas().limit(limits=1, user_api="blas"):
        return [decoded(spectra, membership) for spectra in job()]


@functools.cache
def _blas():
    return threadpoolctl.ThreadpoolController()
