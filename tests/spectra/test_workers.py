"""Threads that help the one that solves: they change how long it takes, and nothing else."""

import gc
import os
import threading
import time
import warnings
import weakref

import keras
import numpy as np
import pytest
from keras_spectral.spectra.workers import _Crew, spread

import keras_spectral as ks
from keras_spectral.spectra import workers

MUCH = 10**12
"""Multiplications that are worth a thread of their own."""


@pytest.fixture(params=[1, 2, 4])
def threads(request, monkeypatch):
    """Pretend that there are so many cores, and that all work is worth sharing."""
    crew = _Crew(request.param - 1)
    monkeypatch.setattr(workers, "number", lambda: request.param)
    monkeypatch.setattr(workers, "_crew", lambda pid: crew)
    monkeypatch.setattr(workers, "WORTH_HANDING_OVER", 1)
    return request.param


def test_results_come_in_the_order_of_the_items(threads):
    assert spread(lambda x: x**2, range(100), MUCH) == [x**2 for x in range(100)]
    assert spread(str, [], MUCH) == []


def test_several_threads_work_at_once():
    everybody, crew = threading.Barrier(3), _Crew(2)
    names = crew.share(lambda _: everybody.wait(60) and threading.get_ident(), range(3))
    assert len(set(names) - {0}) >= 2


def test_pieces_may_be_cut_into_pieces(threads):
    def of_one(x):
        return sum(
            spread(lambda y: sum(spread(lambda z: x * y * z, range(5), MUCH)), range(5), MUCH)
        )

    assert spread(of_one, range(20), MUCH) == [100 * x for x in range(20)]


def test_what_is_raised_first_in_order_is_raised_and_the_next_work_is_done(threads):
    def of_one(x):
        if x in (3, 7):
            raise MemoryError(f"no room for {x}")
        return x

    with pytest.raises(MemoryError, match="no room for 3"):
        spread(of_one, range(10), MUCH)
    assert spread(of_one, range(3), MUCH) == [0, 1, 2]


def test_a_thread_that_waits_for_pieces_begins_no_other_work():
    crew, own, deepest = _Crew(2), threading.local(), []

    def outer(_):
        own.depth = getattr(own, "depth", 0) + 1
        deepest.append(own.depth)
        crew.share(lambda k: time.sleep(0.0003 * k), range(4))
        own.depth -= 1

    crew.share(outer, range(60))
    assert max(deepest) == 1


def _slowly(x):
    time.sleep(0.002)
    return x + 1


def test_what_was_worked_on_is_not_kept():
    crew = _Crew(2)
    items = [np.zeros(3) for _ in range(20)]
    kept = [weakref.ref(item) for item in items]
    made = [weakref.ref(found) for found in crew.share(_slowly, items)]
    del items
    gc.collect()
    assert not any(ref() is not None for ref in kept + made)


@pytest.mark.parametrize("given", [0, 1])
def test_fewer_threads_than_cores_will_do(given, monkeypatch):
    start, started = threading.Thread.start, []

    def refused(thread):
        if len(started) == given:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refused)
    crew = _Crew(3)
    assert crew.share(lambda x: x**2, range(10)) == [x**2 for x in range(10)]
    assert len(started) == given


def test_small_work_is_not_handed_over():
    here = threading.get_ident()
    assert set(spread(lambda _: threading.get_ident(), range(50), 1000)) == {here}


def test_helpers_are_as_quiet_about_nan_as_the_thread_they_help(threads):
    with warnings.catch_warnings(), np.errstate(invalid="ignore", over="ignore"):
        warnings.simplefilter("error")
        found = spread(lambda x: np.inf - np.full(3, x), [np.inf] * 20, MUCH)
    assert np.isnan(found).all()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_has_threads_of_its_own():
    assert workers._crew(os.getpid()) is workers._crew(os.getpid())
    assert workers._crew(os.getpid()) is not workers._crew(-1)


def network():
    keras.backend.clear_session(free_memory=False)  # for the names of layers
    keras.utils.set_random_seed(0)
    inputs = keras.Input((12, 10))
    x = keras.layers.Conv1D(8, 3, activation="relu")(inputs)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.LSTM(7)(keras.layers.Dense(6)(x))
    return inputs, keras.layers.Dense(2, activation="softmax")(x)


# Three groups divide the examples, or they overlap, or there are more than examples.
GROUPS = {
    "divide": lambda rng: rng.choice(["a", "b", "c"], 24),
    "overlap": lambda rng: rng.random((24, 3)) < 0.5,
    "many": lambda rng: rng.random((24, 40)) < 0.5,
}


def recorded(groups):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((24, 12, 10)).astype("f"), rng.integers(0, 2, 24)
    model = ks.SpectralModel(*network())
    model.compile("adam", "sparse_categorical_crossentropy", spectra=1)
    groups = GROUPS[groups](rng)
    model.fit(x, y, groups=groups, batch_size=8, epochs=2, shuffle=False, verbose=0)
    return model.spectral_log


@pytest.mark.parametrize("groups", GROUPS)
def test_no_number_depends_on_how_many_threads_there_are(groups, monkeypatch):
    logs = []
    for number in (1, 3):
        crew = _Crew(number - 1)
        monkeypatch.setattr(workers, "number", lambda: number)  # noqa: B023
        monkeypatch.setattr(workers, "_crew", lambda pid: crew)  # noqa: B023
        monkeypatch.setattr(workers, "WORTH_HANDING_OVER", 1)
        logs.append(recorded(groups))
    alone, together = logs
    assert alone.rows.equals(together.rows)
    np.testing.assert_array_equal(alone.sigma, together.sigma)
