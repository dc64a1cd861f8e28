"""Every benchmark runs, and writes the page that it is asked for."""

import importlib
from pathlib import Path

import numpy as np
import pytest

from benchmarks import ablation, choices, gpu, overhead, rules, scale
from benchmarks.page import section, with_section
from benchmarks.training import CASES, PLAIN
from keras_spectral.spectra import host

NEED_TORCH = {"cockpit_economy", "hooks", "opacus_samples", "torch_networks"}

FOLDER = Path(overhead.__file__).parent

MODULES = [
    ".".join(path.relative_to(FOLDER.parent).with_suffix("").parts)
    for path in sorted(FOLDER.rglob("*.py"))
    if path.stem not in NEED_TORCH
]

SMALLEST = "MLP 378"

PAGE = "# Title\n\nText.\n\n## One\n\nOld.\n\n## Other\n\nStays.\n"


@pytest.mark.parametrize("name", MODULES)
def test_a_module_is_imported(name):
    importlib.import_module(name)


def test_a_section_takes_the_place_of_that_of_the_same_heading():
    page = with_section(PAGE, "## One\n\nNew.\n")
    assert page == PAGE.replace("Old.", "New.")
    assert with_section(page, section(PAGE, "One")) == PAGE


def test_a_new_section_comes_last():
    page = with_section(PAGE, "## New\n\nText.\n")
    assert page == f"{PAGE}\n## New\n\nText.\n"
    assert section(PAGE, "New") == ""


@pytest.mark.parametrize("name", ablation.FUNCTIONS)
def test_one_compiled_function_is_missing_and_no_other(name):
    def there(asked):
        return ablation.FUNCTIONS[asked].compiled(asked) is not None

    before = {asked: there(asked) for asked in ablation.FUNCTIONS}
    with ablation.without(name):
        assert {asked: there(asked) for asked in ablation.FUNCTIONS} == {**before, name: False}
    assert {asked: there(asked) for asked in ablation.FUNCTIONS} == before


def test_eigenvalues_are_the_same_without_the_compiled_function():
    rows = np.random.default_rng(0).standard_normal((40, 12, 12))
    grams = rows @ rows.swapaxes(-1, -2)
    found = host.eigenvalues(grams)
    with ablation.without("eigenvalues"):
        np.testing.assert_allclose(host.eigenvalues(grams), found, atol=1e-12 * grams.max())


def test_a_gain_is_the_step_without_by_the_step_with():
    times = {PLAIN: [1.0, 2.0], ablation.ALL: [2.0, 4.0]}
    times |= {"eigenvalues": [3.0, 6.0], "lattice_products": [2.0, 4.0]}
    row = ablation.row("name", times)
    assert dict(zip(ablation.HEAD[3:], row[3:], strict=True)) == {
        "ratio with all": "2.00",
        "without `eigenvalues`": "3.00",
        "gain of `eigenvalues`": "1.50",
        "without `lattice_products`": "2.00",
        "gain of `lattice_products`": "1.00",
    }


def test_the_overhead_of_every_case_is_measured():
    (name,) = [name for name in overhead.WORKLOADS if name.startswith(SMALLEST)]
    times = overhead.measured(name, **overhead.QUICK)
    rows = list(overhead.rows(name, times))
    assert [row[1] for row in rows] == list(CASES)
    assert all(len(row) == len(overhead.HEAD) for row in rows)
    assert all(value > 0 for values in times.values() for value in values)


def test_workloads_have_targets():
    assert set(overhead.TARGETS) == set(overhead.WORKLOADS)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("main", "arguments"),
    [
        (overhead.main, ["--quick", "--only", SMALLEST]),
        (ablation.main, ["--seconds", "0", "--steps", "2", "--only", "1D CNN"]),
        (choices.main, ["--quick", "--repeats", "1", "--only", SMALLEST]),
        (rules.main, ["--steps", "2", "--repeats", "1", "--only", "Dense"]),
        (scale.main, ["--quick", "--seconds", "0", "--only", "layers"]),
        (gpu.main, ["--cpu", "--seconds", "0", "--only", SMALLEST]),
    ],
    ids=["overhead", "ablation", "choices", "rules", "scale", "gpu"],
)
def test_a_page_is_written(main, arguments, tmp_path):
    (tmp_path / "images").mkdir()
    page = tmp_path / "page.md"
    page.write_text(PAGE, encoding="utf-8")
    assert not main([*arguments, "--write", str(page)])
    text = page.read_text(encoding="utf-8")
    assert "Made by `python -m benchmarks." in text
    assert "| --- |" in text
