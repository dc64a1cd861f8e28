"""Time series: every file kind gives the same numbers, and each fault is named."""

from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.io

from keras_spectral.errors import DataError
from keras_spectral.neuro.time_series import connectivity, lengths_of, load_time_series, windows

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "abide_um_aal_timeseries"
IDS = ["s01", "s02", "s03", "s04"]
PHENOTYPE = pd.DataFrame(
    {"id": IDS, "group": ["HC", "SZ", "HC", "SZ"], "site": ["A", "A", "B", "B"]}
)


def series(subject, n_time=12, n_regions=3):
    rng = np.random.default_rng(IDS.index(subject))
    return rng.normal(size=(n_time, n_regions)) * [1, 5, 50] + 7


def write(path, values):
    suffix = path.suffix
    if suffix == ".npy":
        np.save(path, values)
    elif suffix == ".mat":
        scipy.io.savemat(path, {"tc": values, "TR": 2.0})
    elif suffix == ".1D":
        np.savetxt(path, values, header="#2001\t#2002\t#2101", comments="", delimiter="\t")
    else:
        separator = {".csv": ",", ".tsv": "\t", ".txt": " "}[suffix]
        np.savetxt(path, values, delimiter=separator)


@pytest.fixture
def folder(tmp_path):
    for subject in IDS:
        write(tmp_path / f"{subject}_rois.npy", series(subject))
    return tmp_path


def load(source, phenotype=PHENOTYPE, **options):
    return load_time_series(source, phenotype, "group", "id", **options)


def z_scored(values):
    return (values - values.mean(axis=0)) / values.std(axis=0)


@pytest.mark.parametrize("suffix", [".1D", ".csv", ".tsv", ".txt", ".npy", ".mat"])
def test_every_kind_of_file_gives_the_same_numbers(tmp_path, suffix):
    for subject in IDS:
        write(tmp_path / f"{subject}_rois{suffix}", series(subject))
    x, y, phenotype = load(tmp_path)
    assert x.dtype == np.float32
    assert phenotype.index.tolist() == IDS
    assert y.tolist() == [0, 1, 0, 1]
    for found, subject in zip(x, IDS, strict=True):
        np.testing.assert_allclose(found, z_scored(series(subject)), atol=1e-6)


def test_a_header_and_numbered_rows_are_no_data(tmp_path):
    for subject in IDS:
        pd.DataFrame(series(subject), columns=["a", "b", "c"]).to_csv(tmp_path / f"{subject}.csv")
    x, _, _ = load(tmp_path)
    np.testing.assert_allclose(x[1], z_scored(series("s02")), atol=1e-6)


def test_matlab_73_is_read_with_time_first(tmp_path):
    for subject in IDS:
        path = tmp_path / f"{subject}.mat"
        with h5py.File(path, "w", userblock_size=512) as file:
            file["tc"] = series(subject).T  # as MATLAB stores it
        with open(path, "r+b") as file:
            file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
    np.testing.assert_allclose(load(tmp_path).x[2], z_scored(series("s03")), atol=1e-6)


def test_a_stack_with_ids_is_joined_by_them(tmp_path):
    swapped = IDS[::-1]
    stack = np.stack([series(subject) for subject in swapped])
    np.savez(tmp_path / "all.npz", timeseries=stack, subject_id=np.array(swapped))
    x, _, _ = load(tmp_path / "all.npz")
    np.testing.assert_allclose(x[0], z_scored(series("s01")), atol=1e-6)


def test_a_stack_without_ids_has_the_order_of_the_phenotype(tmp_path):
    stack = np.stack([series(subject) for subject in IDS])
    np.save(tmp_path / "all.npy", stack)
    x, _, _ = load(tmp_path / "all.npy", where={"site": "B"})
    np.testing.assert_allclose(x[0], z_scored(series("s03")), atol=1e-6)
    np.save(tmp_path / "all.npy", stack[1:])
    with pytest.raises(DataError, match="with 3 series for 4 rows"):
        load(tmp_path / "all.npy")


def test_the_report_says_what_was_found_joined_and_dropped(folder, capsys):
    write(folder / "s02_rois.npy", series("s02", n_time=10))
    load(folder, where={"site": "A"})
    assert capsys.readouterr().out == (
        f"{folder.name}: 4 series; joined 2 subjects, 12 time points x 3 regions; dropped "
        "2 subjects with site 'B' (s03, s04); lengths 10 to 12: 1 padded with zeros, 0 cropped; "
        "group: HC 1, SZ 1\n"
    )


def test_unequal_lengths_are_padded_at_the_end_cropped_or_cut(folder):
    write(folder / "s03_rois.npy", series("s03", n_time=9))
    padded = load(folder).x
    assert padded.shape == (4, 12, 3)
    assert lengths_of(padded).tolist() == [12, 12, 9, 12]
    np.testing.assert_allclose(padded[2, :9], z_scored(series("s03", 9)), atol=1e-6)
    assert load(folder, length="crop").x.shape == (4, 9, 3)
    assert load(folder, length=5).x.shape == (4, 5, 3)
    raw = load(folder, length="crop", standardize=False).x
    np.testing.assert_allclose(raw[0], series("s01")[:9], rtol=1e-6)
    with pytest.raises(DataError, match="'pad', 'crop' or a number"):
        load(folder, length=0)


def test_a_region_that_does_not_vary_becomes_zero_and_is_named(folder, capsys):
    values = series("s04")
    values[:, 1] = 3.3
    write(folder / "s04_rois.npy", values)
    assert not load(folder).x[3, :, 1].any()
    assert "regions that do not vary, of 1 subject (s04)" in capsys.readouterr().out
    write(folder / "s04_rois.npy", np.ones((12, 3)))
    with pytest.raises(DataError, match=r"constants in all regions of 1 subject \(s04\)"):
        load(folder)


class TestBrokenCopies:
    def test_a_missing_subject(self, folder):
        (folder / "s02_rois.npy").unlink()
        with pytest.raises(DataError, match=r"1 subject without data \(s02\); 3 in both.*inner"):
            load(folder)
        assert load(folder, join="inner").phenotype.index.tolist() == ["s01", "s03", "s04"]

    def test_a_file_of_nobody(self, folder):
        write(folder / "s77_rois.npy", series("s01"))
        with pytest.raises(
            DataError, match=r"data without a subject in the phenotype: s77_rois\.npy"
        ):
            load(folder)
        assert len(load(folder, join="inner").x) == 4

    def test_two_files_of_a_subject(self, folder):
        write(folder / "s02_again.npy", series("s02"))
        with pytest.raises(DataError, match=r"1 subject \(s02\) with several"):
            load(folder)

    def test_names_without_an_id(self, folder):
        for k, subject in enumerate(IDS):
            (folder / f"{subject}_rois.npy").rename(folder / f"x{k}y.npy")
        with pytest.raises(DataError, match="Try `pattern`"):
            load(folder)
        numbers = PHENOTYPE.assign(id=["0", "1", "2", "3"])
        assert len(load(folder, numbers, pattern=r"x(\d)y").x) == 4

    @pytest.mark.parametrize("suffix", [".npy", ".mat", ".csv"])
    def test_a_truncated_file(self, folder, suffix):
        (folder / "s02_rois.npy").unlink()
        path = folder / f"s02_rois{suffix}"
        write(path, series("s02"))
        path.write_bytes(path.read_bytes()[:-30])
        with pytest.raises(DataError, match=r"s02_rois|of shape|missing or infinite|columns"):
            load(folder)

    def test_a_column_more(self, folder):
        write(folder / "s02_rois.npy", series("s02", n_regions=3).repeat(2, axis=1))
        with pytest.raises(DataError, match=r"3 columns for most.*s02: 12 x 6"):
            load(folder)

    def test_text_and_missing_values(self, folder):
        values = series("s02")
        values[3, 1] = np.nan
        write(folder / "s02_rois.npy", values)
        with pytest.raises(DataError, match=r"missing or infinite values of 1 subject \(s02\)"):
            load(folder)
        (folder / "s02_rois.npy").unlink()
        (folder / "s02_rois.csv").write_text("1,2,3\n1,two,3\n")
        with pytest.raises(DataError, match="cannot be read"):
            load(folder)

    def test_several_arrays_in_one_file(self, folder):
        (folder / "s02_rois.npy").unlink()
        scipy.io.savemat(folder / "s02.mat", {"tc": series("s02"), "maps": np.ones((5, 3))})
        with pytest.raises(DataError, match=r"2 such \(tc, maps\). Try `variable`"):
            load(folder)

    def test_an_unknown_column_value_or_folder(self, folder):
        with pytest.raises(DataError, match="`where` must name a column"):
            load(folder, where={"Site": "A"})
        with pytest.raises(DataError, match="which drops all"):
            load(folder, where={"site": "C"})
        with pytest.raises(DataError, match="`target` must name a column"):
            load_time_series(folder, PHENOTYPE, "Group", "id")
        with pytest.raises(DataError, match="with no file that ends in"):
            load(folder / "nowhere")


def test_windows_keep_their_subject_and_leave_padding_out(folder):
    write(folder / "s03_rois.npy", series("s03", n_time=9))
    subjects = load(folder)
    x, y, phenotype = windows(subjects, 4)
    assert phenotype.index.tolist() == ["s01"] * 3 + ["s02"] * 3 + ["s03"] * 2 + ["s04"] * 3
    assert y.tolist() == [0, 0, 0, 1, 1, 1, 0, 0, 1, 1, 1]
    np.testing.assert_array_equal(x[4], subjects.x[1, 4:8])
    assert len(windows(subjects, 4, step=2).x) == 5 + 5 + 3 + 5
    with pytest.raises(DataError, match="`length` must be at most"):
        windows(subjects, 13)


def test_connectivity_is_the_fisher_z_of_correlations_without_padding(folder):
    write(folder / "s03_rois.npy", series("s03", n_time=200))
    subjects = load(folder)
    x = connectivity(subjects).x
    assert x.shape == (4, 3)
    assert np.abs(connectivity(subjects.x[2:3, :200])[0] - x[2]).max() == 0
    plain = np.arctanh(np.corrcoef(series("s03", 200).T)[np.tril_indices(3, -1)])
    np.testing.assert_allclose(x[2], plain, atol=0.05)  # nilearn shrinks towards zero
    with pytest.raises(DataError, match="one subject alone"):
        connectivity(subjects, "tangent")


@pytest.mark.skipif(not DATA.is_dir(), reason=f"the real data is not at {DATA}")
def test_real_data_is_read_alike_from_text_and_from_the_stack():
    table = DATA / "labels.csv"
    stack = load_time_series(
        DATA / "abide_um_aal116_timeseries.npz",
        table,
        "group",
        "subject_id",
        where={"site": "UM_1"},
    )
    assert stack.x.shape == (92, 296, 116)
    texts = load_time_series(
        DATA / "original_1D_samples", table, "group", "subject_id", join="inner"
    )
    places = [stack.phenotype.index.get_loc(name) for name in texts.phenotype.index]
    np.testing.assert_allclose(texts.x, stack.x[places], atol=1e-5)
    assert (texts.y == stack.y[places]).all()
