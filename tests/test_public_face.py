"""What users import: sorted, complete, and light where no training is done."""

import importlib
import subprocess
import sys
import textwrap

import pytest

import keras_spectral as ks

PACKAGES = ["keras_spectral", "keras_spectral.analysis", "keras_spectral.callbacks"]

HEAVY = ("tensorflow", "keras", "tf_keras", "tensorflow_probability")


def run(code):
    """Run code in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", PACKAGES)
def test_public_names_are_sorted_and_resolve(name):
    package = importlib.import_module(name)
    assert list(package.__all__) == sorted(package.__all__)
    for public in package.__all__:
        assert getattr(package, public) is not None
    assert set(package.__all__) <= set(dir(package))


def test_public_names_are_those_of_the_design():
    assert {
        "Spectra",
        "SpectralLog",
        "SpectralLogger",
        "SpectralModel",
        "analysis",
        "callbacks",
        "coverage",
        "introspect",
        "permutations",
        "read_log",
        "schedules",
        "with_groups",
    } <= set(ks.__all__)


@pytest.mark.parametrize("name", ["keras_spectral", "keras_spectral.analysis"])
def test_other_names_are_attribute_errors(name):
    package = importlib.import_module(name)
    with pytest.raises(
        AttributeError, match=f"module '{name}' has no attribute 'spectrum_of_doom'"
    ):
        package.spectrum_of_doom  # noqa: B018


def test_every_error_is_a_spectral_error_and_documented():
    errors = [e for e in vars(ks.errors).values() if isinstance(e, type)]
    assert len(errors) > 5
    for error in errors:
        assert issubclass(error, ks.errors.SpectralError)
        assert error.__name__ in ks.errors.__doc__
        builtin = ValueError if error is not ks.errors.RecordingError else RuntimeError
        assert error is ks.errors.SpectralError or issubclass(error, builtin)


def test_what_works_after_training_leaves_tensorflow_alone(tmp_path):
    out = run(
        f"""
        import sys
        import keras_spectral as ks
        ks.SpectralLog().to_csv({str(tmp_path / "s.csv")!r})
        log = ks.read_log({str(tmp_path / "s.csv")!r})
        log.summary(), log.to_dataframe()
        ks.permutations(["a", "b"], n=2)
        ks.Spectra(every=ks.schedules.logarithmic(3)), ks.errors.LogError
        ks.analysis.compare_groups, ks.analysis.report, ks.analysis.figures
        print([name for name in {HEAVY} if name in sys.modules])
        """
    )
    assert out.strip() == "[]"


def test_importing_the_package_loads_next_to_nothing():
    out = run(
        f"""
        import sys
        import keras_spectral
        dir(keras_spectral), keras_spectral.__version__
        heavy = (*{HEAVY}, "pandas", "numpy", "matplotlib", "scipy")
        print([name for name in heavy if name in sys.modules])
        """
    )
    assert out.strip() == "[]"


def test_a_star_import_brings_every_name():
    names = {}
    exec("from keras_spectral import *", names)
    assert set(ks.__all__) <= set(names)


@pytest.mark.parametrize("module", ["experiment.run", "introspection"])
def test_a_module_that_models_need_may_be_the_first_to_import_keras(module):
    run(f"import keras_spectral.{module}, keras_spectral as ks; ks.SpectralModel")
