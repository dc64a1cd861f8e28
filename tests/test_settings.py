"""What to record and when: settings that refuse nonsense, schedules that choose steps."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_spectral import schedules
from keras_spectral.errors import SettingsError
from keras_spectral.settings import QUANTITIES, Spectra

# --- settings ---


def test_everything_is_recorded_at_every_step_by_default():
    spectra = Spectra()
    assert spectra.every == schedules.every(1)
    assert spectra.quantities == QUANTITIES
    assert spectra.selects("any/layer", object())
    assert spectra == Spectra.of(1) == Spectra.of(Spectra())


def test_shorthands_mean_settings():
    assert Spectra.of(10) == Spectra(every=schedules.every(10))
    assert Spectra.of(schedules.at([3])) == Spectra(every=schedules.at([3]))
    assert Spectra.of(None) is None


@pytest.mark.parametrize("value", ["10", 1.5, True, False, [1], {"every": 1}, np.arange(3)])
def test_other_shorthands_are_refused(value):
    with pytest.raises(SettingsError, match=r"`spectra` must be .*Received: spectra=.*Try "):
        Spectra.of(value)


@pytest.mark.parametrize("n", [0, -3])
def test_a_shorthand_must_be_positive(n):
    with pytest.raises(SettingsError, match="positive"):
        Spectra.of(n)


REFUSED = {
    "every": [0, -1, True, "10", 2.0, None, [1, 2]],
    "quantities": ["weights", ["gradient", "hessian"], (), None, 3, [None]],
    "top_k": [0, -1, 1.5, "3", True],
    "method": ["qr", None, 3, ("gram", "svd"), (), ["svd"]],
    "gradients": ["exact", None, ("factors",)],
    "show": ["loss", ["effective_rank", "energy"], 3],
    "layers": [3, [], (), ["dense", None], [object()]],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in REFUSED.items() for value in values]
)
def test_impossible_settings_are_refused_by_name(name, value):
    with pytest.raises(SettingsError, match=r"must .*Received: "):
        Spectra(**{name: value})


def test_errors_name_the_setting():
    for name, values in REFUSED.items():
        with pytest.raises(ValueError, match=f"`({name}|n)` must"):
            Spectra(**{name: values[0]})


def test_quantities_stand_in_one_order_and_once():
    for given_ in (["gradient", "activation"], ("activation", "gradient", "gradient")):
        assert Spectra(quantities=given_).quantities == ("activation", "gradient")
    assert Spectra(quantities="adjoint").quantities == ("adjoint",)


@pytest.mark.parametrize(
    ("layers", "path", "selected"),
    [
        ("dense", "dense", True),
        ("dense", "encoder/dense", False),
        ("encoder/*", "encoder/a/b", True),
        ("encoder/*", "decoder/a", False),
        (["a", "b?"], "b1", True),
        ("Dense", "dense", False),
        ("d[ab]", "da", True),
    ],
)
def test_layers_are_selected_by_path_or_pattern(layers, path, selected):
    assert Spectra(layers=layers).selects(path, object()) is selected


def test_layers_are_selected_by_a_function_of_the_layer():
    spectra = Spectra(layers=lambda layer: layer == "wide")
    assert spectra.selects("path", "wide") is True
    assert spectra.selects("path", "narrow") is False


def test_settings_cannot_be_changed_afterwards():
    with pytest.raises(AttributeError):
        Spectra().top_k = 3


every_schedule = st.one_of(
    st.builds(schedules.every, st.integers(1, 1000)),
    st.builds(schedules.epochs, st.integers(1, 50)),
    st.builds(schedules.logarithmic, st.integers(1, 20)),
    st.builds(schedules.at, st.lists(st.integers(0, 10**9), min_size=1)),
)


@given(
    st.builds(
        Spectra,
        every=every_schedule,
        quantities=st.lists(st.sampled_from(QUANTITIES), min_size=1),
        layers=st.none() | st.text() | st.lists(st.text(), min_size=1),
        top_k=st.none() | st.integers(1, 100),
        method=st.sampled_from(["auto", "gram", "svd"]),
        strict=st.booleans(),
        gradients=st.sampled_from(["factors", "per_example"]),
        show=st.lists(st.sampled_from(["effective_rank", "spectral_norm"])),
    )
)
def test_settings_survive_json(spectra):
    assert Spectra.from_config(json.loads(json.dumps(spectra.get_config()))) == spectra


@pytest.mark.parametrize("name", ["every", "layers"])
def test_functions_have_no_plain_form(name):
    spectra = Spectra(**{name: lambda *_: True})
    with pytest.raises(SettingsError, match=f"`{name}` must be .* to be saved with a model"):
        spectra.get_config()


# --- schedules ---

BATCHES = 7
STEPS = [(step, step // BATCHES, step % BATCHES) for step in range(120)]


def recorded(schedule):
    """Return the steps that a schedule records, asked in Python."""
    return [step for step, epoch, batch in STEPS if schedule(step, epoch, batch)]


def test_every_records_the_first_and_every_nth_step():
    assert recorded(schedules.every(50)) == [0, 50, 100]
    assert recorded(schedules.every()) == list(range(120))


def test_epochs_record_the_first_step_of_every_nth_epoch():
    assert recorded(schedules.epochs(6)) == [0, 42, 84]
    assert recorded(schedules.epochs()) == list(range(0, 120, BATCHES))


def test_at_records_the_given_steps():
    assert recorded(schedules.at([100, 3, 3, 10**6])) == [3, 100]
    assert schedules.at(range(3)) == schedules.at(np.array([2.0, 1, 0])) == schedules.at((0, 1, 2))


def test_logarithmic_records_ever_more_rarely():
    assert recorded(schedules.logarithmic(1)) == [0, 1, 10, 100]
    assert recorded(schedules.logarithmic(3)) == [0, 1, 2, 5, 10, 22, 46, 100]
    steps = schedules.logarithmic(10).steps
    assert steps[-1] == 10**9
    per_decade = np.histogram(np.log10(steps[1:]), bins=np.arange(2, 10) - 1e-9)[0]
    assert per_decade.tolist() == [10] * 7


@given(every_schedule, st.integers(0, 10**6))
def test_a_schedule_answers_with_a_python_boolean(schedule, step):
    assert isinstance(schedule(step, step // BATCHES, step % BATCHES), bool)


def test_a_schedule_of_ones_own_is_a_plain_function():
    def own(step, epoch, batch):
        return step % 2 == 0 and epoch < 2 and batch != 0

    assert recorded(Spectra(every=own).every) == [2, 4, 6, 8, 10, 12]


def test_large_steps_are_told_apart():
    due = schedules.at([2**40])
    assert due(2**40, 0, 0)
    assert not due(2**40 + 1, 0, 0)


@pytest.mark.parametrize("schedule", [schedules.every, schedules.epochs, schedules.logarithmic])
@pytest.mark.parametrize("n", [0, -1, 1.0, True, "2", None])
def test_schedules_need_positive_whole_numbers(schedule, n):
    with pytest.raises(SettingsError, match=r"must be a positive whole number. Received: \w+="):
        schedule(n)


@pytest.mark.parametrize(
    "steps", [[], [-1], [0.5], [True], ["1"], [None], [math.nan], [math.inf], 5, "12", [[1]], None]
)
def test_at_needs_whole_steps(steps):
    with pytest.raises(SettingsError, match=r"`steps` must hold"):
        schedules.at(steps)


@given(every_schedule)
def test_schedules_survive_json(schedule):
    config = json.loads(json.dumps(schedules.to_config(schedule)))
    assert schedules.from_config(config) == schedule


def test_a_namesake_of_a_schedule_has_no_plain_form():
    namesake = type("every", (), {"__call__": lambda self, *_: True})()
    with pytest.raises(SettingsError, match="must be a schedule of"):
        schedules.to_config(namesake)
