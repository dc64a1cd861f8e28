"""Logs on disk: read back value for value, and never read wrongly."""

import gzip
import json
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_spectral.errors import LogError
from keras_spectral.log import SpectralLog, files, read_log
from keras_spectral.log.files import json_path, permutations_path
from keras_spectral.log.schema import FACTS, KEYS
from keras_spectral.summaries import SUMMARIES

SUFFIXES = (".csv", ".csv.gz", ".parquet")


def log_of(spectra, truncated=False, groups=None, layers="dense", run="", **options):
    """Return a log with one record per spectrum, whose norm is (wrongly) its first value."""
    n = len(spectra)
    width = max((len(values) for values in spectra), default=0)
    sigma = np.full((n, width), np.nan)
    for row, values in zip(sigma, spectra, strict=True):
        row[: len(values)] = values
    rows = pd.DataFrame({"run": [run] * n, "epoch": 0, "step": range(n), "layer": layers})
    rows = rows.assign(
        weight="kernel", quantity="gradient", group="all" if groups is None else groups
    )
    rows = rows.assign(n_examples=3, batch_size=4, n_rows=3)
    rows["rank_bound"] = [len(values) + bool(truncated) for values in spectra]
    rows = rows.assign(frobenius_norm=sigma[:, 0] if width else [], truncated=truncated)
    return SpectralLog(rows, sigma, **options)


def permuted_groups(n=3, group="SZ"):
    """Return a permutations table with a NaN summary."""
    table = pd.DataFrame({"run": [""] * n, "epoch": 0, "step": 0, "layer": "dense"})
    table = table.assign(weight="kernel", quantity="gradient", group=group)
    table = table.assign(permutation=range(1, n + 1), n_examples=1, batch_size=2, n_rows=1)
    values = np.random.default_rng(0).random((n, len(SUMMARIES))) * 1e-7
    values[0, 3] = np.nan
    return table.assign(**dict(zip(SUMMARIES, values.T, strict=True)))


def written(log, path):
    """Write a log in the format that the suffix of `path` names."""
    (log.to_parquet if path.suffix == ".parquet" else log.to_csv)(path)
    return path


def assert_equal_logs(found, expected):
    pd.testing.assert_frame_equal(found.rows, expected.rows, check_dtype=False, check_exact=True)
    assert found.sigma.tobytes() == expected.sigma.tobytes()
    assert found.rows["truncated"].dtype == bool
    for column in ("epoch", "step", "n_examples", "rank_bound"):
        assert found.rows[column].dtype == np.int64
    pd.testing.assert_frame_equal(
        found.permutations, expected.permutations, check_dtype=False, check_exact=True
    )
    assert found.provenance == expected.provenance


NAN = float("nan")
SPECTRA = [[3.0, 1 / 3, 1e-300], [5e-324], [NAN, NAN], [0.0, 0.0, 0.0, 0.0], [1e308, 0.1]]

# --- round trips ---


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("truncated", [False, True])
def test_a_log_comes_back_value_for_value(tmp_path, suffix, truncated):
    log = log_of(SPECTRA, truncated, permutations=permuted_groups(), provenance={"seeds": [1, 2]})
    found = read_log(written(log, tmp_path / f"spectra{suffix}"))
    assert_equal_logs(found, log)
    for step, values in enumerate(SPECTRA):
        kept = found.singular_values("dense", step=step)
        if not (truncated and np.isnan(values[0])):  # then only the width of the log is known
            np.testing.assert_array_equal(kept, values)


@settings(max_examples=20)
@given(st.lists(st.lists(st.floats(0), min_size=1, max_size=40), min_size=1, max_size=4))
def test_any_float_survives_csv(tmp_path_factory, spectra):
    log = log_of(spectra)
    path = tmp_path_factory.mktemp("csv") / "spectra.csv"
    log.to_csv(path)
    assert read_log(path).sigma.tobytes() == log.sigma.tobytes()


names = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8)


@settings(max_examples=20)
@given(names, names, st.sampled_from(SUFFIXES))
def test_any_one_line_name_survives(tmp_path_factory, layer, group, suffix):
    log = log_of([[1.0], [NAN]], layers=layer, groups=group, run=group)
    path = tmp_path_factory.mktemp("names") / f"spectra{suffix}"
    found = read_log(written(log, path))
    assert found.rows[["run", "layer", "group"]].values.tolist() == [[group, layer, group]] * 2


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    "name", ["1", "01", "NA", "nan", "None", "null", "", "True", 'a,b"c"', "größe/层 1", " x ", "#"]
)
def test_names_that_csv_readers_like_to_change_survive(tmp_path, suffix, name):
    log = log_of(
        [[1.0], [NAN]], layers=name, groups=name, run=name, permutations=permuted_groups(1)
    )
    log.permutations["group"] = name
    found = read_log(written(log, tmp_path / f"spectra{suffix}"))
    assert found.layers == found.groups == found.runs == [name]
    assert found.permutations["group"].tolist() == [name]
    assert found.singular_values(name, group=name, step=0).tolist() == [1.0]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_run_labels_survive(tmp_path, suffix):
    log = log_of([[1.0]], permutations=permuted_groups(1))
    labels = {"fold": 3, "site": "nan", "rate": 0.1}
    found = read_log(written(log.with_run(labels), tmp_path / f"spectra{suffix}"))
    for table in (found.rows, found.permutations):
        assert list(table)[:5] == ["run", *labels, "epoch"]
        assert table.loc[0, list(labels)].tolist() == [3, "nan", 0.1]
    assert len(found.select(fold=3, site="nan")) == 1


def test_runs_without_a_label_have_none(tmp_path):
    log = SpectralLog.concat([log_of([[1.0]]).with_run({"fold": 1}), log_of([[1.0]], run="x")])
    log.to_csv(tmp_path / "spectra.csv")
    np.testing.assert_array_equal(read_log(tmp_path / "spectra.csv").rows["fold"], [1, NAN])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_empty_log_comes_back_empty(tmp_path, suffix):
    found = read_log(written(SpectralLog(), tmp_path / f"spectra{suffix}"))
    assert len(found) == 0
    assert list(found.rows) == [*KEYS, *FACTS]


def test_pandas_opens_the_file_plainly(tmp_path):
    written(log_of(SPECTRA), tmp_path / "spectra.csv")
    table = pd.read_csv(tmp_path / "spectra.csv")
    assert list(table) == [*KEYS, *FACTS, *(f"sigma_{j}" for j in range(1, 5))]
    assert table["sigma_1"].dtype == table["frobenius_norm"].dtype == float
    np.testing.assert_array_equal(table["sigma_2"], [1 / 3, NAN, NAN, 0.0, 0.1])


def test_numpy_values_in_the_provenance_become_plain(tmp_path):
    facts = {"seed": np.int64(3), "rate": np.float32(0.5), "sizes": np.arange(2), "path": tmp_path}
    log_of([[1.0]], provenance=facts).to_csv(tmp_path / "spectra.csv")
    found = read_log(tmp_path / "spectra.csv").provenance
    assert found == {"seed": 3, "rate": 0.5, "sizes": [0, 1], "path": str(tmp_path)}


# --- the files beside ---


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("spectra.csv", "spectra"),
        ("spectra.csv.gz", "spectra"),
        ("a.b.parquet", "a.b"),
        ("spectra", "spectra"),
    ],
)
def test_permutations_and_provenance_stand_beside_the_log(tmp_path, name, stem):
    folder = tmp_path / "v1.0"
    assert permutations_path(folder / name) == folder / f"{stem}.permutations.csv.gz"
    assert json_path(folder / name) == folder / f"{stem}.json"


def test_permutations_of_an_older_log_are_not_left_beside_a_new_one(tmp_path):
    log_of([[1.0]], permutations=permuted_groups()).to_csv(tmp_path / "spectra.csv")
    log_of([[2.0]]).to_csv(tmp_path / "spectra.csv")
    assert len(read_log(tmp_path / "spectra.csv").permutations) == 0


@pytest.mark.parametrize("content", ["", "{", "[1]", "3", "\xff"])
def test_a_broken_provenance_is_an_error_that_names_the_file(tmp_path, content):
    log_of([[1.0]]).to_csv(tmp_path / "spectra.csv")
    (tmp_path / "spectra.json").write_text(content, encoding="latin-1")
    with pytest.raises(LogError, match=r"must be a JSON dictionary. Received: .*spectra.json"):
        read_log(tmp_path / "spectra.csv")


def test_a_log_without_its_companions_is_still_a_log(tmp_path):
    log_of([[1.0]], permutations=permuted_groups(), provenance={"a": 1}).to_csv(tmp_path / "s.csv")
    (tmp_path / "s.json").unlink()
    (tmp_path / "s.permutations.csv.gz").unlink()
    found = read_log(tmp_path / "s.csv")
    assert found.provenance == {}
    assert len(found.permutations) == 0


# --- files that are no logs, or no longer ---


def test_a_csv_cut_at_any_byte_of_its_last_lines_is_refused_or_whole(tmp_path):
    log = log_of([[2.0, 1.5], [0.25], [NAN, NAN], [4.0, 3.25]])
    log.to_csv(tmp_path / "whole.csv")
    content = (tmp_path / "whole.csv").read_bytes()
    last_two = [at for at, byte in enumerate(content) if byte == ord("\n")][-3]
    cut = tmp_path / "cut.csv"
    for size in range(last_two, len(content)):
        cut.write_bytes(content[:size])
        if content[:size].endswith(b"\n"):
            assert_equal_logs(
                read_log(cut), log.select(step=list(range(content.count(b"\n", 0, size) - 1)))
            )
        else:
            with pytest.raises(LogError, match="last line is cut off"):
                read_log(cut)


def test_a_csv_cut_in_its_header_is_refused(tmp_path):
    log_of([[2.0]]).to_csv(tmp_path / "whole.csv")
    header = (tmp_path / "whole.csv").read_bytes().partition(b"\n")[0]
    for size in (0, 1, 10, len(header)):
        (tmp_path / "cut.csv").write_bytes(header[:size])
        with pytest.raises(LogError, match=r"Received: .*cut\.csv"):
            read_log(tmp_path / "cut.csv")


@pytest.mark.parametrize("suffix", SUFFIXES[1:])
def test_a_cut_compressed_file_is_refused(tmp_path, suffix):
    path = written(log_of(SPECTRA), tmp_path / f"whole{suffix}")
    content = path.read_bytes()
    for size in {0, 1, 15, *range(20, len(content), 25), len(content) - 1}:
        (tmp_path / f"cut{suffix}").write_bytes(content[:size])
        with pytest.raises(LogError, match=r"Received: .*cut"):
            read_log(tmp_path / f"cut{suffix}")


def test_flipped_bits_in_a_compressed_file_are_noticed(tmp_path):
    path = written(log_of(SPECTRA), tmp_path / "spectra.csv.gz")
    content = bytearray(path.read_bytes())
    for at in range(40, len(content), 15):  # behind the gzip header, whose time may be anything
        damaged = content.copy()
        damaged[at] ^= 0x10
        path.write_bytes(damaged)
        with pytest.raises(LogError, match=r"Received: .*spectra"):
            read_log(path)


def test_a_line_that_lost_values_is_named(tmp_path):
    path = written(log_of([[2.0, 1.0], [3.0, 1.0]]), tmp_path / "spectra.csv")
    path.write_text(path.read_text().replace("3.0,1.0", "3.0,"))
    with pytest.raises(LogError, match=r"whose row 2 holds 1 of 2. The file was edited"):
        read_log(path)


def test_a_line_that_lost_all_values_is_no_nan_spectrum(tmp_path):
    path = written(log_of([[2.0, 1.0], [NAN, NAN]]), tmp_path / "spectra.csv")
    path.write_text(path.read_text().replace("2.0,False,2.0,1.0", ",False,,"))
    with pytest.raises(LogError, match=r"Received: .*spectra.csv, which cannot be read"):
        read_log(path)


@pytest.mark.parametrize(
    "content",
    [
        "a,b\n1,2\n",
        "just a line\n",
        "\n",
        "epoch,step,loss\n0,1,0.5\n",
        '"a\n',
        "\x00\x01\x02\n",
        ",".join((*KEYS, *FACTS)) + "\n,one,0,d,kernel,gradient,all,1,1,1,1,1.0,False\n",
        ",".join((*KEYS, *FACTS)) + "\n,0,0,d,kernel,gradient,all,1,1,1,1,1.0,perhaps\n",
        ",".join((*KEYS, *FACTS)) + "\n,0,0,d,kernel,gradient,all,1,1,1,,1.0,False\n",
    ],
)
def test_another_table_is_no_log(tmp_path, content):
    (tmp_path / "other.csv").write_text(content)
    with pytest.raises(LogError, match=r"`path` must be a .*log.* Received: .*other.csv"):
        read_log(tmp_path / "other.csv")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_missing_file_or_a_folder_is_no_log(tmp_path, suffix):
    (tmp_path / f"folder{suffix}").mkdir()
    for name in ("folder", "missing"):
        with pytest.raises(LogError, match=r"which is not a file"):
            read_log(tmp_path / f"{name}{suffix}")


@pytest.mark.parametrize("content", [b"not parquet", b"PAR1", gzip.compress(b"a,b\n", mtime=0)])
def test_a_file_of_another_kind_is_no_log(tmp_path, content):
    for suffix in SUFFIXES:
        (tmp_path / f"other{suffix}").write_bytes(content)
        with pytest.raises(LogError, match=r"Received: .*other"):
            read_log(tmp_path / f"other{suffix}")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_two_runs_mixed_in_one_file_are_refused(tmp_path, suffix):
    log = log_of([[1.0], [2.0]])
    log.append(log_of([[3.0]]))
    path = written(log, tmp_path / f"mixed{suffix}")
    with pytest.raises(LogError, match=r"1 repeated rows.*Were several runs mixed"):
        read_log(path)


def test_broken_permutations_are_refused(tmp_path):
    log_of([[1.0]], permutations=permuted_groups()).to_csv(tmp_path / "s.csv")
    beside = tmp_path / "s.permutations.csv.gz"
    beside.write_bytes(beside.read_bytes()[:-5])
    with pytest.raises(LogError, match=r"Received: .*s\.permutations\.csv\.gz"):
        read_log(tmp_path / "s.csv")


# --- writing ---


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = written(log_of([[1.0]]), tmp_path / "spectra.csv")
    before = path.read_bytes()

    def full(self, part, **_):
        part.write_text("half a fi")
        raise OSError("no space left")

    monkeypatch.setattr(pd.DataFrame, "to_csv", full)
    with pytest.raises(OSError, match="no space left"):
        log_of([[2.0]]).to_csv(path)
    assert path.read_bytes() == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["spectra.csv", "spectra.json"]


def test_the_provenance_is_readable_text(tmp_path):
    log_of([[1.0]], provenance={"größe": [1]}).to_csv(tmp_path / "spectra.csv")
    assert json.loads((tmp_path / "spectra.json").read_bytes()) == {"größe": [1]}


@pytest.mark.skipif(files.ROUND_TRIP, reason="older pandas reads exactly only when asked")
def test_newer_pandas_reads_floats_exactly_unasked(tmp_path):
    values = np.random.default_rng(0).random(2000) * 10.0 ** np.arange(-100, 100, 0.1)
    (tmp_path / "x.csv").write_text("x\n" + "\n".join(map(repr, values.tolist())))
    assert pd.read_csv(tmp_path / "x.csv")["x"].tolist() == values.tolist()


def test_reading_imports_no_tensorflow_of_its_own():
    assert "tensorflow" not in vars(sys.modules["keras_spectral.log.files"])


@pytest.mark.parametrize("content", [b"<!doctype html>\n<p>a report</p>", b"\x89PNG\r\n\x1a\n\0\0"])
def test_a_file_of_another_kind_is_not_called_a_log_cut_off(tmp_path, content):
    path = tmp_path / "report.csv"
    path.write_bytes(content)
    with pytest.raises(LogError) as raised:
        read_log(path)
    assert "delete the last line" not in str(raised.value)


def test_parquet_without_pyarrow_is_told_how_to_get_it(tmp_path, monkeypatch):
    path = tmp_path / "spectra.parquet"
    path.write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "fastparquet", None)
    with pytest.raises(LogError, match=r"keras_spectral\[parquet\]"):
        read_log(path)
