"""The thread that finds the spectra of records, beside training."""

import collections
import functools
import os
from concurrent.futures import ThreadPoolExecutor

import tensorflow as tf
import threadpoolctl

from keras_spectral.records import decoded, encoded
from keras_spectral.spectra.bases import Bases
from keras_spectral.spectra.pile import Pile
from keras_spectral.spectra.stacks import layout_for

BACKLOG_BYTES = 5_000_000
"""Training waits when several records, of more bytes than this, are on their way to the thread."""


class Solver:
    """Turns records into logs, in a thread that all solvers share.

    An interrupt reaches the main thread alone: whatever was handed over is solved, and what was not
    yet taken from here is there at the next call.

    Args:
        settings: `Spectra`.
    """

    def __init__(self, settings):
        self._settings = settings
        self._jobs = collections.deque()
        self._made = []
        self._pile = Pile()
        self._bases = Bases()
        self._layouts = {}
        self._membership = None

    def submit(self, record):
        """Hand over a record.

        Args:
            record: `Record`.
        """
        self._submit(record.nbytes, functools.partial(self._add, record))

    def done(self):
        """Return what has been made so far of the records handed over, each once.

        Waits if too many bytes are on their way, though never for the latest record.

        Returns:
            List of `SpectralLog`, and of exceptions in place of what cannot be solved.
        """
        while self._jobs and (self._jobs[0][1].done() or self._overloaded()):
            self._made += self._jobs[0][1].result()
            self._jobs.popleft()
        made, self._made = self._made, []
        return made

    def rest(self):
        """Wait until everything handed over is solved.

        Returns:
            List as in `done`.
        """
        self._submit(0, self._pile.rest)
        self._jobs[-1][1].result()  # the thread takes them in order
        return self.done()

    def _overloaded(self):
        return len(self._jobs) > 1 and sum(size for size, _ in self._jobs) > BACKLOG_BYTES

    def _submit(self, n_bytes, job):
        self._jobs.append((n_bytes, solving_thread(os.getpid()).submit(self._logs, job)))

    def _logs(self, job):
        # BLAS threads wait by spinning, on the cores that training needs.
        with _blas().limit(limits=1, user_api="blas"):
            try:
                found = job()
            except Exception as error:  # raised again where the log is asked for
                return [error]
            return [self._log(part) for part in found]

    def _add(self, record):
        found = self._pile.rest() if record.membership is not self._membership else []
        found = [self._log(part) for part in found]
        self._membership = record.membership
        layout = self._layout(record)
        if layout is None:
            return found
        return found + self._pile.add([encoded(layout, record, self._bases)], layout)

    def _layout(self, record):
        wanted = set(self._settings.quantities)
        for name in [n for n, f in record.factors.items() if not wanted & {*f.recorded}]:
            del record.factors[name]
        if not record.factors:
            return None
        shares = record.membership.mask.mean(axis=0) if record.mask.shape[1] else []
        sizes = (record.n, *(record.n * float(share) for share in shares))
        specs = tf.nest.map_structure(
            tf.type_spec_from_value, list(record.factors.values()), expand_composites=True
        )
        key = repr((list(record.factors), specs, sizes))
        if key not in self._layouts:
            s = self._settings
            self._layouts[key] = layout_for(record.factors, s.quantities, s.top_k, s.method, sizes)
        return self._layouts[key]

    def _log(self, found):
        if not hasattr(found, "layout"):
            return found  # a log, or an exception
        try:
            return decoded(found, self._membership)
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
