"""A budget: the interval that keeps recording within a part of the training time."""

import itertools
import json
import types

import joblib
import keras
import numpy as np
import pandas as pd
import pytest

import keras_spectral as ks
from keras_spectral import execution, schedules
from keras_spectral.errors import SettingsError
from keras_spectral.experiment import run as experiment
from keras_spectral.experiment.folder import fold_folder
from keras_spectral.experiment.study import Plan, Study
from keras_spectral.recorder import SpectralLogger
from keras_spectral.schedules import TIMED, TIMED_EVERY, Budgeted, budget
from keras_spectral.settings import Spectra

INTERVALS = [lead * 10**power for power in range(9) for lead in (1, 2, 5)]
FRACTION = 0.125  # a power of two, like the times below: no rounding at the edges
N, BATCH = 60, 2
STEPS = N // BATCH


# --- the schedule, with made-up times ---


def followed(schedule, plain, extra, steps=40, first=0):
    """Ask a schedule about steps as a recording does; `plain` and `extra` may be functions.

    Returns:
        List of the recorded steps.
    """
    recorded = []
    for step in range(first, first + steps):
        due = schedule(step, 0, step)
        if due:
            recorded.append(step)
        if schedule.interval is None:
            seconds = [time() if callable(time) else time for time in (plain, extra)]
            schedule.observe(sum(seconds) if due else seconds[0], due)
    return recorded


@pytest.mark.parametrize(
    ("extra", "interval"),
    [
        (0.0625, 1),
        (0.125, 1),
        (0.1875, 2),
        (0.25, 2),
        (0.3125, 5),
        (0.625, 5),
        (0.6875, 10),
        (1.25, 10),
        (1.3125, 20),
        (2.5, 20),
        (2.5625, 50),
        (6.25, 50),
        (6.3125, 100),
    ],
)
def test_the_interval_is_the_smallest_that_fits(extra, interval):
    schedule = Budgeted(FRACTION)
    followed(schedule, 1.0, extra)
    assert schedule.interval == interval
    assert (schedule.plain, schedule.extra) == (1.0, extra)


@pytest.mark.parametrize(("fraction", "interval"), [(8, 1), (2, 2), (0.5, 5), (0.125, 20)])
def test_a_larger_fraction_allows_a_smaller_interval(fraction, interval):
    schedule = Budgeted(fraction)
    followed(schedule, 1.0, 2.5)
    assert schedule.interval == interval


def test_first_times_do_not_count_as_they_hold_the_tracing():
    plain = itertools.chain([300.0], itertools.repeat(1.0))
    extra = itertools.chain([1000.0], itertools.repeat(0.25))
    schedule, recorded = Budgeted(FRACTION), iter((True, *[False] * 9, True, *[False] * 9, True))
    for due in recorded:
        seconds = next(plain) + next(extra) if due else next(plain)
        schedule.observe(seconds, due)
    assert (schedule.plain, schedule.extra, schedule.interval) == (1.0, 0.25, 2)


def test_of_each_kind_the_first_time_is_ignored_and_no_other():
    schedule = Budgeted(FRACTION)
    for seconds, recorded in [(9.0, False), (1.0, False), (99.0, True), (1.25, True)]:
        assert not schedule.observe(seconds, recorded)
    assert schedule.observe(1.25, True)
    assert (schedule.plain, schedule.extra) == (1.0, 0.25)


@pytest.mark.parametrize("first", [0, 1000, 1003])
def test_steps_that_are_timed_are_apart_and_begin_with_the_first(first):
    timed = followed(Budgeted(FRACTION), 1.0, 100.0, first=first)
    assert timed == [first + k * TIMED_EVERY for k in range(TIMED)]


@pytest.mark.parametrize("extra", [0.1875, 1.25, 10.0])
def test_timed_steps_are_paid_off_before_recording_goes_on(extra):
    schedule = Budgeted(FRACTION)
    recorded = followed(schedule, 1.0, extra, steps=2000)
    later = recorded[TIMED:]
    paid = (TIMED + 1) * extra / FRACTION
    begin = max(paid - 1, TIMED_EVERY * (TIMED - 1) + 1)
    assert later == [s for s in range(2000) if s >= begin and s % schedule.interval == 0]
    for n_recorded, step in enumerate(later, TIMED + 1):
        assert n_recorded * extra <= FRACTION * (step + 1)


@pytest.mark.parametrize(
    ("plain", "extra", "interval"),
    [
        (1.0, 0.0, 1),
        (1.0, -0.5, 1),  # noise, or a clock that is too coarse
        (0.0, 0.0, 1),
        (1e-4, 60.0, 5_000_000),
        (1e-9, 60.0, 100_000_000),  # rare enough, whatever it takes
        (0.0, 1.0, 100_000_000),
        (3600.0, 1e-6, 1),
    ],
)
def test_extreme_ratios_have_an_interval_too(plain, extra, interval):
    schedule = Budgeted(FRACTION)
    followed(schedule, plain, extra)
    assert schedule.interval == interval
    assert schedule.extra >= 0


def test_an_interval_that_was_found_is_kept_and_told_once():
    schedule = Budgeted(FRACTION)
    told = [schedule.observe(1.0 + 0.25 * due, due) for due in [False, False, *[True] * TIMED]]
    assert told == [False] * (TIMED + 1) + [True]
    assert not any(schedule.observe(1000.0, due) for due in [True, False] * 10)
    assert schedule.interval == 2
    assert schedule.facts() == {
        "fraction": FRACTION,
        "interval": 2,
        "plain_step_ms": 1000.0,
        "recording_ms": 250.0,
    }


def test_before_there_is_an_interval_there_are_no_facts():
    schedule = Budgeted(FRACTION)
    followed(schedule, 1.0, 1.0, steps=TIMED_EVERY * (TIMED - 1))
    assert schedule.interval is None
    assert schedule.facts() == {}


def test_without_a_plain_step_that_counts_timing_goes_on():
    schedule = Budgeted(FRACTION)
    assert not any(schedule.observe(1.0, True) for _ in range(5))
    assert not schedule.observe(1.0, False)
    assert schedule.observe(1.0, False)
    assert schedule.interval == 1


def test_noise_leads_to_the_same_or_a_neighbouring_interval():
    rng = np.random.default_rng(0)

    def noisy(seconds):  # a tenth, and now and then an interruption
        return lambda: seconds * rng.lognormal(0, 0.1) * (10 if rng.random() < 0.1 else 1)

    found = []
    for _ in range(50):
        schedule = Budgeted(FRACTION)
        followed(schedule, noisy(1.0), lambda: 4.0 * rng.lognormal(0, 0.1))
        found.append(INTERVALS.index(schedule.interval))
    true = INTERVALS.index(50)
    assert set(found) <= {true - 1, true, true + 1}
    assert found.count(true) > 25


@pytest.mark.parametrize(
    ("interval", "text"),
    [(1, "every step"), (2, "every 2nd step"), (5, "every 5th step"), (50, "every 50th step")],
)
def test_an_interval_reads_as_one_says_it(interval, text):
    assert schedules.interval_text(interval) == text


# --- the settings ---


@pytest.mark.parametrize("own", [budget(), budget(0.5), budget(2, interval=20)])
def test_a_budget_survives_json(own):
    config = json.loads(json.dumps(schedules.to_config(own)))
    assert schedules.from_config(config) == own
    spectra = Spectra(every=own)
    assert Spectra.from_config(json.loads(json.dumps(spectra.get_config()))) == spectra


@pytest.mark.parametrize(
    "fraction", [0, -0.1, 10, 1e9, float("nan"), float("inf"), True, "0.1", None, [0.1]]
)
def test_impossible_fractions_are_refused_with_a_remedy(fraction):
    with pytest.raises(SettingsError, match=r"`fraction` must .*Received: fraction=.*Try "):
        budget(fraction)


@pytest.mark.parametrize("interval", [0, -5, 2.0, True, "5"])
def test_impossible_intervals_are_refused_with_a_remedy(interval):
    with pytest.raises(SettingsError, match=r"`interval` must .*Received: interval=.*Try "):
        budget(interval=interval)


def test_a_known_interval_is_kept_without_timing():
    own = budget(interval=3)
    assert own.started() is own
    assert [step for step in range(10) if own(step, 0, step)] == [0, 3, 6, 9]


def test_every_recording_times_for_itself():
    own = budget()
    assert own.started() is not own.started()


def test_auto_is_a_tenth():
    assert Spectra.of("auto") == Spectra(every=budget(0.1))


# --- in training ---


class Clock:
    """A clock by which a plain execution takes a second, and recording `extra` besides."""

    def __init__(self, extra):
        self.now, self.extra, self.readings = 0.0, extra, 0

    def perf_counter(self):
        self.now += 1.0
        self.readings += 1
        return self.now

    def record(self):
        self.now += self.extra


@pytest.fixture
def clock(monkeypatch):
    """Returns a function that has steps timed by a `Clock`."""

    def set_clock(extra):
        clock = Clock(extra)
        fake = types.SimpleNamespace(perf_counter=clock.perf_counter)
        monkeypatch.setattr(execution, "time", fake)
        monkeypatch.setattr(SpectralLogger, "wait", clock.record)
        return clock

    return set_clock


def tensors():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((3,))
    hidden = keras.layers.Dense(4, activation="relu", name="hidden")(inputs)
    return inputs, keras.layers.Dropout(0.5)(keras.layers.Dense(2, name="out")(hidden))


def compiled(cls=ks.SpectralModel, **options):
    model = cls(*tensors())
    model.compile("adam", "mse", **options)
    return model


def fit(model, epochs=1, **options):
    keras.utils.set_random_seed(1)
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((N, 3)).astype("f"), rng.standard_normal((N, 2)).astype("f")
    model.fit(x, y, epochs=epochs, **{"batch_size": BATCH, "verbose": 0, **options})
    return model


def every_nth(n, begin, end):
    return [step for step in range(begin, end) if step % n == 0]


FACTS = {"fraction": 0.1, "interval": 5, "plain_step_ms": 1000.0, "recording_ms": 400.0}
TIMED_STEPS = [0, 10, 20]


def test_the_default_of_compile_is_auto(clock):
    clock(0.4)
    model = compiled()
    assert model.spectral_logger.settings == Spectra(every=budget(0.1))
    fit(model)
    assert model.spectral_log.steps == [*TIMED_STEPS, 25]
    assert compiled(spectra="auto").spectral_logger.settings == model.spectral_logger.settings


def test_the_interval_stands_in_the_provenance_and_beside_the_csv(clock, tmp_path):
    clock(0.4)
    path = tmp_path / "spectra.csv"
    model = fit(compiled(), callbacks=[ks.callbacks.SpectralCSVLogger(path)])
    provenance = model.spectral_log.provenance
    assert provenance["schedule"] == FACTS
    assert provenance["settings"]["every"] == {"name": "budget", "fraction": 0.1, "interval": None}
    assert json.loads((tmp_path / "spectra.json").read_text())["schedule"] == FACTS
    assert ks.read_log(path).provenance["schedule"] == FACTS
    assert ks.read_log(path).steps == model.spectral_log.steps


def test_the_interval_beside_the_csv_survives_an_interruption(clock, tmp_path):
    clock(0.4)

    def stop(batch, logs):
        if batch == 22:
            raise KeyboardInterrupt

    stopping = keras.callbacks.LambdaCallback(on_train_batch_end=stop)
    writer = ks.callbacks.SpectralCSVLogger(tmp_path / "spectra.csv")
    with pytest.raises(KeyboardInterrupt):
        fit(compiled(), callbacks=[writer, stopping])
    assert ks.read_log(tmp_path / "spectra.csv").provenance["schedule"] == FACTS


def test_another_fit_and_another_compile_keep_the_interval(clock):
    clock(0.4)
    model = fit(compiled())
    slower = clock(40.0)
    fit(model)
    model.compile("adam", "mse")
    fit(model)
    model.compile("adam", "mse", spectra=None)
    fit(model)
    model.compile("adam", "mse", spectra="auto")
    model.spectral_logger.step = 3 * STEPS  # a model without spectra counts no steps
    fit(model)
    assert model.spectral_log.steps == [*TIMED_STEPS, *every_nth(5, 25, 4 * STEPS)]
    assert model.spectral_log.provenance["schedule"] == FACTS
    assert slower.readings == 0


def test_another_fraction_is_timed_anew(clock):
    clock(0.4)
    model = fit(compiled())
    model.compile("adam", "mse", spectra=budget(0.25))
    fit(model)
    assert model.spectral_log.provenance["schedule"] == {**FACTS, "fraction": 0.25, "interval": 2}


def test_several_short_fits_find_an_interval_together(clock):
    clock(0.4)
    model = compiled()
    for _ in range(3):
        fit(model, steps_per_epoch=8)
    assert model.spectral_log.steps == TIMED_STEPS
    assert model.spectral_log.provenance["schedule"] == FACTS


def test_a_log_begun_anew_still_knows_the_interval(clock):
    clock(0.4)
    model = fit(compiled())
    model.spectral_logger.reset_state()
    fit(model)
    assert model.spectral_log.steps == every_nth(5, STEPS, 2 * STEPS)
    assert model.spectral_log.provenance["schedule"] == FACTS


def test_a_log_begun_anew_before_there_is_an_interval_names_none(clock):
    clock(0.4)
    model = fit(compiled(), steps_per_epoch=8)
    model.spectral_logger.reset_state()
    assert "schedule" not in model.spectral_log.provenance


def test_a_given_interval_is_followed_without_timing(clock):
    untouched = clock(0.4)
    model = fit(compiled(spectra=budget(interval=7)))
    assert model.spectral_log.steps == every_nth(7, 0, STEPS)
    assert untouched.readings == 0


def test_the_last_shorter_execution_of_an_epoch_is_timed_by_its_own_steps(clock, monkeypatch):
    clock(0.5)
    times = []
    monkeypatch.setattr(SpectralLogger, "observe", lambda _, *time: times.append(time))
    # Executions of 4 steps and 1: where one of the next four is due, they run one by one.
    fit(compiled(steps_per_execution=4), epochs=2, batch_size=N // 5)
    first = [(1.5, True), (1.0, False), (1.0, False), (1.0, False), (1.0, False)]
    assert times == [*first, (0.25, False), (1.0, False)]


@pytest.mark.parametrize(
    "options",
    [{}, {"steps_per_execution": 4}, {"steps_per_execution": 16}, {"run_eagerly": True}],
    ids=["graph", "4 steps per execution", "16 steps per execution", "eager"],
)
def test_weights_equal_those_of_a_plain_model_bit_for_bit(options):
    watched, plain = (fit(compiled(cls, **options)) for cls in (ks.SpectralModel, keras.Model))
    for mine, own in zip(watched.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, own)
    assert watched.spectral_log.provenance["schedule"]["interval"] in INTERVALS
    assert watched.spectral_log.steps[:TIMED] == TIMED_STEPS


def test_the_interval_is_told_once(clock, capsys):
    clock(0.4)
    model = fit(compiled(), epochs=3, verbose=2)
    fit(model, verbose=2)
    said = capsys.readouterr().err
    assert said.count("Spectra of every 5th step are recorded") == 1
    assert "recording one takes 400.0 ms beside 1000.0 ms of a plain step" in said
    assert "try fewer `layers` or `quantities`, or `top_k`" in said
    assert "`spectra=1`" in said


def test_a_silent_fit_tells_nothing(clock, capsys):
    clock(0.4)
    model = fit(compiled(), epochs=2)
    fit(model, verbose=2)
    captured = capsys.readouterr()
    assert "Spectra" not in captured.err + captured.out


@pytest.mark.filterwarnings("ignore:.*Nothing is recorded:UserWarning")
def test_where_nothing_is_recorded_nothing_is_told(clock, capsys):
    class Bypassing(ks.SpectralModel):
        def train_step(self, data):
            return self.compute_metrics(*data, self(data[0]))

    clock(0.4)
    fit(compiled(Bypassing), verbose=2)
    assert "Spectra" not in capsys.readouterr().err


def test_a_trained_model_is_looked_at_whole(clock):
    clock(0.4)
    model = fit(compiled())
    x, y = np.ones((12, 3), "f"), np.ones((12, 2), "f")
    assert ks.introspect(model, x, y, batch_size=4).steps == [0, 1, 2]


# --- in a run ---

SUBJECTS = 16
RUN = Plan(folds=2, epochs=8, batch_size=2, permutations=0)
RUN_STEPS = 8 * 4  # epochs x batches of 8 subjects
LINE = (
    "every 5th step; recording one takes 400.0 ms beside 1000.0 ms of a plain step, and may take "
    "10% of the time of training"
)


def study():
    x = np.random.default_rng(0).normal(size=(SUBJECTS, 4))
    groups = pd.Series(np.resize(np.array(["F", "F", "M", "M"], dtype=object), SUBJECTS))
    return Study(x, np.arange(SUBJECTS) % 2, ("HC", "SZ"), groups, {})


def trained(path, plan=RUN, resume=False, **options):
    folder = experiment.prepared_folder(path, study(), plan, resume=resume)
    _, probe = experiment.cross_validated(study(), plan, folder, **options)
    return folder, probe


def steps_of(folder, fold):
    return ks.read_log(fold_folder(folder, fold, 0) / "spectra.csv").steps


def every_of(folder, fold):
    log = ks.read_log(fold_folder(folder, fold, 0) / "spectra.csv")
    return log.provenance["settings"]["every"]


def test_all_folds_take_the_interval_of_the_first_and_the_report_says_why(clock, tmp_path):
    clock(0.4)
    folder, probe = trained(tmp_path / "run")
    first = ks.read_log(fold_folder(folder, 0, 0) / "spectra.csv")
    assert first.provenance["schedule"] == FACTS
    assert first.steps == [*TIMED_STEPS, *every_nth(5, 25, RUN_STEPS)]
    assert steps_of(folder, 1) == every_nth(5, 0, RUN_STEPS)
    assert every_of(folder, 1)["interval"] == 5
    for log in (probe, ks.read_log(folder / "spectra.csv")):
        assert log.provenance["recorded_steps"] == LINE
        assert log.provenance["plan"]["every"] == "auto"
    experiment.findings(probe, folder, study())
    assert LINE in (folder / "report.html").read_text()


def test_a_resumed_run_takes_the_interval_that_was_found_before(clock, tmp_path):
    def stopped(fold, *_):
        if fold == 1:
            raise KeyboardInterrupt

    clock(0.4)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "run", progress=stopped)
    clock(40.0)  # which alone would lead to another interval
    folder, probe = trained(tmp_path / "run", resume=True)
    assert steps_of(folder, 1) == every_nth(5, 0, RUN_STEPS)
    assert probe.provenance["recorded_steps"] == LINE


def test_with_two_jobs_the_first_fold_is_trained_before_the_others(clock, tmp_path, monkeypatch):
    clock(0.4)
    monkeypatch.setattr(experiment, "train_quietly", experiment.train)
    seen = []
    with joblib.parallel_config("threading"):
        folder, _ = trained(tmp_path / "run", jobs=2, progress=lambda *now: seen.append(now))
    assert seen == [(0, 0, RUN.epochs - 1, 0), (1, 0, RUN.epochs - 1, 0)]
    assert steps_of(folder, 1) == every_nth(5, 0, RUN_STEPS)


@pytest.mark.slow
def test_processes_take_the_interval_of_the_first_fold(tmp_path):
    folder, _ = trained(tmp_path / "run", Plan(3, 1, 8, 2, permutations=0), jobs=2)
    first = ks.read_log(fold_folder(folder, 0, 0) / "spectra.csv")
    interval = first.provenance["schedule"]["interval"]
    assert [every_of(folder, fold)["interval"] for fold in (1, 2)] == [interval] * 2


def test_a_first_fold_too_short_to_time_is_followed_all_the_same(tmp_path):
    plan = Plan(folds=2, epochs=4, batch_size=2, permutations=0)
    folder, probe = trained(tmp_path / "run", plan)
    assert [steps_of(folder, fold) for fold in (0, 1)] == [[0, 10], [0, 10]]
    said = "every 10th step; the first training was too short to time more"
    assert probe.provenance["recorded_steps"] == said


def test_a_given_interval_is_that_of_all_folds_and_nothing_is_timed(clock, tmp_path):
    untouched = clock(0.4)
    folder, probe = trained(tmp_path / "run", Plan(2, 1, 2, 2, permutations=0, every=3))
    assert [steps_of(folder, fold) for fold in (0, 1)] == [[0, 3, 6], [0, 3, 6]]
    assert every_of(folder, 1) == {"name": "every", "n": 3}
    assert "recorded_steps" not in probe.provenance
    assert untouched.readings == 0
