"""A probe looks at the same examples again and again, and changes nothing."""

import keras
import numpy as np
import pytest

import keras_spectral as ks
from keras_spectral import introspection
from keras_spectral.errors import GroupsError, RecordingError, SettingsError

N, BATCH, STEPS = 12, 5, 3
ROUNDING = 1e-6
"""Graph and eager arithmetic of a float32 forward and backward pass differ by about 1e-7."""

MODELS = {"plain": keras.Model, "spectral": ks.SpectralModel}


def make_model(cls=keras.Model, seed=0, eager=True):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((3,))
    hidden = keras.layers.Dense(4, activation="relu", name="hidden")(inputs)
    hidden = keras.layers.BatchNormalization(center=False, scale=False)(hidden)
    hidden = keras.layers.Dropout(0.5)(hidden)
    model = cls(inputs, keras.layers.Dense(2, name="out")(hidden))
    spectra = {"spectra": 1} if issubclass(cls, ks.SpectralModel) else {}
    model.compile("sgd", "mse", metrics=["mae"], run_eagerly=eager, **spectra)
    return model


def data():
    rng = np.random.default_rng(1)
    return rng.normal(size=(N, 3)).astype("f"), rng.normal(size=(N, 2)).astype("f")


def fit(model, *callbacks, epochs=2, seed=5, **options):
    keras.utils.set_random_seed(seed)
    x, y = data()
    options = {"batch_size": BATCH, "verbose": 0} | options
    return model.fit(x, y, epochs=epochs, callbacks=list(callbacks), **options)


def make_probe(groups=("a", "b"), **options):
    x, y = data()
    return ks.callbacks.SpectralProbe(x[:6], y[:6], groups=list(groups) * 3, **options)


def looks(log):
    """Return `(epoch, step)` of every look, in order."""
    return list(log.rows[["epoch", "step"]].drop_duplicates().itertuples(index=False, name=None))


# --- when it looks, and at what ---


@pytest.mark.parametrize("kind", MODELS)
def test_a_probe_looks_before_every_epoch_and_after_the_last(kind):
    probe = make_probe()
    fit(make_model(MODELS[kind], eager=False), probe, epochs=3)
    assert looks(probe.log) == [(0, 0), (1, STEPS), (2, 2 * STEPS), (3, 3 * STEPS)]


def test_a_probe_looks_only_when_due():
    for every, expected in (
        (2, [(0, 0), (2, 2 * STEPS), (3, 3 * STEPS)]),
        (ks.schedules.at([STEPS]), [(1, STEPS), (3, 3 * STEPS)]),
        (lambda step, epoch, batch: epoch == 2, [(2, 2 * STEPS), (3, 3 * STEPS)]),
    ):
        probe = make_probe(every=every)
        fit(make_model(), probe, epochs=3)
        assert looks(probe.log) == expected


def test_every_look_is_at_all_the_same_examples():
    probe = make_probe()
    fit(make_model(), probe, shuffle=True)
    rows = probe.log.rows
    assert rows["batch_size"].unique().tolist() == [6]
    assert rows.groupby("group")["n_examples"].unique().map(list).to_dict() == {
        "a": [3],
        "all": [6],
        "b": [3],
    }
    first_layer = probe.log.select(layer="hidden", quantity="activation")
    for group in ("all", "a", "b"):  # its activations are the examples themselves
        sigma = first_layer.select(group=group).sigma
        np.testing.assert_array_equal(sigma, np.repeat(sigma[:1], len(sigma), axis=0))


@pytest.mark.parametrize("kind", MODELS)
def test_every_look_sees_what_introspection_sees(kind):
    model, probe, seen = make_model(MODELS[kind]), make_probe(), []
    x, y = data()
    look = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: seen.append(
            ks.introspect(model, x[:6], y[:6], groups=["a", "b"] * 3, spectra=1)
        )
    )
    fit(model, look, probe)
    seen.append(ks.introspect(model, x[:6], y[:6], groups=["a", "b"] * 3, spectra=1))
    for log, (epoch, step) in zip(seen, looks(probe.log), strict=True):
        part = probe.log.select(epoch=epoch, step=step)
        np.testing.assert_allclose(part.sigma, log.sigma, rtol=ROUNDING, atol=ROUNDING)


def test_what_a_probe_sees_moves_with_training():
    probe = make_probe()
    fit(make_model(), probe)
    sigma = probe.log.select(layer="out", quantity="gradient", group="all").sigma
    assert (np.abs(np.diff(sigma, axis=0)).max(axis=1) > ROUNDING).all()


def test_a_probe_weighs_examples_as_asked():
    weights = np.array([1, 0, 1, 0, 1, 0.0])
    probe = make_probe(sample_weight=weights)
    fit(make_model(), probe)
    norms = {group: probe.log.select(group=group, quantity="gradient").rows for group in "ab"}
    assert (norms["b"]["frobenius_norm"] == 0).all()
    assert (norms["a"]["frobenius_norm"] > 0).all()


def test_a_probe_records_what_its_settings_say():
    probe = make_probe(spectra=ks.Spectra(every=99, quantities="adjoint", layers="out", top_k=1))
    fit(make_model(), probe)
    assert probe.log.quantities == ["adjoint"]
    assert probe.log.layers == ["out"]
    assert probe.log.sigma.shape[1] == 1
    assert len(looks(probe.log)) == 3


def test_permutations_are_recorded_at_every_look():
    x, y = data()
    groups = ks.permutations(["a", "b"] * 3, n=4)
    probe = ks.callbacks.SpectralProbe(x[:6], y[:6], groups=groups)
    fit(make_model(), probe)
    table = probe.log.permutations
    assert len(table) == 3 * 4 * 2 * 2 * 3  # looks, permutations, groups, layers, quantities
    assert sorted(table["step"].unique()) == [0, STEPS, 2 * STEPS]
    assert probe.log.groups == ["all", "a", "b"]


def test_a_probe_without_groups_looks_at_all():
    x, y = data()
    probe = ks.callbacks.SpectralProbe(x, y)
    fit(make_model(), probe)
    assert probe.log.groups == ["all"]


def test_a_probe_before_training_has_an_empty_log():
    assert len(make_probe().log) == 0


# --- several trainings ---


def test_a_probe_goes_on_in_a_second_fit_without_looking_twice():
    model, probe = make_model(), make_probe()
    fit(model, probe, epochs=2)
    fit(model, probe, epochs=4, initial_epoch=2)
    assert looks(probe.log) == [(epoch, epoch * STEPS) for epoch in range(5)]


def test_the_log_of_a_probe_survives_the_disk(tmp_path):
    model, probe = make_model(), make_probe()
    for _ in range(2):
        fit(model, probe)
    probe.log.to_csv(tmp_path / "probe.csv")
    np.testing.assert_array_equal(ks.read_log(tmp_path / "probe.csv").sigma, probe.log.sigma)


@pytest.mark.parametrize("kind", MODELS)
def test_a_probe_sees_the_loss_of_a_second_compile(kind):
    model, probe = make_model(MODELS[kind], eager=False), make_probe()
    fit(model, probe, epochs=1)
    spectra = {"spectra": 1} if kind == "spectral" else {}
    model.compile("sgd", "mae", **spectra)
    fit(model, probe, epochs=1)
    assert [step for _, step in looks(probe.log)] == [0, STEPS, 2 * STEPS]
    x, y = data()
    now = ks.introspect(model, x[:6], y[:6], groups=["a", "b"] * 3, spectra=1)
    last = probe.log.select(step=2 * STEPS)
    np.testing.assert_allclose(last.sigma, now.sigma, rtol=ROUNDING, atol=ROUNDING)


def test_a_training_of_no_epochs_has_one_look():
    probe = make_probe()
    fit(make_model(), probe, epochs=0)
    assert looks(probe.log) == [(0, 0)]


def test_one_probe_does_not_mix_two_models():
    probe = make_probe()
    fit(make_model(), probe)
    with pytest.raises(RecordingError, match=r"`SpectralProbe` must stay with one model"):
        fit(make_model(), probe)


# --- nothing is changed ---


@pytest.mark.parametrize("kind", MODELS)
def test_training_with_a_probe_ends_in_the_same_weights(kind):
    def trained(*callbacks):
        model = make_model(MODELS[kind], eager=False)
        history = fit(model, *callbacks, epochs=3, shuffle=True)
        draw = np.random.random()  # noqa: NPY002  (the global state that training shares)
        return [*model.get_weights(), *history.history.values()], draw

    plain, draw = trained()
    probed, draw_after_probe = trained(make_probe(groups="ab"))
    assert draw == draw_after_probe
    for left, right in zip(plain, probed, strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("kind", MODELS)
def test_a_probe_changes_no_metric_of_a_model_with_several_outputs(kind):
    def history(*callbacks):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((3,))
        outputs = [keras.layers.Dense(n, name=f"out_{n}")(inputs) for n in (1, 2)]
        model = MODELS[kind](inputs, outputs)
        spectra = {"spectra": 1} if kind == "spectral" else {}
        options = {"metrics": [["mae"], ["mae"]], "run_eagerly": True}
        model.compile("sgd", ["mse", "mse"], **options, **spectra)
        x, y = data()
        options = {"epochs": 2, "verbose": 0, "callbacks": list(callbacks)}
        return model.fit(x, [y[:, :1], y], **options).history

    x, y = data()
    assert history() == history(ks.callbacks.SpectralProbe(9 * x, [y[:, :1], y]))


def test_an_unbuilt_model_starts_from_the_same_weights():
    def trained(*callbacks):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.layers.Dense(4), keras.layers.Dense(2)])
        model.compile("sgd", "mse")
        fit(model, *callbacks)
        return model.get_weights()

    for left, right in zip(trained(), trained(make_probe()), strict=True):
        np.testing.assert_array_equal(left, right)


def test_a_probe_is_traced_once_a_training(monkeypatch):
    traces = []
    watch = introspection.Introspection._watched

    def counted(self, *args):
        traces.append(1)
        return watch(self, *args)

    monkeypatch.setattr(introspection.Introspection, "_watched", counted)
    model, probe = make_model(eager=False), make_probe()
    fit(model, probe, epochs=4)
    assert len(looks(probe.log)) == 5
    assert len(traces) == 1
    fit(model, probe, epochs=2)
    assert len(looks(probe.log)) == 7
    assert len(traces) == 2


# --- wrong use ---


def test_groups_must_fit_the_examples():
    x, y = data()
    with pytest.raises(GroupsError, match="Received: 3 labels for 12 examples"):
        ks.callbacks.SpectralProbe(x, y, groups=["a", "b", "a"])


@pytest.mark.parametrize("every", [0, -1, "epoch", None, 1.5])
def test_every_is_a_number_of_epochs_or_a_schedule(every):
    with pytest.raises(SettingsError, match="must be a positive"):
        make_probe(every=every)
