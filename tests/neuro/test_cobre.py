"""COBRE's tables and files as released, and the time series of regions out of them."""

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest

from keras_spectral.errors import DataError
from keras_spectral.neuro import cobre
from keras_spectral.neuro.cobre import cobre_files, cobre_phenotype, cobre_time_series

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
INDI = """,Current Age,Gender,Handedness,Subject Type,Diagnosis
0040061,18,Male,Right,Control,None
0040046,19,Male,Left,Patient,295.70 depressed type
0040083,Disenrolled,Disenrolled,Disenrolled,Disenrolled,Disenrolled
0040002,,Female,Both,Patient,295.3
"""
NIAK = """ID\tCurrent Age\tGender\tHandedness\tSubject Type\tDiagnosis\tFrames OK\tFD\tFD Scrubbed
40061\t18\tMale\tRight\tControl\tNone\t133\t0.25\t0.22
40046\t19\tMale\tLeft\tPatient\t295.70\t68\t0.51\t0.33
40002\t20\tFemale\tRight\tPatient\t295.3\t150\t0.15\t0.15
"""
IDS = ("0040061", "0040046", "0040002")
N_VOLUMES = 30
AFFINE = np.diag([6.0, 6.0, 6.0, 1.0])
LABELS = np.zeros((4, 4, 4), dtype=np.int16)
LABELS[:2, :2], LABELS[2:, :2], LABELS[:2, 2:] = 3, 7, 12
REGIONS = (3, 7, 12)
CLOSE = 1e-4  # volumes are written in float32


@pytest.fixture
def phenotype(tmp_path):
    def read(content=INDI):
        (tmp_path / "COBRE_phenotypic_data.csv").write_text(content)
        return cobre_phenotype(tmp_path / "COBRE_phenotypic_data.csv")

    return read


@pytest.fixture
def released(tmp_path):
    """Write simulated volumes and confounds as nilearn left them, and return nilearn's folder."""
    folder = tmp_path / "nilearn_data" / "cobre"
    folder.mkdir(parents=True)
    (folder / "phenotypic_data.tsv.gz").write_bytes(gzip.compress(NIAK.encode()))
    generator = np.random.default_rng(0)
    for name in IDS:
        confounds = pd.DataFrame(generator.normal(size=(N_VOLUMES, 3)), columns=list("abc"))
        confounds["scrub"] = 0
        confounds.to_csv(folder / f"fmri_{name}.tsv.gz", sep="\t", index=False)
        volumes = (
            100 + generator.normal(size=(*LABELS.shape, N_VOLUMES)) + confounds["a"].to_numpy()
        )
        image = nibabel.Nifti1Image(volumes.astype(np.float32), AFFINE)
        nibabel.save(image, folder / f"fmri_{name}.nii.gz")
    return folder.parent


@pytest.fixture
def atlas(tmp_path):
    nibabel.save(nibabel.Nifti1Image(LABELS, AFFINE), tmp_path / "atlas.nii.gz")
    return tmp_path / "atlas.nii.gz"


def series_by_hand(folder, name):
    volumes = nibabel.load(folder / "cobre" / f"fmri_{name}.nii.gz").get_fdata()
    series = np.stack([volumes[label == LABELS].mean(axis=0) for label in REGIONS], axis=1)
    confounds = pd.read_csv(folder / "cobre" / f"fmri_{name}.tsv.gz", sep="\t").to_numpy()
    regressors = np.column_stack([np.ones(N_VOLUMES), confounds[:, :3]])
    residuals = series - regressors @ np.linalg.lstsq(regressors, series, rcond=None)[0]
    return residuals / residuals.std(axis=0, ddof=1)


def test_the_phenotype_has_plain_names_and_nobody_disenrolled(phenotype, capsys):
    table = phenotype()
    assert table.index.tolist() == ["0040061", "0040046", "0040002"]
    assert table.index.name == "id"
    assert table.columns.tolist() == ["age", "sex", "handedness", "group", "diagnosis"]
    assert table["diagnosis"].tolist() == ["None", "295.70 depressed type", "295.3"]
    assert table["age"].isna().tolist() == [False, False, True]
    assert capsys.readouterr().out == table.attrs["report"] + "\n"
    assert table.attrs["report"] == (
        "COBRE_phenotypic_data.csv: 4 subjects; dropped 1 subject with group 'Disenrolled' "
        "(0040083); group: Control 1, Patient 2"
    )


def test_leading_zeros_that_a_spreadsheet_dropped_are_put_back(phenotype):
    assert phenotype(INDI.replace("\n00", "\n")).index.tolist() == list(IDS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (INDI.replace("Subject Type", "Type"), "without Subject Type; its columns are Current Age"),
        ("Id,FNC1\n1,0.5\n", "without Current Age, Gender, Handedness, Subject Type, Diagnosis"),
        (INDI.replace("0040046", "A00014804"), "7 digits.*the id 'A00014804'"),
        (INDI.replace("Control", "HC"), r"with 1 other value \(HC\)"),
        (INDI.replace("0040046", "40061"), r"in one row only\..* 1 id \(0040061\)"),
        (INDI.partition("\n")[0], "only a header"),
        ("", "which is empty"),
    ],
)
def test_a_wrong_file_is_an_error_that_says_why(phenotype, content, message):
    with pytest.raises(DataError, match=message):
        phenotype(content)


def test_the_real_phenotype_has_74_controls_and_72_patients(capsys):
    folder = DATA / "cobre_indi_phenotypic"
    if not folder.is_dir():
        pytest.skip(f"the real data is not at {folder}")
    table = cobre_phenotype(folder / "COBRE_phenotypic_data.csv")
    assert table["group"].value_counts().to_dict() == {"Control": 74, "Patient": 72}
    assert table.index.str.fullmatch(r"\d{7}").all()
    assert (table["diagnosis"] == "None").sum() == 72  # two controls have a diagnosis
    assert table["age"].astype(int).between(18, 65).all()
    assert "dropped 2 subjects with group 'Disenrolled' (0040083, 0040070)" in (
        capsys.readouterr().out
    )


def test_files_are_found_in_the_folder_of_nilearn_or_the_one_within(released):
    table = cobre_files(released)
    pd.testing.assert_frame_equal(table, cobre_files(released / "cobre"))
    assert table.index.tolist() == list(IDS)
    assert table["frames_ok"].tolist() == ["133", "68", "150"]
    assert {"age", "sex", "handedness", "group", "diagnosis", "fd", "fd_scrubbed"} < set(table)
    for name, row in table.iterrows():
        assert Path(row["fmri"]) == released / "cobre" / f"fmri_{name}.nii.gz"
        assert Path(row["confounds"]) == released / "cobre" / f"fmri_{name}.tsv.gz"


def test_tables_that_nilearn_unpacked_are_found_too(released):
    for path in (released / "cobre").glob("*.tsv.gz"):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    assert cobre_files(released)["confounds"].str.endswith(".tsv").all()


def test_subjects_without_files_are_dropped_and_named(released, capsys):
    (released / "cobre" / "fmri_0040046.nii.gz").unlink()
    (released / "cobre" / "fmri_0040002.tsv.gz").rename(released / "cobre" / "fmri_0040003.tsv.gz")
    (released / "cobre" / "fmri_0040003.nii.gz").touch()
    assert cobre_files(released).index.tolist() == ["0040061"]
    out = capsys.readouterr().out
    assert "3 subjects; dropped 2 subjects without data (0040046, 0040002)" in out
    assert "data without a subject in the phenotype: fmri_0040003.nii.gz" in out


def test_a_folder_of_something_else_is_an_error(released, tmp_path):
    with pytest.raises(DataError, match=r"without phenotypic_data\.tsv\.gz"):
        cobre_files(tmp_path)
    for path in (released / "cobre").glob("fmri_*.nii.gz"):
        path.unlink()
    with pytest.raises(DataError, match=r"3 subjects without data.*0 in both"):
        cobre_files(released)


def test_a_phenotype_that_was_cut_off_is_an_error(released):
    path = released / "cobre" / "phenotypic_data.tsv.gz"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataError, match="cannot be read"):
        cobre_files(released)


def test_time_series_are_means_over_regions_without_the_confounds(released, atlas, tmp_path):
    table = cobre_time_series(released, atlas, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        f"{name}.csv" for name in IDS
    )
    for name, path in table["time_series"].items():
        series = pd.read_csv(path)
        assert series.columns.tolist() == ["region 3", "region 7", "region 12"]
        np.testing.assert_allclose(series, series_by_hand(released, name), atol=CLOSE)


def test_an_interrupted_run_goes_on_where_it_was(released, atlas, tmp_path, capsys):
    confounds = released / "cobre" / "fmri_0040046.tsv.gz"
    whole = confounds.read_bytes()
    pd.DataFrame({"a": range(5)}).to_csv(confounds, sep="\t", index=False)
    with pytest.raises(DataError, match=r"fmri_0040046.*with 5 rows for 30 volumes"):
        cobre_time_series(released, atlas, tmp_path)
    first = (tmp_path / "0040061.csv").stat().st_mtime_ns
    confounds.write_bytes(whole)
    cobre_time_series(released, atlas, tmp_path)
    assert (tmp_path / "0040061.csv").stat().st_mtime_ns == first
    assert all((tmp_path / f"{name}.csv").exists() for name in IDS)
    assert "1 subject" in capsys.readouterr().out


def test_progress_is_told(released, atlas, tmp_path, monkeypatch, capsys):
    cobre_time_series(released, atlas, tmp_path / "quick")
    assert not capsys.readouterr().err
    monkeypatch.setattr(cobre, "PROGRESS_EVERY", 0.0)
    cobre_time_series(released, atlas, tmp_path / "slow")
    assert [line.partition(",")[0] for line in capsys.readouterr().err.splitlines()] == [
        "1 of 3 subjects",
        "2 of 3 subjects",
    ]


def test_an_atlas_of_another_resolution_is_resampled(released, tmp_path):
    fine = LABELS.repeat(2, axis=0).repeat(2, axis=1).repeat(2, axis=2)
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    affine[:3, 3] = -1.5
    nibabel.save(nibabel.Nifti1Image(fine, affine), tmp_path / "fine.nii.gz")
    path = cobre_time_series(released, tmp_path / "fine.nii.gz", tmp_path)["time_series"].iloc[0]
    np.testing.assert_allclose(pd.read_csv(path), series_by_hand(released, IDS[0]), atol=CLOSE)


def test_an_atlas_that_cannot_be_used_is_named(released, tmp_path):
    with pytest.raises(DataError, match=r"`atlas`.*nowhere\.nii, which is not a file"):
        cobre_time_series(released, tmp_path / "nowhere.nii", tmp_path)
    (tmp_path / "text.nii.gz").write_text("no image")
    with pytest.raises(DataError, match=r"text\.nii\.gz"):
        cobre_time_series(released, tmp_path / "text.nii.gz", tmp_path)


def cut_off(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def without_time(path):
    nibabel.save(nibabel.Nifti1Image(LABELS, AFFINE), path)


def with_text(path):
    pd.DataFrame({"a": ["x"] * N_VOLUMES}).to_csv(path, sep="\t", index=False)


@pytest.mark.parametrize(
    ("name", "spoil", "message"),
    [
        ("fmri_0040061.nii.gz", cut_off, "which nilearn cannot use"),
        ("fmri_0040061.nii.gz", without_time, "it has 3 dimensions"),
        ("fmri_0040061.tsv.gz", cut_off, "which nilearn cannot use"),
        ("fmri_0040061.tsv.gz", with_text, r"^Confounds.*no numbers in 1 column \(a\)"),
    ],
)
def test_files_of_a_subject_that_cannot_be_used_are_named(
    released, atlas, tmp_path, name, spoil, message
):
    spoil(released / "cobre" / name)
    with pytest.raises(DataError, match=message) as caught:
        cobre_time_series(released, atlas, tmp_path / "out")
    assert name in str(caught.value)
    assert not list((tmp_path / "out").iterdir())
