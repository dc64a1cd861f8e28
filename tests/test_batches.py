"""Groups stay with their examples, however the data travel.

Every example's inputs are one number that tells its group, so the norm of a group's activations
tells how many examples were counted as that group, and whether they really were of it.
"""

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

import keras_spectral as ks
from keras_spectral.batches import grouped_dataset
from keras_spectral.errors import GroupsError

N = 11
LABELS = np.array(["a", "b", "b", "c", "a", "b", "c", "b", "b", "", "a"], dtype=object)
NUMBER = {"a": 1.0, "b": 10.0, "c": 100.0, "": 1000.0}
SIZES = {label: int((label == LABELS).sum()) for label in "abc"}
ROUNDING = 1e-6  # float32 sums of a few squares


def inputs():
    return np.array([[NUMBER[label]] for label in LABELS], dtype="f")


def targets():
    return np.arange(N) % 2


def dataset(*more):
    return tf.data.Dataset.from_tensor_slices((inputs(), targets(), *more))


def make_model(shape=None, eager=True, quantities="activation", loss=None):
    shape = (keras.Input((1,), name="x")) if shape is None else shape
    parts = keras.tree.flatten(shape)
    whole = keras.layers.Concatenate()(parts) if len(parts) > 1 else parts[0]
    dense = keras.layers.Dense(2, name="dense", kernel_initializer="zeros")
    model = ks.SpectralModel(shape, dense(whole))
    loss = loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    spectra = ks.Spectra(quantities=quantities)
    model.compile(keras.optimizers.SGD(0.0), loss, spectra=spectra, run_eagerly=eager)
    return model


def numbers(groups):
    """Return the numbers of the examples that an element of a grouped dataset holds."""
    (index,) = groups.values()
    return index.numpy()


def fit(data, model=None, **options):
    """Return the log of a training on a dataset."""
    model = model or make_model()
    model.fit(data, **{"verbose": 0, "shuffle": False} | options)
    return model.spectral_log


def assert_groups_are_right(log, per_epoch=SIZES, epochs=1, width=1):
    """Assert that each group counted its own examples, and all of them."""
    rows = log.select(quantity="activation").rows
    for label, size in per_epoch.items():
        part = rows[rows["group"] == label]
        assert part["n_examples"].sum() == size * epochs, label
        expected = NUMBER[label] * np.sqrt(part["n_examples"] * width)
        np.testing.assert_allclose(part["frobenius_norm"], expected, rtol=ROUNDING)
    assert set(log.groups) == {"all", *per_epoch}


# --- arrays ---


@pytest.mark.parametrize("eager", [True, False])
def test_shuffled_arrays_keep_their_groups(eager):
    model = make_model(eager=eager)
    model.fit(inputs(), targets(), batch_size=4, epochs=3, groups=LABELS, verbose=0, shuffle=True)
    assert_groups_are_right(model.spectral_log, epochs=3)
    assert model.spectral_log.rows["batch_size"].unique().tolist() == [4, 3]


def test_shuffling_really_happens():
    norms = []
    for shuffle in (True, False):
        keras.utils.set_random_seed(0)
        model = make_model()
        model.fit(inputs(), targets(), batch_size=4, groups=LABELS, verbose=0, shuffle=shuffle)
        norms.append(model.spectral_log.select(group="all").rows["frobenius_norm"].tolist())
    assert norms[0] != norms[1]


def test_a_split_for_validation_takes_the_last_labels_along():
    model = make_model()
    options = {"batch_size": 3, "groups": LABELS, "verbose": 0, "epochs": 2}
    history = model.fit(inputs(), targets(), validation_split=0.3, shuffle=True, **options)
    assert len(history.history["val_loss"]) == 2
    kept = LABELS[: int(N * 0.7)]
    sizes = {label: int((kept == label).sum()) for label in "abc"}
    assert_groups_are_right(model.spectral_log, sizes, epochs=2)


FORMS = {
    "list of arrays": lambda x: [x, 2 * x],
    "tuple of arrays": lambda x: (x, 2 * x),
    "dictionary of arrays": lambda x: {"first": x, "second": 2 * x},
}


@pytest.mark.parametrize("form", FORMS)
def test_several_inputs_share_the_groups(form):
    names = keras.tree.map_structure(
        lambda name: keras.Input((1,), name=name),
        {"list of arrays": ["first", "second"], "tuple of arrays": ("first", "second")}.get(
            form, {"first": "first", "second": "second"}
        ),
    )
    model = make_model(names)
    x = FORMS[form](inputs())
    model.fit(x, targets(), batch_size=4, epochs=2, groups=LABELS, verbose=0)
    assert_groups_are_right(model.spectral_log, epochs=2, width=5)  # 1² + 2²


def test_pandas_data_are_joined_by_position():
    x = pd.DataFrame(inputs(), columns=["x"], index=np.arange(N)[::-1])
    y = pd.Series(targets(), index=range(100, 100 + N))
    groups = pd.Series(LABELS, index=[3] * N)
    model = make_model()
    model.fit(x, y, batch_size=4, groups=groups, verbose=0)
    assert_groups_are_right(model.spectral_log)


def test_class_weights_and_sample_weights_work_beside_groups():
    for options in ({"class_weight": {0: 1.0, 1: 3.0}}, {"sample_weight": np.arange(N) / N}):
        model = make_model(quantities=("activation", "adjoint"))
        model.fit(inputs(), targets(), batch_size=N, groups=LABELS, verbose=0, **options)
        assert_groups_are_right(model.spectral_log)
        weights = options.get("sample_weight", 1.0 + 2.0 * targets())
        # Zero logits: every adjoint is (±1/2, ±1/2) times the example's weight over N.
        for label in "abc":
            sigma = model.spectral_log.singular_values("dense", "adjoint", label)
            expected = np.sqrt((weights[label == LABELS] ** 2).sum() / 2) / N
            np.testing.assert_allclose(sigma[0], expected, rtol=ROUNDING)


def test_overlapping_masks_travel_alike():
    masks = pd.DataFrame({"a": LABELS == "a", "not c": LABELS != "c"})
    model = make_model()
    model.fit(inputs(), targets(), batch_size=4, epochs=2, groups=masks, verbose=0, shuffle=True)
    rows = model.spectral_log.rows
    assert rows.groupby("group")["n_examples"].sum().to_dict() == {"a": 6, "not c": 18, "all": 22}


@pytest.mark.parametrize("wrong", [LABELS[:-1], [*LABELS, "a"], []])
def test_the_wrong_number_of_labels_is_told_before_training(wrong):
    with pytest.raises(GroupsError, match=rf"Received: {len(wrong)} labels for 11 examples"):
        make_model().fit(inputs(), targets(), groups=wrong, verbose=0)


def test_groups_beside_a_dataset_or_a_generator_are_refused_with_a_remedy():
    def generator():
        yield inputs(), targets()

    for data in (dataset().batch(4), generator()):
        with pytest.raises(GroupsError, match=r"with_groups"):
            make_model().fit(data, groups=LABELS, verbose=0)


# --- datasets ---


def of_length(n, data):
    """Return a dataset whose length TensorFlow cannot tell, with its length."""
    return data.apply(tf.data.experimental.assert_cardinality(n))


PIPELINES = {
    "batched after": lambda d, g: ks.with_groups(d, g).batch(4),
    "batched before": lambda d, g: ks.with_groups(d.batch(4), g),
    "batches of one after": lambda d, g: ks.with_groups(d, g).batch(1),
    "batches of one before": lambda d, g: ks.with_groups(d.batch(1), g),
    "one batch of all": lambda d, g: ks.with_groups(d.batch(100), g),
    "shuffled": lambda d, g: ks.with_groups(d, g).shuffle(20, seed=1).batch(4),
    "shuffled batches": lambda d, g: ks.with_groups(d.batch(3), g).shuffle(20, seed=1),
    "prefetched": lambda d, g: ks.with_groups(d, g).batch(4).prefetch(2),
    "cached": lambda d, g: ks.with_groups(d, g).cache().shuffle(20, seed=1).batch(4),
    "unbatched": lambda d, g: of_length(4, ks.with_groups(d.batch(2), g).unbatch().batch(3)),
    "rebatched": lambda d, g: of_length(3, ks.with_groups(d.batch(4), g).rebatch(5)),
    "mapped": lambda d, g: (
        ks.with_groups(d, g).map(lambda x, y, groups: (x * 1.0, y, groups)).batch(4)
    ),
}


@pytest.mark.parametrize("name", PIPELINES)
def test_groups_travel_through_a_pipeline(name):
    log = fit(PIPELINES[name](dataset(), LABELS), epochs=2)
    assert_groups_are_right(log, epochs=2)


def test_groups_travel_through_a_graph():
    data = PIPELINES["shuffled"](dataset(), LABELS)
    assert_groups_are_right(fit(data, make_model(eager=False), epochs=2), epochs=2)


def test_a_repeated_dataset_repeats_its_groups():
    data = ks.with_groups(dataset(), LABELS).shuffle(20, seed=1).repeat(3).batch(5)
    assert_groups_are_right(fit(data), epochs=3)
    endless = ks.with_groups(dataset().batch(4), LABELS).repeat()
    assert_groups_are_right(fit(endless, steps_per_epoch=3, epochs=2), epochs=2)


def test_a_filter_takes_the_groups_along():
    data = ks.with_groups(dataset(), LABELS).filter(lambda x, y, g: x[0] > 5.0).batch(4)
    assert_groups_are_right(fit(of_length(2, data)), {"b": SIZES["b"], "c": SIZES["c"]})


def test_a_dropped_remainder_drops_its_labels():
    whole = N // 4 * 4
    sizes = {label: int((LABELS[:whole] == label).sum()) for label in "abc"}
    before = ks.with_groups(dataset().batch(4, drop_remainder=True), LABELS)
    after = ks.with_groups(dataset(), LABELS).batch(4, drop_remainder=True)
    for data in (before, after):
        assert_groups_are_right(fit(data), sizes)


@pytest.mark.parametrize("batched", [False, True])
def test_a_generator_of_unknown_length_has_groups(batched):
    def generator():
        yield from zip(inputs(), targets(), strict=True)

    signature = tf.TensorSpec((1,), tf.float32), tf.TensorSpec((), tf.int64)
    data = tf.data.Dataset.from_generator(generator, output_signature=signature)
    assert int(data.cardinality()) == tf.data.UNKNOWN_CARDINALITY
    data = (
        ks.with_groups(data.batch(4), LABELS) if batched else ks.with_groups(data, LABELS).batch(4)
    )
    assert_groups_are_right(fit(data, steps_per_epoch=3))


def test_shapes_lost_on_the_way_do_not_lose_the_batches():
    def lost(x, y):
        return tf.numpy_function(lambda *parts: parts, (x, y), (tf.float32, tf.int64))

    for data in (dataset().batch(4).map(lost), dataset().batch(1).map(lost)):
        found = [numbers(groups) for *_, groups in ks.with_groups(data, LABELS)]
        np.testing.assert_array_equal(np.concatenate(found), np.arange(N))


SPARSE = tf.sparse.from_dense(np.ones((N, 3)))
ELEMENTS = {
    "no weights": lambda d: d.map(lambda x, y: (x, y, None)),
    "no targets": lambda d: d.map(lambda x, y: (tf.repeat(x, 3), None)),
    "several targets": lambda d: d.map(lambda x, y: (x, {"p": y, "q": y})),
    "sparse inputs": lambda d: tf.data.Dataset.zip(tf.data.Dataset.from_tensor_slices(SPARSE), d),
}


@pytest.mark.parametrize("name", ELEMENTS)
def test_elements_may_have_gaps_and_any_kind_of_tensor(name):
    data = ELEMENTS[name](dataset())
    for grouped in (
        ks.with_groups(data.batch(4), LABELS),
        ks.with_groups(data, LABELS).batch(4),
    ):
        found = [numbers(groups) for *_, groups in grouped]
        assert [len(each) for each in found] == [4, 4, 3]
        np.testing.assert_array_equal(np.concatenate(found), np.arange(N))


def test_examples_with_vectors_on_both_sides_are_no_batches():
    one_hot = np.eye(2, dtype="f")[targets()]
    wide = np.repeat(inputs(), 3, axis=1)
    data = tf.data.Dataset.from_tensor_slices((wide, one_hot))
    assert [numbers(g).ndim for *_, g in ks.with_groups(data, LABELS)] == [0] * N
    shapes = [numbers(g).shape for *_, g in ks.with_groups(data.batch(4), LABELS)]
    assert shapes == [(4,), (4,), (3,)]


def test_sample_weights_and_dictionaries_stay_in_place():
    data = tf.data.Dataset.from_tensor_slices(
        ({"first": inputs(), "second": inputs()}, targets(), np.arange(N, dtype="f"))
    )
    element = next(iter(ks.with_groups(data, LABELS).batch(N)))
    x, y, weight, groups = element
    assert set(x) == {"first", "second"}
    np.testing.assert_array_equal(y, targets())
    np.testing.assert_array_equal(weight, np.arange(N))
    np.testing.assert_array_equal(numbers(groups), np.arange(N))
    both = {name: keras.Input((1,), name=name) for name in ("first", "second")}
    log = fit(ks.with_groups(data, LABELS).batch(4), make_model(both))
    assert_groups_are_right(log, width=2)


def test_permutations_travel_with_a_dataset():
    log = fit(ks.with_groups(dataset(), ks.permutations(LABELS, n=3)).batch(N))
    table = log.permutations
    assert table.groupby("group")["n_examples"].unique().map(list).to_dict() == {
        label: [size] for label, size in SIZES.items()
    }
    assert table["permutation"].unique().tolist() == [1, 2, 3]


def test_class_weights_work_with_a_dataset_of_groups():
    model = make_model(quantities=("activation", "adjoint"))
    log = fit(ks.with_groups(dataset(), LABELS).batch(N), model, class_weight={0: 1.0, 1: 3.0})
    weights = 1.0 + 2.0 * targets()[LABELS == "b"]
    expected = np.sqrt((weights**2).sum() / 2) / N
    np.testing.assert_allclose(
        log.singular_values("dense", "adjoint", "b")[0], expected, rtol=ROUNDING
    )


def test_a_dataset_of_groups_evaluates_like_one_without():
    model = make_model()
    plain = model.evaluate(dataset().batch(4), verbose=0)
    assert model.evaluate(ks.with_groups(dataset(), LABELS).batch(4), verbose=0) == plain
    assert_groups_are_right(model.evaluation_log)


@pytest.mark.parametrize(
    "validation",
    [
        "arrays",
        "dataset",
        "dataset with groups",
    ],
)
@pytest.mark.parametrize("training", ["arrays", "dataset"])
def test_validation_data_may_have_groups_or_not(training, validation):
    model = make_model()
    held_out = {
        "arrays": (inputs()[:5], targets()[:5]),
        "dataset": dataset().take(5).batch(4),
        "dataset with groups": ks.with_groups(dataset().take(5), LABELS[:5]).batch(4),
    }[validation]
    options = {"validation_data": held_out, "epochs": 2, "verbose": 0, "shuffle": False}
    if training == "arrays":
        history = model.fit(inputs(), targets(), groups=LABELS, **options)
    else:
        history = model.fit(ks.with_groups(dataset(), LABELS).batch(N), **options)
    loss = model.evaluate(inputs()[:5], targets()[:5], verbose=0)
    np.testing.assert_allclose(history.history["val_loss"], [loss, loss], rtol=ROUNDING)
    assert_groups_are_right(model.spectral_log, epochs=2)


def test_a_model_that_records_nothing_trains_on_groups_all_the_same():
    model = make_model()
    model.compile("sgd", model.loss, run_eagerly=True, spectra=None)
    model.fit(ks.with_groups(dataset(), LABELS).batch(4), verbose=0, shuffle=False)
    model.fit(inputs(), targets(), groups=LABELS, verbose=0)
    assert int(model.optimizer.iterations) == 4


# --- datasets and labels that do not fit ---


@pytest.mark.parametrize("n", [0, N - 1, N + 1, 5 * N])
def test_a_wrong_number_of_labels_is_refused_for_examples(n):
    with pytest.raises(GroupsError, match=rf"Received: {n} labels for a dataset of 11 examples"):
        ks.with_groups(dataset(), ["a"] * n)


@pytest.mark.parametrize("n", [5, N - 1, N + 1, 5 * N])
@pytest.mark.parametrize("drop_remainder", [False, True])
def test_a_wrong_number_of_labels_is_told_at_the_latest_in_the_last_batch(n, drop_remainder):
    data = dataset().batch(4, drop_remainder=drop_remainder)
    fits = drop_remainder and 8 <= n < 12
    if fits:
        assert len(list(ks.with_groups(data, ["a"] * n))) == 2
        return
    with pytest.raises(
        (GroupsError, tf.errors.InvalidArgumentError), match=f"Received: {n} labels"
    ):
        list(ks.with_groups(data, ["a"] * n))


def test_more_batches_than_labels_are_refused_at_once():
    with pytest.raises(GroupsError, match=r"Received: 2 labels for a dataset of 3 examples"):
        ks.with_groups(dataset().batch(4), ["a", "b"])


def test_too_few_labels_for_a_dataset_of_unknown_length_stop_the_training():
    data = dataset().filter(lambda x, y: True)
    with pytest.raises(tf.errors.InvalidArgumentError, match="one label per example"):
        fit(ks.with_groups(data, LABELS[:-1]).batch(4), steps_per_epoch=3)


def test_a_dataset_whose_batching_cannot_be_told_is_refused():
    unknown_length = dataset().batch(4, drop_remainder=True).filter(lambda x, y: True)
    columns_of_one = tf.data.Dataset.from_tensor_slices((inputs(), inputs()))
    for data, batched, shapes in (
        (unknown_length, True, [(4,), (4,)]),
        (columns_of_one, False, [()] * N),
        (columns_of_one, True, [(1,)] * N),
    ):
        with pytest.raises(GroupsError, match=r"`batched` must be given .*batched=True"):
            ks.with_groups(data, LABELS)
        grouped = ks.with_groups(data, LABELS, batched=batched)
        assert [numbers(groups).shape for *_, groups in grouped] == shapes


@pytest.mark.parametrize(
    "data",
    [
        tf.data.Dataset.range(3),
        tf.data.Dataset.from_tensor_slices({"x": [1, 2, 3], "y": [1, 2, 3]}),
        tf.data.Dataset.from_tensor_slices(([1], [2], [3], [4])),
    ],
)
def test_a_dataset_of_anything_but_examples_and_targets_is_refused(data):
    with pytest.raises(GroupsError, match=r"elements \(x, y\) or \(x, y, sample_weight\)"):
        ks.with_groups(data, ["a", "b", "c"])


def test_groups_attached_twice_or_by_hand_are_refused():
    with pytest.raises(GroupsError, match=r"must have elements"):
        ks.with_groups(ks.with_groups(dataset(), LABELS), LABELS)
    by_hand = dataset(np.ones(N), LABELS == "a").batch(4)
    with pytest.raises(GroupsError, match=r"must come from `keras_spectral.with_groups"):
        make_model().fit(by_hand, verbose=0, shuffle=False)


def test_a_dataset_without_groups_stays_as_it_is():
    plain = dataset().batch(4)
    same, membership = grouped_dataset(plain)
    assert same is plain
    assert membership.names == ()
