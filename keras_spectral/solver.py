"""The thread that finds the spectra of records, beside training."""

import collections
import functools
import os
from concurrent.futures import ThreadPoolExecutor

import threadpoolctl

from keras_spectral.records import decoded
from keras_spectral.spectra.pile import Pile

BACKLOG_BYTES = 5_000_000
"""Training waits when several buffers, of more bytes than this, are on their way to the thread."""


class Solver:
    """Turns records into logs, in a thread that all solvers share.

    An interrupt reaches the main thread alone: whatever was handed over is solved, and what was not
    yet taken from here is there at the next call.
    """

    def __init__(self):
        self._jobs = collections.deque()
        self._made = []
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

    def done(self):
        """Return what has been made so far of the records handed over, each once.

        Waits if too many bytes are on their way, though never for the latest records.

        Returns:
            List of `SpectralLog`, and of exceptions in place of what cannot be solved.
        """
        while self._jobs and (self._jobs[0][1].done() or self._overloaded()):
            self._made += self._jobs[0][1].result()
            self._jobs.popleft()
        made, self._made = self._made, []
        return made

    def rest(self, membership):
        """Wait until everything handed over is solved.

        Args:
            membership: As in `submit`.

        Returns:
            List as in `done`.
        """
        self._submit(0, self._pile.rest, membership)
        self._jobs[-1][1].result()  # the thread takes them in order
        return self.done()

    def _overloaded(self):
        return len(self._jobs) > 1 and sum(size for size, _ in self._jobs) > BACKLOG_BYTES

    def _submit(self, n_bytes, job, membership):
        self._jobs.append((n_bytes, solving_thread(os.getpid()).submit(_logs, job, membership)))


def _logs(job, membership):
    # BLAS threads wait by spinning, on the cores that training needs.
    with _blas().limit(limits=1, user_api="blas"):
        return [_log(found, membership) for found in job()]


def _log(found, membership):
    if isinstance(found, Exception):
        return found
    try:
        return decoded(found, membership)
    except Exception as error:
        return error


@functools.cache
def solving_thread(pid):
    """Return the executor of the one thread of a process, as the limit of BLAS threads is its too.

    Args:
        pid: The process' number.
    """
    del pid  # a fork has no threads and needs its own
    return ThreadPoolExecutor(1, "keras_spectral")


@functools.cache
def _blas():
    return threadpoolctl.ThreadpoolController()
