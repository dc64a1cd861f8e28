"""Every example runs as it stands, on simulated data, and draws the figure that it promises."""

import ast
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))
MOST_LINES = 120
SMALLEST_FIGURE = (900, 400)  # pixels, of one row of panels at 150 dots per inch
FEWEST_BYTES = 20_000  # an empty figure of that size has 5000

every_example = pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)


@pytest.mark.slow
@every_example
def test_an_example_runs_and_draws_its_figure(path, tmp_path):
    quiet = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, str(path), "--out", str(tmp_path / "figures")]
    done = subprocess.run(command, cwd=tmp_path, env=quiet, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Warning" not in done.stderr
    assert [item.name for item in tmp_path.iterdir()] == ["figures"]
    image = (tmp_path / "figures" / f"{path.stem}.png").read_bytes()
    assert image.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">2I", image[16:24])
    assert (width >= SMALLEST_FIGURE[0], height >= SMALLEST_FIGURE[1]) == (True, True)
    assert len(image) > FEWEST_BYTES


def test_examples_are_numbered_without_a_gap():
    assert EXAMPLES
    assert [int(path.stem[:2]) for path in EXAMPLES] == list(range(len(EXAMPLES)))


@every_example
def test_an_example_is_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


@every_example
def test_an_example_says_what_is_learned_and_that_its_data_is_simulated(path):
    says = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert "You will learn" in says
    assert "The data is simulated" in says.replace("\n", " ")


@every_example
def test_an_example_ends_with_two_sentences_on_reading_its_figure(path):
    *_, last = path.read_text(encoding="utf-8").split("\n\n")
    lines = last.strip().splitlines()
    assert all(line.startswith("# ") for line in lines)
    comment = " ".join(line.removeprefix("# ") for line in lines)
    assert comment.startswith("How to read it: ")
    assert comment.count(". ") == 1
    assert comment.endswith(".")
