"""The thread that finds spectra: nothing handed over is lost, whatever happens."""

import threading

import numpy as np
import pytest

from keras_spectral.solver import Solver
from keras_spectral.spectra import pile
from keras_spectral.spectra.groups import Membership
from keras_spectral.spectra.layout import Layout
from keras_spectral.spectra.row_grams import RowGrams

NOBODY = Membership.of(None)
STACK = RowGrams(((0, "activation"),), ((0, "activation"),), 1)
LAYOUT = Layout((("dense", "kernel", 3, 2),), ("activation",), None, (STACK,))


def record(step):
    a = np.full((2, 1, 3), step + 1, "f")
    return [np.array([step, 0, 1]), np.zeros((2, 0), "u1"), a]


def steps(logs):
    return [step for log in logs for step in log.steps]


def test_every_record_is_solved_once_and_in_order():
    solver = Solver()
    for first in range(0, 150, 3):
        solver.submit([record(step) for step in range(first, first + 3)], LAYOUT, NOBODY)
    found = steps(solver.logs())
    solver.submit_rest(NOBODY)
    found += steps(solver.logs(most_bytes=0))
    assert found == list(range(150))
    assert steps(solver.logs(most_bytes=0)) == []


def test_what_cannot_be_solved_is_said_once_and_the_rest_goes_on(monkeypatch):
    solver = Solver()
    with monkeypatch.context() as broken:

        def out_of_memory(*_):
            raise MemoryError("no room")

        broken.setattr(pile, "_solved", out_of_memory)
        solver.submit([record(0)], LAYOUT, NOBODY)
        solver.submit_rest(NOBODY)
        with pytest.raises(MemoryError, match="no room"):
            list(solver.logs(most_bytes=0))
    solver.submit([record(1)], LAYOUT, NOBODY)
    solver.submit_rest(NOBODY)
    assert steps(solver.logs(most_bytes=0)) == [1]


def test_an_interrupt_while_waiting_loses_nothing(monkeypatch):
    solver, go = Solver(), threading.Event()
    original = pile._solved

    def slowly(*arguments):
        go.wait()
        return original(*arguments)

    monkeypatch.setattr(pile, "_solved", slowly)
    solver.submit([record(0), record(1)], LAYOUT, NOBODY)
    solver.submit_rest(NOBODY)
    (*_, (_, waited_for)) = solver._jobs
    with monkeypatch.context() as interrupted:

        def interrupt():
            raise KeyboardInterrupt

        interrupted.setattr(waited_for, "exception", interrupt)
        with pytest.raises(KeyboardInterrupt):
            list(solver.logs(most_bytes=0))
    go.set()
    assert steps(solver.logs(most_bytes=0)) == [0, 1]


def test_training_waits_only_if_too_much_is_on_its_way(monkeypatch):
    solver, go = Solver(), threading.Event()
    original = solver._pile.add

    def slowly(*arguments):
        go.wait()
        return original(*arguments)

    monkeypatch.setattr(solver._pile, "add", slowly)
    solver.submit([record(0)], LAYOUT, NOBODY)
    assert list(solver.logs(most_bytes=1000)) == []  # returns although nothing is done
    threading.Timer(0.2, go.set).start()
    assert not go.is_set()
    assert list(solver.logs(most_bytes=10)) == []  # waits: a record is larger than that
    assert go.is_set()
