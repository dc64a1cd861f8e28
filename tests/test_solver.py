"""The thread that finds spectra: nothing handed over is lost, whatever happens."""

import threading
from concurrent.futures import Future

import numpy as np
import pytest
from keras_spectral.spectra.layout import Layout, Weight
from keras_spectral.spectra.row_grams import RowGrams

from keras_spectral.groups import Membership
from keras_spectral.solver import Solver
from keras_spectral.spectra import pile

NOBODY = Membership.of(None)
STACK = RowGrams(((0, "activation"),), ((0, "activation"),), 1, (0,))
LAYOUT = Layout((Weight("dense", "kernel", (("activation", 3),), True),), None, (STACK,))


def record(step):
    a = np.full((2, 1, 3), step + 1, "f")
    return [np.array([step, 0, 1, 1]), np.zeros((2, 0), "u1"), a]


def steps(made):
    return [step for log in made for step in log.steps]


def test_every_record_is_solved_once_and_in_order():
    solver = Solver()
    found = []
    for first in range(0, 150, 3):
        solver.submit([record(step) for step in range(first, first + 3)], LAYOUT, NOBODY)
        found += steps(solver.done())
    found += steps(solver.rest(NOBODY))
    assert found == list(range(150))
    assert solver.rest(NOBODY) == solver.done() == []


def test_what_cannot_be_solved_costs_nothing_else(monkeypatch):
    original = pile._solved

    def out_of_memory(batches, layout):
        if any(2 in batch.heads[:, 0] for batch in batches):
            raise MemoryError("no room")
        return original(batches, layout)

    monkeypatch.setattr(pile, "_solved", out_of_memory)
    monkeypatch.setattr(pile, "TOGETHER", 2)
    solver = Solver()
    solver.submit([record(step) for step in range(7)], LAYOUT, NOBODY)
    error, *others = solver.rest(NOBODY)
    assert steps(others) == [0, 1, 4, 5, 6]
    assert isinstance(error, MemoryError)
    solver.submit([record(7)], LAYOUT, NOBODY)
    assert steps(solver.rest(NOBODY)) == [7]


def test_an_interrupt_while_waiting_loses_nothing(monkeypatch):
    solver, go = Solver(), threading.Event()
    original = pile._solved

    def slowly(*arguments):
        go.wait()
        return original(*arguments)

    monkeypatch.setattr(pile, "_solved", slowly)
    solver.submit([record(0), record(1)], LAYOUT, NOBODY)
    with monkeypatch.context() as interrupted:

        def interrupt(_):
            raise KeyboardInterrupt

        interrupted.setattr(Future, "result", interrupt)
        with pytest.raises(KeyboardInterrupt):
            solver.rest(NOBODY)
    go.set()
    assert steps(solver.rest(NOBODY)) == [0, 1]


@pytest.mark.parametrize("waiting", ["done", "rest"])
def test_an_interrupt_at_a_later_wait_keeps_what_is_made_already(monkeypatch, waiting):
    monkeypatch.setattr(pile, "TOGETHER", 1)
    monkeypatch.setattr("keras_spectral.solver.BACKLOG_BYTES", 0)
    original, go = pile._solved, threading.Event()

    def slow_after_the_first(batches, layout):
        if batches[0].heads[0, 0] > 0:
            go.wait()
        return original(batches, layout)

    monkeypatch.setattr(pile, "_solved", slow_after_the_first)
    solver = Solver()
    for step in range(3):
        solver.submit([record(step)], LAYOUT, NOBODY)
    result = Future.result

    def interrupted_if_it_waits(job):
        if not job.done() and job is not first:
            raise KeyboardInterrupt
        return result(job)

    first = solver._jobs[0][1]
    with monkeypatch.context() as interrupted:
        interrupted.setattr(Future, "result", interrupted_if_it_waits)
        with pytest.raises(KeyboardInterrupt):
            solver.done() if waiting == "done" else solver.rest(NOBODY)
    go.set()
    assert steps(solver.rest(NOBODY)) == [0, 1, 2]


def test_training_waits_only_if_several_buffers_are_on_their_way(monkeypatch):
    solver, go = Solver(), threading.Event()
    original = solver._pile.add

    def slowly(*arguments):
        go.wait()
        return original(*arguments)

    monkeypatch.setattr(solver._pile, "add", slowly)
    monkeypatch.setattr("keras_spectral.solver.BACKLOG_BYTES", 10)  # less than one record
    solver.submit([record(0)], LAYOUT, NOBODY)
    assert solver.done() == []  # returns although nothing is done
    solver.submit([record(1)], LAYOUT, NOBODY)
    threading.Timer(0.2, go.set).start()
    solver.done()
    assert go.is_set()
