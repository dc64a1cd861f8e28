"""The thread that finds the spectra of recorded steps while training goes on."""

import collections
import concurrent.futures
import functools
import os
from concurrent.futures import ThreadPoolExecutor

import threadpoolctl

from keras_spectral.records import log_of
from keras_spectral.spectra.batching import Batching, Step

BACKLOG_BYTES = 5_000_000
"""Training waits when several steps with more bytes than this in all are waiting for the thread."""

HANDED_OVER_STEPS, HANDED_OVER_BYTES = 16, 1_000_000
"""Steps are submitted to the thread when there are so many of them, or so many bytes: to wake it
for every small one would take the main thread about as long as the step."""


class Solver:
    """Turns recorded steps into logs, in a thread that all solvers share.

    An interrupt is raised in the main thread only: submitted steps are solved all the same, and
    results that were not returned yet are returned by the next call.

    Args:
        settings: `Spectra`.
    """

    def __init__(self, settings):
        self._jobs = collections.deque()
        self._pending = []
        self._made = []
        self._made_beside_errors = []
        self._batching = Batching(settings)
        self._membership = None
        self._latest = None

    def submit(self, step, epoch, factors, mask, membership):
        """Take a recorded step, to be submitted to the thread alone or together with others.

        Args:
            step: Number of the step.
            epoch: Number of the epoch.
            factors: Dictionary `(layer path, weight name) -> Factors`.
            mask: Boolean array `[n, g - 1]`.
            membership: `Membership` of the training examples.
        """
        shares = membership.shares if mask.shape[1] else ()
        factors = {name: own.on_host() for name, own in factors.items()}
        given = Step(step, epoch, factors, mask, shares)
        if membership is not self._latest:
            self._hand_over()
            self._submit(0, self._rest)  # a job of its own: if it fails, this step is not lost
            self._latest = membership
        self._pending.append((given, sum(own.nbytes for own in factors.values())))
        n_bytes = sum(size for _, size in self._pending)
        if len(self._pending) >= HANDED_OVER_STEPS or n_bytes >= HANDED_OVER_BYTES:
            self._hand_over()

    @property
    def plan(self):
        """`Plan` of the last step that was reduced, or `None`."""
        return self._batching.last_plan

    def done(self):
        """Return the logs that are finished, each once.

        Waits if too many bytes are waiting for the thread, but never for the latest step alone.

        Returns:
            List of `SpectralLog`.

        Raises:
            Exception: An error of the thread. Other results are returned by the next call.
        """
        while self._jobs and (self._jobs[0][1].done() or self._overloaded()):
            self._take(self._jobs[0][1])
        made, self._made = self._made, []
        return made

    def wait(self):
        """Wait until all submitted steps are reduced, and those with large statistics solved."""
        self._hand_over()
        concurrent.futures.wait([job for _, job in self._jobs])

    def rest(self):
        """Wait until all submitted steps are solved, and return their logs.

        Returns:
            List as in `done`.

        Raises:
            Exception: As in `done`.
        """
        self._hand_over()
        self._submit(0, self._rest)
        while self._jobs:
            self._take(self._jobs[0][1])
        made, self._made = self._made, []
        return made

    def _take(self, job):
        try:
            self._made += job.result()
        except KeyboardInterrupt:  # while waiting: the job goes on
            raise
        except BaseException:
            self._jobs.popleft()
            made, self._made_beside_errors = self._made_beside_errors, []
            self._made += made
            raise
        self._jobs.popleft()

    def _overloaded(self):
        return len(self._jobs) > 1 and sum(size for size, _ in self._jobs) > BACKLOG_BYTES

    def _submit(self, n_bytes, job):
        self._jobs.append((n_bytes, solving_thread(os.getpid()).submit(_with_one_core, job)))

    def _hand_over(self):
        pending, self._pending = self._pending, []
        if pending:
            steps, sizes = zip(*pending, strict=True)
            self._submit(sum(sizes), functools.partial(self._add, steps, self._latest))

    def _add(self, steps, membership):
        before = [] if membership is self._membership else self._rest()
        self._membership = membership
        made, errors = before, []
        for step in steps:
            try:
                made = made + self._logs(self._batching.add(step))
            except Exception as error:  # raised below, when the other steps are done
                errors.append(error)
        if errors:
            self._made_beside_errors += made
            raise errors[0]
        return made

    def _rest(self):
        return self._logs(self._batching.rest())

    def _logs(self, solved):
        return [log_of(solved, self._membership)] if solved else []


@functools.cache
def solving_thread(pid):
    """Return the executor of the one solving thread of a process.

    There is one for all solvers, because the limit of BLAS threads belongs to the process too.

    Args:
        pid: The process id.
    """
    del pid  # a fork has no threads and needs its own
    return ThreadPoolExecutor(1, "keras_spectral")


def alone(job):
    """Return the result of a function, run in the solving thread with BLAS on one core.

    Args:
        job: Function without arguments.
    """
    return solving_thread(os.getpid()).submit(_with_one_core, job).result()


def _with_one_core(job):
    # Waiting BLAS threads spin on the cores that training needs.
    with _blas().limit(limits=1, user_api="blas"):
        return job()


@functools.cache
def _blas():
    return threadpoolctl.ThreadpoolController()
