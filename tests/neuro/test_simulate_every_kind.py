"""What holds for every simulator: who is different, who is not, and that files can be read."""

import numpy as np
import pytest

from keras_spectral.errors import DataError
from keras_spectral.neuro import simulate
from keras_spectral.neuro.tables import load_tables
from keras_spectral.neuro.time_series import load_time_series
from keras_spectral.neuro.volumes import load_volumes

SIMULATORS = {
    simulate.simulated_fnc: {"n_features": 50},
    simulate.simulated_freesurfer: {},
    simulate.simulated_time_series: {"n_time": 30, "n_regions": 9},
    simulate.simulated_volumes: {"shape": (8, 9, 10)},
}


@pytest.fixture(params=SIMULATORS, ids=lambda simulator: simulator.__name__)
def simulated(request):
    """A simulator of few, small subjects: a function to an array and a phenotype."""

    def made(**settings):
        settings = {"n_subjects": 20, **SIMULATORS[request.param], **settings}
        x, phenotype = request.param(**settings)
        return np.asarray(x), phenotype

    return made


def of_group(phenotype, factor="site"):
    return (phenotype[factor] == simulate.FACTORS[factor][1]).to_numpy()


def test_subjects_have_the_sizes_and_names_asked_for(simulated):
    x, phenotype = simulated(group_size=8)
    assert (len(x), x.dtype) == (20, np.float32)
    assert np.isfinite(x).all()
    assert phenotype.columns.tolist() == ["id", "diagnosis", "sex", "site"]
    assert phenotype["id"].tolist() == [f"sim{k:02d}" for k in range(1, 21)]
    assert phenotype["site"].value_counts().to_dict() == {"A": 12, "B": 8}
    assert phenotype["diagnosis"].value_counts().to_dict() == {"HC": 10, "SZ": 10}


def test_a_seed_gives_the_same_subjects_and_another_gives_others(simulated):
    (first, phenotype), (again, same), (other, _) = (simulated(seed=seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert phenotype.equals(same)
    assert not np.isclose(first, other)[first != 0].all()


def test_without_a_group_effect_values_do_not_depend_on_the_groups(simulated):
    x, phenotype = simulated(group_effect=0, factor="site", group_size=8)
    other_x, other_phenotype = simulated(group_effect=0, factor="sex", group_size=15)
    np.testing.assert_array_equal(x, other_x)
    assert not phenotype["site"].equals(other_phenotype["site"])


@pytest.mark.parametrize("factor", ["site", "sex"])
def test_the_group_effect_changes_everybody_of_the_group_and_nobody_else(simulated, factor):
    null, _ = simulated(group_effect=0, factor=factor)
    planted, phenotype = simulated(group_effect=1, factor=factor)
    changed = (null != planted).reshape(20, -1).any(axis=1)
    np.testing.assert_array_equal(changed, of_group(phenotype, factor))


def test_the_effect_changes_every_patient_and_no_control(simulated):
    null, _ = simulated(effect=0)
    planted, phenotype = simulated(effect=2)
    changed = (null != planted).reshape(20, -1).any(axis=1)
    np.testing.assert_array_equal(changed, of_group(phenotype, "diagnosis"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"factor": "diagnosis"}, "The difference between diagnoses is `effect`"),
        ({"group_size": 0}, "`group_size` must leave"),
        ({"group_size": 20}, "`group_size` must leave"),
        ({"group_effect": -1}, "`group_effect` must be above -1"),
        ({"group_effect": float("nan")}, "`group_effect` must be above -1"),
    ],
)
def test_impossible_settings_are_an_error(simulated, settings, message):
    with pytest.raises(DataError, match=message):
        simulated(**settings)


@pytest.mark.parametrize(
    ("simulator", "settings", "message"),
    [
        (simulate.simulated_fnc, {"n_features": 9}, "`n_features` must be at least 10"),
        (simulate.simulated_time_series, {"n_regions": 7}, "`n_regions` must be at least 8"),
        (simulate.simulated_time_series, {"n_time": 1}, "`n_time` must be at least 2"),
        (simulate.simulated_volumes, {"shape": (8, 8)}, "`shape` must be three numbers"),
        (simulate.simulated_volumes, {"shape": (8, 7, 8)}, "`shape` must be .* at least 8"),
    ],
)
def test_too_small_data_is_an_error(simulator, settings, message):
    with pytest.raises(DataError, match=message):
        simulator(**settings)


@pytest.mark.parametrize(
    ("write", "simulator", "load", "options"),
    [
        (simulate.write_simulated_tables, simulate.simulated_fnc, load_tables, {}),
        (simulate.write_simulated_freesurfer, simulate.simulated_freesurfer, load_tables, {}),
        (
            simulate.write_simulated_time_series,
            simulate.simulated_time_series,
            load_time_series,
            {"standardize": False},
        ),
        (
            simulate.write_simulated_volumes,
            simulate.simulated_volumes,
            load_volumes,
            {"normalize": False},
        ),
    ],
)
def test_the_loader_reads_back_what_was_written(write, simulator, load, options, tmp_path):
    settings = {"n_subjects": 12, "seed": 3, **SIMULATORS[simulator]}
    files, labels = write(tmp_path / "new", **settings)
    x, y, read = load(files, labels, "diagnosis", **options)
    values, phenotype = simulator(**settings)
    x = x.array() if load is load_volumes else np.asarray(x)
    np.testing.assert_array_equal(x.astype(np.float32), np.asarray(values))
    assert y.tolist() == of_group(phenotype, "diagnosis").astype(int).tolist()
    assert read["site"].tolist() == phenotype["site"].tolist()
    prefix = "sub-" if load is load_volumes else ""
    assert read.index.tolist() == (prefix + phenotype["id"]).tolist()


@pytest.mark.parametrize("write", [w for w in dir(simulate) if w.startswith("write_")])
def test_what_is_written_is_called_simulated(write, tmp_path):
    getattr(simulate, write)(tmp_path, n_subjects=4)
    assert all(path.name.startswith("simulated") for path in tmp_path.iterdir())
