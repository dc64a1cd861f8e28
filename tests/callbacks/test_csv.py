"""Spectra on disk while training goes on, whatever happens to the training or the disk."""

import errno
import gzip
import json

import keras
import numpy as np
import pandas as pd
import pytest

import keras_spectral as ks
from keras_spectral.errors import LogError, RecordingError, SettingsError

N, BATCH, STEPS = 10, 4, 3  # three batches an epoch, the last of them short
ROWS = STEPS * 2 * 3 * 3  # an epoch: layers, quantities, groups with `all`
GROUPS = ["HC", "SZ"] * (N // 2)


def make_model(seed=0, eager=True, spectra=1, cls=ks.SpectralModel):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((3,))
    hidden = keras.layers.Dense(4, activation="tanh", name="hidden")(inputs)
    model = cls(inputs, keras.layers.Dense(2, name="out")(hidden))
    options = {} if cls is keras.Model else {"spectra": spectra}
    model.compile("sgd", "mse", run_eagerly=eager, **options)
    return model


def fit(model, *callbacks, groups=GROUPS, batch_size=BATCH, epochs=1, **options):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(N, 3)).astype("f"), rng.normal(size=(N, 2)).astype("f")
    arguments = {"shuffle": False, "verbose": 0} | options
    callbacks = list(callbacks)
    model.fit(x, y, batch_size, epochs, callbacks=callbacks, groups=groups, **arguments)
    return model


def assert_same_log(path, log):
    """Assert that the file holds the log, value for value, permutations included."""
    found = ks.read_log(path)
    pd.testing.assert_frame_equal(
        found.to_dataframe(), log.to_dataframe(), check_dtype=False, check_exact=True
    )
    pd.testing.assert_frame_equal(
        found.permutations, log.permutations, check_dtype=False, check_exact=True
    )


class At(keras.callbacks.Callback):
    """Does something after a training step, counted over the whole training."""

    def __init__(self, step, action):
        super().__init__()
        self.step, self.action, self.seen = step, action, 0

    def on_train_batch_end(self, batch, logs=None):
        if self.seen == self.step:
            self.action()
        self.seen += 1


def raising(error):
    def action():
        raise error

    return action


@pytest.fixture
def path(tmp_path):
    return tmp_path / "spectra.csv"


@pytest.fixture
def full_disk(monkeypatch):
    """Return a function: the next `times` writes to files whose name ends so fail half way."""
    real = pd.DataFrame.to_csv
    left = {}

    def to_csv(table, path, **options):
        for ending in left:
            if left[ending] and str(path).endswith(ending):
                left[ending] -= 1
                with open(path, "ab") as file:
                    file.write(b"half a row")
                raise OSError(errno.ENOSPC, "No space left on device")
        return real(table, path, **options)

    monkeypatch.setattr(pd.DataFrame, "to_csv", to_csv)
    return lambda ending, times: left.update({ending: times})


# --- what is written ---


@pytest.mark.parametrize("eager", [True, False])
@pytest.mark.parametrize("every", ["epoch", 1, 2])
def test_the_file_equals_the_log_of_the_model(path, eager, every):
    model = fit(
        make_model(eager=eager), ks.callbacks.SpectralCSVLogger(path, every=every), epochs=2
    )
    assert len(model.spectral_log) == 2 * ROWS
    assert_same_log(path, model.spectral_log)
    assert path.read_text().count("frobenius_norm") == 1
    assert ks.read_log(path).provenance == json.loads(json.dumps(model.spectral_log.provenance))


def test_a_compressed_file_equals_the_log_of_the_model(tmp_path):
    path = tmp_path / "spectra.csv.gz"
    model = fit(make_model(), ks.callbacks.SpectralCSVLogger(path), epochs=3)
    assert_same_log(path, model.spectral_log)
    assert gzip.decompress(path.read_bytes()).count(b"frobenius_norm") == 1


def test_the_file_grows_by_every_epoch(path):
    sizes = []
    lines = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: sizes.append(path.read_text().count("\n"))
    )
    fit(make_model(), ks.callbacks.SpectralCSVLogger(path), lines, epochs=3)
    assert sizes == [0, 1 + ROWS, 1 + 2 * ROWS]


def test_the_file_grows_by_every_nth_step(path):
    sizes = []
    lines = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: sizes.append(path.read_text().count("\n"))
    )
    fit(make_model(), ks.callbacks.SpectralCSVLogger(path, every=2), lines, epochs=2)
    per_step = ROWS // STEPS
    assert sizes == [1 + per_step * n for n in (-1 / per_step, 2, 2, 3, 5, 5)]


def test_several_steps_per_execution_lose_nothing(path):
    model = make_model(eager=False)
    model.compile("sgd", "mse", spectra=1, steps_per_execution=2)
    fit(model, ks.callbacks.SpectralCSVLogger(path, every=1), epochs=3)
    assert ks.read_log(path).steps == list(range(3 * STEPS))
    assert_same_log(path, model.spectral_log)


def test_wider_spectra_later_widen_the_file(path):
    model, writer = make_model(), ks.callbacks.SpectralCSVLogger(path)
    fit(model, writer, groups=None, batch_size=1)
    assert "sigma_2" not in path.read_text()
    fit(model, writer, batch_size=3)
    fit(model, writer, batch_size=2)
    assert path.read_text().splitlines()[0].endswith("truncated,sigma_1,sigma_2,sigma_3")
    assert_same_log(path, model.spectral_log)


def test_nan_spectra_are_written_as_such(path):
    model = make_model()
    model.layers[-1].kernel.assign(np.full((4, 2), np.nan))
    with pytest.warns(UserWarning, match="holds NaN or Inf"):
        fit(model, ks.callbacks.SpectralCSVLogger(path))
    assert_same_log(path, model.spectral_log)
    assert (
        ks.read_log(path)
        .select(layer="out", quantity="gradient")
        .rows["frobenius_norm"]
        .isna()
        .all()
    )


def test_permutations_are_written_beside_the_file(path):
    model = make_model()
    writer = ks.callbacks.SpectralCSVLogger(path)
    fit(model, writer, groups=ks.permutations(GROUPS, n=3), epochs=2)
    found = ks.read_log(path).permutations
    assert found["permutation"].unique().tolist() == [1, 2, 3]
    assert sorted(found["step"].unique()) == list(range(2 * STEPS))
    assert_same_log(path, model.spectral_log)


def test_two_callbacks_write_two_files(tmp_path):
    paths = tmp_path / "a.csv", tmp_path / "b.csv"
    often = ks.callbacks.SpectralCSVLogger(paths[0], every=2)
    model = fit(make_model(), often, ks.callbacks.SpectralCSVLogger(paths[1]), epochs=2)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert_same_log(paths[0], model.spectral_log)


def test_run_labels_become_columns(path):
    labels = {"fold": np.int64(2), "seed": 7}
    model = fit(make_model(), ks.callbacks.SpectralCSVLogger(path, run=labels))
    assert_same_log(path, model.spectral_log.with_run(labels))
    assert list(pd.read_csv(path))[:4] == ["run", "fold", "seed", "epoch"]
    assert ks.read_log(path).provenance["run"] == {"fold": 2, "seed": 7}


def test_several_runs_share_a_file(path):
    logs = []
    for fold in range(2):
        writer = ks.callbacks.SpectralCSVLogger(path, append=fold > 0, run={"fold": fold})
        model = fit(make_model(seed=fold), writer, groups=ks.permutations(GROUPS, n=2))
        logs.append(model.spectral_log.with_run({"fold": fold}))
    assert_same_log(path, ks.SpectralLog.concat(logs))


def test_a_label_added_later_stands_among_the_labels(path):
    fit(make_model(), ks.callbacks.SpectralCSVLogger(path, run="first"))
    fit(make_model(), ks.callbacks.SpectralCSVLogger(path, append=True, run={"fold": 1}))
    log = ks.read_log(path)
    assert list(log.rows)[:3] == ["run", "fold", "epoch"]
    assert log.runs == ["first", "fold=1"]
    assert len(log.select(fold=1)) == ROWS


# --- a file that is there already ---


def test_an_older_file_is_replaced_with_its_permutations(path):
    writer = ks.callbacks.SpectralCSVLogger(path)
    fit(make_model(), writer, groups=ks.permutations(GROUPS, n=2), epochs=2)
    model = fit(make_model(), ks.callbacks.SpectralCSVLogger(path))
    assert_same_log(path, model.spectral_log)


def test_a_second_fit_goes_on_in_the_same_file(path):
    model, writer = make_model(), ks.callbacks.SpectralCSVLogger(path)
    for _ in range(2):
        fit(model, writer, groups=ks.permutations(GROUPS, n=2))
    fit(model, ks.callbacks.SpectralCSVLogger(path, append=True))
    assert_same_log(path, model.spectral_log)


def test_a_training_resumed_from_a_saved_model_equals_one_without_a_break(path, tmp_path):
    whole = fit(make_model(), groups=ks.permutations(GROUPS, n=2), epochs=4).spectral_log
    model = make_model()
    writer = ks.callbacks.SpectralCSVLogger(path)
    fit(model, writer, groups=ks.permutations(GROUPS, n=2), epochs=2)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    writer = ks.callbacks.SpectralCSVLogger(path, append=True)
    fit(loaded, writer, groups=ks.permutations(GROUPS, n=2), epochs=4, initial_epoch=2)
    assert_same_log(path, whole)


def test_a_training_resumed_from_an_older_checkpoint_writes_no_row_twice(path, tmp_path):
    model = make_model()
    checkpoint = keras.callbacks.ModelCheckpoint(tmp_path / "model.keras")
    crash = At(STEPS + 1, raising(RuntimeError("power cut")))
    with pytest.raises(RuntimeError, match="power cut"):
        fit(model, ks.callbacks.SpectralCSVLogger(path), checkpoint, crash, epochs=3)
    assert ks.read_log(path).steps == [0, 1, 2, 3, 4]
    loaded = keras.models.load_model(tmp_path / "model.keras")
    fit(loaded, ks.callbacks.SpectralCSVLogger(path, append=True), epochs=3, initial_epoch=1)
    assert_same_log(path, fit(make_model(), epochs=3).spectral_log)


def test_a_fresh_model_appends_no_record_that_the_file_holds(path):
    fit(make_model(), ks.callbacks.SpectralCSVLogger(path))
    before = path.read_bytes()
    fit(make_model(seed=1), ks.callbacks.SpectralCSVLogger(path, append=True))
    assert path.read_bytes() == before


def test_appending_to_no_file_begins_one(path):
    model = fit(make_model(), ks.callbacks.SpectralCSVLogger(path, append=True))
    assert_same_log(path, model.spectral_log)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_line_cut_by_a_crash_is_recorded_again(tmp_path, compressed):
    path = tmp_path / ("spectra.csv.gz" if compressed else "spectra.csv")
    model, writer = make_model(), ks.callbacks.SpectralCSVLogger(path, every=1)
    fit(model, writer, groups=ks.permutations(GROUPS, n=2))
    for file in (path, tmp_path / "spectra.permutations.csv.gz"):
        file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(LogError):
        ks.read_log(path)
    again = make_model()
    writer = ks.callbacks.SpectralCSVLogger(path, append=True)
    fit(again, writer, groups=ks.permutations(GROUPS, n=2))
    assert_same_log(path, model.spectral_log)


@pytest.mark.parametrize("name", ["notes.csv", "notes.csv.gz"])
@pytest.mark.parametrize(
    "content", [b"my notes without an end", b"a,b\n1,2\n3,", b"\x1f\x8b\x08not", b"run,epoch,st"]
)
def test_a_file_that_is_no_log_is_refused_and_left_alone(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(LogError, match=r"`append=True` must be used with a log file.*notes.csv"):
        fit(make_model(), ks.callbacks.SpectralCSVLogger(tmp_path / name, append=True))
    assert (tmp_path / name).read_bytes() == content


def test_a_log_with_a_broken_line_in_the_middle_is_refused(path):
    fit(make_model(), ks.callbacks.SpectralCSVLogger(path))
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:3], "x" + lines[3].replace(",0,0,", ",zero,"), *lines[4:]]))
    with pytest.raises(LogError, match=r"Received: .*spectra.csv"):
        fit(make_model(), ks.callbacks.SpectralCSVLogger(path, append=True))


# --- places that cannot be written ---


def test_a_path_that_cannot_be_written_is_told_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    for filename in (
        tmp_path / "file" / "spectra.csv",
        tmp_path / "missing" / "s.csv.gz",
        tmp_path,
    ):
        model = make_model()
        with pytest.raises(OSError, match=str(tmp_path)):
            fit(model, ks.callbacks.SpectralCSVLogger(filename))
        assert int(model.optimizer.iterations) == 0


@pytest.mark.parametrize("ending", [".csv", ".permutations.csv.gz"])
@pytest.mark.parametrize("epoch", [0, 1])
def test_a_full_disk_loses_nothing(path, full_disk, ending, epoch):
    model, writer = make_model(), ks.callbacks.SpectralCSVLogger(path)
    fill = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda e, logs: full_disk(ending, 1) if e == epoch else None
    )
    with pytest.warns(
        UserWarning, match=rf"spectra.csv cannot be written .*No space.* {ROWS} spectra"
    ):
        fit(model, fill, writer, groups=ks.permutations(GROUPS, n=2), epochs=3)
    assert_same_log(path, model.spectral_log)


def test_a_disk_that_stays_full_leaves_what_was_written(path, full_disk):
    model, writer = make_model(), ks.callbacks.SpectralCSVLogger(path)
    fit(model, writer)
    full_disk(".csv", 99)
    with pytest.warns(UserWarning, match="kept in memory and tried again"):
        fit(model, writer)
    assert ks.read_log(path).steps == [0, 1, 2]
    full_disk(".csv", 0)
    fit(model, writer)
    assert_same_log(path, model.spectral_log)


def test_a_disk_full_while_widening_leaves_the_narrow_file(path, full_disk):
    model, writer = make_model(), ks.callbacks.SpectralCSVLogger(path)
    fit(model, writer, groups=None, batch_size=1)
    narrow = path.read_bytes()
    full_disk(".csv.part", 99)
    with pytest.warns(UserWarning, match="cannot be written"):
        fit(model, writer)
    assert path.read_bytes() == narrow
    assert not path.with_name("spectra.csv.part").exists()
    full_disk(".csv.part", 0)
    fit(model, writer)
    assert_same_log(path, model.spectral_log)


# --- trainings that end badly ---


@pytest.mark.parametrize("error", [RuntimeError("crash"), KeyboardInterrupt()])
@pytest.mark.parametrize("every", ["epoch", 2])
def test_an_interrupted_training_leaves_everything_recorded(path, error, every):
    model = make_model()
    writer = ks.callbacks.SpectralCSVLogger(path, every=every)
    with pytest.raises(type(error)):
        fit(model, At(STEPS, raising(error)), writer, epochs=3)
    assert ks.read_log(path).steps == [0, 1, 2, 3]
    assert_same_log(path, model.spectral_log)


def test_callbacks_passed_by_position_are_flushed_as_well(path):
    model, crash = make_model(), At(1, raising(RuntimeError("crash")))
    callbacks = [ks.callbacks.SpectralCSVLogger(path), crash]
    with pytest.raises(RuntimeError, match="crash"):
        model.fit(np.ones((N, 3)), np.ones((N, 2)), BATCH, 1, 0, callbacks)
    assert ks.read_log(path).steps == [0, 1]


def test_a_list_object_of_callbacks_is_flushed_as_well(path):
    model, crash = make_model(), At(1, raising(RuntimeError("crash")))
    callbacks = [ks.callbacks.SpectralCSVLogger(path), crash]
    listed = keras.callbacks.CallbackList(callbacks, model=model)
    with pytest.raises(RuntimeError, match="crash"):
        model.fit(np.ones((N, 3)), np.ones((N, 2)), BATCH, verbose=0, callbacks=listed)
    assert ks.read_log(path).steps == [0, 1]


def test_an_interrupt_in_the_middle_of_a_row_leaves_no_half_row(path, monkeypatch):
    real, calls = pd.DataFrame.to_csv, []

    def interrupted_once(table, path, **options):
        calls.append(path)
        if len(calls) == 2:
            real(table, path, **options)
            with open(path, "rb+") as file:
                file.truncate(path.stat().st_size - 10)
            raise KeyboardInterrupt
        return real(table, path, **options)

    monkeypatch.setattr(pd.DataFrame, "to_csv", interrupted_once)
    model = make_model()
    with pytest.raises(KeyboardInterrupt):
        fit(model, ks.callbacks.SpectralCSVLogger(path), epochs=3)
    assert_same_log(path, model.spectral_log)


def test_training_goes_on_after_a_crash(path):
    model, writer = make_model(), ks.callbacks.SpectralCSVLogger(path)
    with pytest.raises(RuntimeError):
        fit(model, writer, At(1, raising(RuntimeError())))
    fit(model, writer)
    assert_same_log(path, model.spectral_log)
    assert ks.read_log(path).steps == [0, 1, 2, 3, 4]


def test_records_forgotten_by_the_model_stay_in_the_file(path):
    model, writer = make_model(), ks.callbacks.SpectralCSVLogger(path)
    forget = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: model.spectral_logger.reset_state()
    )
    fit(model, writer, forget, epochs=3)
    fit(model, writer)
    assert ks.read_log(path).steps == list(range(4 * STEPS))
    assert model.spectral_log.steps == list(range(3 * STEPS, 4 * STEPS))


# --- wrong use ---


def test_a_model_that_records_nothing_is_refused(path):
    for model in (make_model(cls=keras.Model), make_model(spectra=None)):
        writer = ks.callbacks.SpectralCSVLogger(path)
        with pytest.raises(RecordingError, match=r"must be used with a model that records spectra"):
            model.fit(np.ones((2, 3)), np.ones((2, 2)), callbacks=[writer], verbose=0)
        assert not path.exists()


def test_one_callback_does_not_mix_two_models(path):
    writer = ks.callbacks.SpectralCSVLogger(path)
    model = fit(make_model(), writer)
    with pytest.raises(RecordingError, match=r"`SpectralCSVLogger` must stay with one model"):
        fit(make_model(seed=1), writer)
    assert_same_log(path, model.spectral_log)


@pytest.mark.parametrize("every", [0, -1, 1.5, "step", None])
def test_every_is_an_epoch_or_a_number_of_steps(path, every):
    with pytest.raises(
        SettingsError, match=r'`every` must be "epoch" or a positive number of steps'
    ):
        ks.callbacks.SpectralCSVLogger(path, every=every)


def test_run_labels_that_hide_columns_are_refused_at_once(path):
    with pytest.raises(LogError, match="no columns of a log"):
        ks.callbacks.SpectralCSVLogger(path, run={"layer": 1})
