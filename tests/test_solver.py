"""The thread that finds spectra: nothing handed over is lost, whatever happens."""

import threading
from concurrent.futures import Future

import numpy as np
import pytest
import tensorflow as tf

from keras_spectral.groups import Membership
from keras_spectral.matrices.factors import Factors
from keras_spectral.settings import Spectra
from keras_spectral.solver import Solver, solving_thread
from keras_spectral.spectra import batching
from keras_spectral.spectra.batching import Batching

NOBODY = Membership.of(None)


def submit(solver, step, n=2, membership=NOBODY):
    a = tf.fill([n, 1, 3], step + 1.0)
    factors = {("dense", "kernel"): Factors(a, a[..., :2])}
    groups = membership.mask[:n] if membership.names else np.zeros((n, 0), bool)
    solver.submit(step, 0, factors, groups, membership)


def steps(made):
    return [int(step) for log in made for step in log.steps]


def solver_of(*numbers):
    solver = Solver(Spectra())
    for step in numbers:
        submit(solver, step)
    return solver


def test_every_step_is_solved_once_and_in_order():
    solver, found = solver_of(), []
    for step in range(150):
        submit(solver, step, n=2 + (step % 50 == 49))  # the last batch of an epoch is another
        if step % 3 == 2:
            found += steps(solver.done())
    found += steps(solver.rest())
    assert sorted(found) == list(range(150))
    assert [step for step in found if step % 50 != 49] == [k for k in range(150) if k % 50 != 49]
    assert solver.rest() == solver.done() == []


def test_what_is_made_is_the_spectrum_of_the_step():
    (log,) = solver_of(4).rest()
    rows = log.rows
    assert rows["layer"].unique().tolist() == ["dense"]
    assert rows["quantity"].tolist() == ["activation", "adjoint", "gradient"]
    assert rows["batch_size"].tolist() == [2, 2, 2]
    wanted = [5 * np.sqrt(6), 5 * np.sqrt(4), 25 * 2 * np.sqrt(6)]  # of matrices of rank one
    np.testing.assert_allclose(log.sigma[:, 0], wanted)


def test_steps_bear_the_names_of_their_own_groups():
    solver = solver_of()
    sick, old = Membership.of(["ill", "well"]), Membership.of(["old", "young"])
    for step, membership in enumerate([sick, sick, old, NOBODY]):
        submit(solver, step, membership=membership)
    found = {}
    for log in solver.rest():
        for step, group in zip(log.rows["step"], log.rows["group"], strict=True):
            found.setdefault(int(step), set()).add(group)
    sick, old = {"all", "ill", "well"}, {"all", "old", "young"}
    assert found == {0: sick, 1: sick, 2: old, 3: {"all"}}


@pytest.fixture
def one_by_one(monkeypatch):
    """Every step is submitted to the thread alone."""
    monkeypatch.setattr("keras_spectral.solver.HANDED_OVER_STEPS", 1)


# --- exceptions ---


def not_solved(monkeypatch, step):
    """Let there be no room for a step where it is solved with others."""
    original = batching._solved

    def out_of_memory(alike):
        if any(reduced.step == step for reduced in alike):
            raise MemoryError("no room")
        return original(alike)

    monkeypatch.setattr(batching, "_solved", out_of_memory)


def not_reduced(monkeypatch, number):
    """Let there be no room for a step where it is reduced."""
    original = Batching.add

    def out_of_memory(self, step):
        if step.step == number:
            raise MemoryError("no room")
        return original(self, step)

    monkeypatch.setattr(Batching, "add", out_of_memory)


@pytest.mark.parametrize(
    ("waiting", "together"), [("done", 1), ("done", 3), ("rest", 1), ("rest", 3), ("rest", 16)]
)
def test_what_cannot_be_solved_is_raised_as_it_is_and_loses_nothing_else(
    monkeypatch, waiting, together
):
    monkeypatch.setattr("keras_spectral.solver.HANDED_OVER_STEPS", together)
    not_solved(monkeypatch, 2)
    monkeypatch.setattr(batching, "TOGETHER", 2)
    monkeypatch.setattr("keras_spectral.solver.BACKLOG_BYTES", 0)
    solver = solver_of(*range(7))
    if waiting == "done":
        solver._hand_over()
    with pytest.raises(MemoryError, match="no room"):
        solver.done() if waiting == "done" else solver.rest()
    assert steps(solver.rest()) == [0, 1, 4, 5, 6]
    submit(solver, 7)
    assert steps(solver.rest()) == [7]


def test_other_batches_that_wait_with_what_cannot_be_solved_are_not_lost(monkeypatch):
    not_solved(monkeypatch, 2)
    solver = solver_of(0, 1)
    for step, n in ((2, 3), (3, 4), (4, 2)):
        submit(solver, step, n)
    with pytest.raises(MemoryError, match="no room"):
        solver.rest()
    assert sorted(steps(solver.rest())) == [0, 1, 3, 4]


def test_a_step_that_cannot_be_reduced_is_the_only_one_that_is_lost(monkeypatch):
    not_reduced(monkeypatch, 1)
    solver = solver_of(0, 1, 2)
    with pytest.raises(MemoryError, match="no room"):
        solver.rest()
    assert steps(solver.rest()) == [0, 2]


@pytest.mark.parametrize("what_fails", ["the step", "those before"])
def test_an_exception_where_groups_change_loses_and_renames_nothing_else(monkeypatch, what_fails):
    sick, old = Membership.of(["ill", "well"] * 2), Membership.of(["old", "young"] * 2)
    fail, lost = (not_reduced, 2) if what_fails == "the step" else (not_solved, 0)
    fail(monkeypatch, lost)
    solver = solver_of()
    for step, n, membership in ((0, 3, sick), (1, 4, sick), (2, 4, old), (3, 4, old)):
        submit(solver, step, n, membership)
    with pytest.raises(MemoryError, match="no room"):
        solver.rest()
    found = {}
    for log in solver.rest():
        for step, group in zip(log.rows["step"], log.rows["group"], strict=True):
            found.setdefault(int(step), set()).add(group)
    ill, aged = {"all", "ill", "well"}, {"all", "old", "young"}
    wanted = {step: ill if step < 2 else aged for step in range(4) if step != lost}
    assert found == wanted


# --- interrupts ---


def slowed(monkeypatch, slow=lambda alike: True):
    """Return an event for which the thread waits where steps are solved that are `slow`."""
    original, go = batching._solved, threading.Event()

    def slowly(alike):
        if slow(alike):
            go.wait()
        return original(alike)

    monkeypatch.setattr(batching, "_solved", slowly)
    return go


def test_an_interrupt_while_waiting_loses_nothing(monkeypatch):
    go, solver = slowed(monkeypatch), solver_of(0, 1)

    def interrupt(_):
        raise KeyboardInterrupt

    with monkeypatch.context() as interrupted:
        interrupted.setattr(Future, "result", interrupt)
        with pytest.raises(KeyboardInterrupt):
            solver.rest()
    go.set()
    assert steps(solver.rest()) == [0, 1]


@pytest.mark.parametrize("waiting", ["done", "rest"])
def test_an_interrupt_at_a_later_wait_keeps_what_is_made_already(monkeypatch, waiting, one_by_one):
    monkeypatch.setattr(batching, "TOGETHER", 1)
    monkeypatch.setattr("keras_spectral.solver.BACKLOG_BYTES", 0)
    go = slowed(monkeypatch, lambda alike: alike[0].step > 0)
    solver, result = solver_of(0, 1, 2), Future.result
    first = [job for _, job in list(solver._jobs)[:2]]  # the one that begins its groups, and step 0

    def interrupted_if_it_waits(job):
        if not job.done() and job not in first:
            raise KeyboardInterrupt
        return result(job)

    with monkeypatch.context() as interrupted:
        interrupted.setattr(Future, "result", interrupted_if_it_waits)
        with pytest.raises(KeyboardInterrupt):
            solver.done() if waiting == "done" else solver.rest()
    go.set()
    assert steps(solver.rest()) == [0, 1, 2]


# --- backlog ---


@pytest.fixture
def slow_thread(monkeypatch):
    """An event for which the thread waits before it reduces a step."""
    original, go = Batching.add, threading.Event()

    def slowly(self, step):
        go.wait()
        return original(self, step)

    monkeypatch.setattr(Batching, "add", slowly)
    yield go
    go.set()


def test_training_waits_only_if_several_steps_are_on_their_way(
    monkeypatch, slow_thread, one_by_one
):
    monkeypatch.setattr("keras_spectral.solver.BACKLOG_BYTES", 10)  # less than one step
    solver = solver_of(0)
    assert solver.done() == []  # returns although nothing is done
    submit(solver, 1)
    threading.Timer(0.2, slow_thread.set).start()
    solver.done()
    assert slow_thread.is_set()
    assert steps(solver.rest()) == [0, 1]


def test_training_does_not_wait_for_a_few_small_steps(slow_thread, one_by_one):
    solver = solver_of(*range(5))
    assert solver.done() == []
    assert not slow_thread.is_set()
    slow_thread.set()
    assert steps(solver.rest()) == [0, 1, 2, 3, 4]


def test_a_backlog_is_counted_in_the_bytes_of_tensors(monkeypatch, slow_thread, one_by_one):
    monkeypatch.setattr("keras_spectral.solver.BACKLOG_BYTES", 3 * (2 * 3 + 2 * 2) * 4)
    solver = solver_of(0, 1, 2)
    assert solver.done() == []  # just as many
    submit(solver, 3)
    threading.Timer(0.2, slow_thread.set).start()
    solver.done()
    assert slow_thread.is_set()


# --- handing over ---


def test_small_steps_are_handed_over_together_and_large_ones_at_once(monkeypatch):
    solver = solver_of(0)
    n_before = len(solver._jobs)  # the one that begins the groups
    for step in range(1, 15):
        submit(solver, step)
    assert len(solver._jobs) == n_before
    submit(solver, 15)
    assert len(solver._jobs) == n_before + 1
    monkeypatch.setattr("keras_spectral.solver.HANDED_OVER_BYTES", 1)
    submit(solver, 16)
    submit(solver, 17)
    assert len(solver._jobs) == n_before + 3
    assert steps(solver.rest()) == list(range(18))


def test_waiting_hands_over_what_is_pending(monkeypatch):
    added, original = [], Batching.add
    monkeypatch.setattr(Batching, "add", lambda self, s: added.append(s.step) or original(self, s))
    solver = solver_of(0, 1)
    solver.wait()
    assert added == [0, 1]


def test_an_error_in_one_of_several_steps_handed_over_loses_no_other(monkeypatch):
    not_reduced(monkeypatch, 5)
    monkeypatch.setattr(batching, "TOGETHER", 1)
    solver = solver_of(*range(16))
    with pytest.raises(MemoryError, match="no room"):
        solver.rest()
    assert steps(solver.rest()) == [k for k in range(16) if k != 5]


# --- the thread ---


def test_all_solvers_of_a_process_share_one_thread(monkeypatch):
    threads, original = set(), Batching.add

    def noted(self, step):
        threads.add(threading.current_thread())
        return original(self, step)

    monkeypatch.setattr(Batching, "add", noted)
    for solver in (solver_of(0), solver_of(1)):
        solver.rest()
    assert len(threads) == 1
    assert threading.current_thread() not in threads


def test_a_fork_has_a_thread_of_its_own():
    assert solving_thread(1) is solving_thread(1)
    assert solving_thread(1) is not solving_thread(2)
