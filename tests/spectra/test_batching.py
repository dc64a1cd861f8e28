"""Steps solved together are the steps solved alone, bit for bit, each once and in order."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_spectral as ks
from keras_spectral.matrices.factors import Factors
from keras_spectral.matrices.gates import Gates
from keras_spectral.matrices.one_hot import OneHot
from keras_spectral.matrices.patches import Patches
from keras_spectral.settings import QUANTITIES, Spectra
from keras_spectral.spectra import batching
from keras_spectral.spectra.batching import Batching
from tests.spectra.forcing import FORCED, by_name, forced, solved, step_of


def weights_of(n, rng):
    """Return `Factors` of every form, of `n` examples."""

    def normal(*shape):
        return tf.constant(rng.standard_normal((n, *shape)), tf.float32)

    volumes = Patches((normal(4, 3, 3, 2),), (3, 3, 3), (1, 1, 1), (1, 1, 1), "same", 1)
    grouped = Patches((normal(9, 4), normal(7, 4)), (3,), (1,), (1,), "same", 2)
    ids = tf.constant(rng.integers(0, 30, (n, 3)), tf.int32)
    return [
        Factors(normal(1, 40), normal(1, 30)),
        Factors(normal(1, 30), normal(1, 5)),
        Factors(normal(12, 6), normal(12, 7)),
        Factors(volumes, normal(36, 3)),
        Factors(grouped, normal(16, 4)),
        Factors(OneHot(ids, 30), normal(3, 8)),
        Factors(Gates(normal(4, 6), (3, 2)), normal(4, 5)),
        Factors(normal(2, 5), normal(2, 4), normal(5, 4)),
        Factors(None, None, normal(1, 7)),
    ]


# Groups divide the examples, or they overlap and some are absent, or there are more than examples.
GROUPS = {
    "none": lambda rng, n: np.zeros((n, 0), bool),
    "divide": lambda rng, n: rng.integers(0, 3, n)[:, None] == np.arange(3),
    "overlap": lambda rng, n: rng.random((n, 3)) < [0.6, 0.5, 0.1],
    "many": lambda rng, n: rng.random((n, 40)) < 0.4,
}


def steps_of(groups, sizes):
    rng = np.random.default_rng(0)
    masks = [GROUPS[groups](rng, n) for n in sizes]
    shares = (0.4,) * masks[0].shape[1]
    return [
        step_of(number, weights_of(n, rng), mask, shares)
        for number, (n, mask) in enumerate(zip(sizes, masks, strict=True))
    ]


def assert_same_bits(found, wanted):
    found, wanted = by_name(found), by_name(wanted)
    assert found.keys() == wanted.keys()
    for name, parts in wanted.items():
        for own, other in zip(found[name], parts, strict=True):
            np.testing.assert_array_equal(own, other, err_msg=str(name))


def alone(steps, how):
    """Return what each step has that waits for no other."""
    state, found = Batching(how), []
    for step in steps:
        found += state.add(step)
        found += state.rest()
    return found


@pytest.mark.parametrize("groups", GROUPS)
@pytest.mark.parametrize("method", ["auto", "svd", *FORCED])
def test_steps_solved_together_are_those_solved_alone(groups, method):
    steps = steps_of(groups, [8, 5, 8, 8])
    if method == "auto":
        assert_same_bits(solved(steps), alone(steps, Spectra()))
        return
    how = Spectra(method="svd" if method == "svd" else "gram")
    with forced("feature_gram" if method == "svd" else method):
        assert_same_bits(solved(steps, how), alone(steps, how))


def test_steps_of_a_subspace_follow_each_other_whoever_they_are_solved_with(monkeypatch):
    monkeypatch.setattr("keras_spectral.spectra.subspace.cost", lambda *_: 1.0)
    how = Spectra(method="subspace", top_k=3)
    steps = steps_of("overlap", [8] * 5)
    found = solved(steps, how)
    assert not found[0].plan.is_exact
    assert_same_bits(found, alone(steps, how))


@pytest.mark.parametrize("groups", GROUPS)
def test_no_number_depends_on_how_many_threads_there_are(groups, threads):
    steps, found = steps_of(groups, [8, 8, 5]), []
    for number in (1, 2, 5):
        threads(number)
        found.append(solved(steps))
    for others in found[1:]:
        assert_same_bits(others, found[0])


def test_no_number_depends_on_threads_where_those_of_one_width_are_divided(threads):
    """Alone, a matrix of 60 features would be LAPACK's; with others, that of the compiled code."""
    rng, found = np.random.default_rng(0), []
    parts = [tf.constant(rng.standard_normal((4, 30, 60)), tf.float32) for _ in range(4)]
    factors = [Factors(*parts[:2]), Factors(*parts[2:])]
    for number, n_methods in ((1, 1), (5, 6)):
        threads(number)
        with forced("feature_gram"):
            found.append(solved([step_of(0, factors)]))
        assert len(found[-1][0].plan.methods) == n_methods
    assert_same_bits(*found)


# --- when steps are solved ---


def small(number, n=4, groups=0):
    rng = np.random.default_rng(number)
    a, d = (tf.constant(rng.standard_normal((n, 1, 3)), tf.float32) for _ in range(2))
    return step_of(number, [Factors(a, d)], np.ones((n, groups), bool))


def numbers(found):
    return [int(step) for part in found for step in part.steps]


def test_steps_wait_until_there_are_enough(monkeypatch):
    monkeypatch.setattr(batching, "TOGETHER", 3)
    batches = Batching(Spectra())
    assert [numbers(batches.add(small(k))) for k in range(7)] == [
        *([], [], [0, 1, 2]),
        *([], [], [3, 4, 5]),
        [],
    ]
    assert numbers(batches.rest()) == [6]
    assert batches.rest() == []


def test_fewer_steps_wait_if_there_are_many_groups(monkeypatch):
    monkeypatch.setattr(batching, "TOGETHER_SPECTRA", 100)
    batches = Batching(Spectra())
    found = [numbers(batches.add(small(k, groups=24))) for k in range(8)]
    assert found == [[], [], [], [0, 1, 2, 3], [], [], [], [4, 5, 6, 7]]
    batches = Batching(Spectra())  # more groups than that
    assert [numbers(batches.add(small(k, groups=300))) for k in range(2)] == [[0], [1]]


def test_fewer_steps_wait_if_they_are_large(monkeypatch):
    batches = Batching(Spectra())
    assert batches.add(small(0)) == []
    waiting = sum(reduced.nbytes for reduced in batches._waiting)
    batches.rest()
    monkeypatch.setattr(batching, "TOGETHER_BYTES", 3 * waiting)
    found = [numbers(batches.add(small(k))) for k in range(6)]
    assert found == [[], [], [0, 1, 2], [], [], [3, 4, 5]]


def test_steps_of_other_sizes_wait_together_and_come_apart_in_order():
    batches = Batching(Spectra())
    for number, n in enumerate([4, 4, 3, 4, 3, 2]):
        assert batches.add(small(number, n)) == []
    found = batches.rest()
    assert [part.steps.tolist() for part in found] == [[0, 1, 3], [2, 4], [5]]
    assert [part.sizes.tolist() for part in found] == [[[4]] * 3, [[3]] * 2, [[2]]]


def test_steps_of_other_groups_come_apart():
    batches = Batching(Spectra())
    for number, groups in enumerate([1, 2, 1]):
        batches.add(small(number, groups=groups))
    assert [part.steps.tolist() for part in batches.rest()] == [[0, 2], [1]]


def test_a_step_that_cannot_be_reduced_is_the_only_one_that_is_lost(monkeypatch):
    batches = Batching(Spectra())
    batches.add(small(0))
    with monkeypatch.context() as patch:
        patch.setattr(batching, "parallel", out_of_memory)
        with pytest.raises(MemoryError, match="no room"):
            batches.add(small(1))
    batches.add(small(2))
    assert numbers(batches.rest()) == [0, 2]


def out_of_memory(*_):
    raise MemoryError("no room")


def test_steps_that_cannot_be_solved_are_the_only_ones_that_are_lost(monkeypatch):
    batches, original = Batching(Spectra()), batching._solved

    def solved_unless_small(alike):
        return out_of_memory() if alike[0].mask.shape[0] == 3 else original(alike)

    monkeypatch.setattr(batching, "_solved", solved_unless_small)
    for number, n in enumerate([4, 3, 2, 4, 3, 2]):
        batches.add(small(number, n))
    with pytest.raises(MemoryError, match="no room"):
        batches.rest()
    assert numbers(batches.rest()) == [0, 3, 2, 5]
    assert batches.rest() == []


# --- what records are ---


def test_records_say_what_they_are_of():
    step = steps_of("overlap", [8])[0]
    (found,) = solved([step._replace(step=7, epoch=2)])
    assert found.steps.tolist() == [7]
    assert found.epochs.tolist() == [2]
    assert found.sizes.tolist() == [[8, *step.mask.sum(axis=0)]]
    positions = np.array([series.positions for series in found.plan.series])
    np.testing.assert_array_equal(found.n_rows[0], positions[:, None] * found.sizes[0])
    assert (found.n_kept == found.rank_bounds).all()
    assert (found.rank_bounds[0, :, 0] > 0).all()


def test_ranks_are_bounded_by_rows_where_a_matrix_is_a_sum_over_them():
    a, d, own = (tf.zeros([4, s, w]) for s, w in ((2, 9), (2, 9), (8, 9)))
    mask = np.array([[1], [0], [0], [0]], bool)
    (found,) = solved([step_of(0, [Factors(a, d), Factors(a, d, own)], mask)])
    assert [series.quantity for series in found.plan.series] == [*QUANTITIES] * 2
    assert found.rank_bounds[0].tolist() == [[8, 2]] * 5 + [[8, 2]]


def test_what_is_beyond_a_rank_bound_or_absent_is_nan():
    rng = np.random.default_rng(0)
    a, d = (tf.constant(rng.standard_normal((4, 1, 6)), tf.float32) for _ in range(2))
    mask = np.array([[1, 0], [1, 0], [0, 0], [0, 0]], bool)
    (found,) = solved([step_of(0, [Factors(a, d)], mask)])
    there = np.isfinite(found.sigma[0]).sum(axis=-1)
    assert there.tolist() == [[4, 2, 0]] * 3
    assert np.isnan(found.norm[0, :, 2]).all()
    assert np.isnan(found.residual[0, :, 2]).all()


def test_nothing_to_record_makes_no_record():
    step = step_of(0, [Factors(None, None, tf.zeros([4, 1, 7]))])
    assert solved([step], Spectra(quantities="activation")) == []


def test_without_memory_of_its_factors_a_step_keeps_only_small_statistics():
    batches = Batching(Spectra())
    factors = Factors(tf.ones([32, 500, 20]), tf.ones([32, 500, 10]))
    batches.add(step_of(0, [factors]))
    (waiting,) = batches._waiting
    assert waiting.nbytes <= 8 * 2 * (20**2 + 2 * 10**2)
    for statistic in waiting.statistics:
        assert not any(np.shares_memory(statistic, np.asarray(x)) for x in factors[:2])


# --- a network, whatever the threads ---


def network():
    keras.backend.clear_session(free_memory=False)  # for the names of layers
    keras.utils.set_random_seed(0)
    inputs = keras.Input((12, 10))
    x = keras.layers.Conv1D(8, 3, activation="relu")(inputs)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.LSTM(7)(keras.layers.Dense(6)(x))
    return inputs, keras.layers.Dense(2, activation="softmax")(x)


def recorded(groups):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((24, 12, 10)).astype("f"), rng.integers(0, 2, 24)
    model = ks.SpectralModel(*network())
    model.compile("adam", "sparse_categorical_crossentropy", spectra=1)
    groups = GROUPS[groups](rng, 24)
    model.fit(x, y, groups=groups, batch_size=8, epochs=2, shuffle=False, verbose=0)
    return model.spectral_log


@pytest.mark.parametrize("groups", ["divide", "overlap", "many"])
def test_no_log_depends_on_how_many_threads_there_are(groups, threads):
    logs = []
    for number in (1, 3):
        threads(number)
        logs.append(recorded(groups))
    one, several = logs
    assert one.rows.equals(several.rows)
    np.testing.assert_array_equal(one.sigma, several.sigma)
