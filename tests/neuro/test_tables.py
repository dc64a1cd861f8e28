"""Joining tables by id: what is kept, what the report says, and each fault by name."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from keras_spectral.errors import DataError
from keras_spectral.groups import Membership
from keras_spectral.neuro.simulate import simulated_fnc, write_simulated_tables
from keras_spectral.neuro.tables import joined_tables, load_tables
from keras_spectral.neuro.targets import (
    group_columns,
    require_enough_per_class,
    target_classes,
    target_column,
)

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
FNC = "Id,a,b\n01,1,2\n02,2,2.5\n03,3,1\n"
SBM = "Id,c\n03,30\n01,10\n02,20\n"
LABELS = "Id,Class,sex\n02,SZ,F\n01,HC,\n03,SZ,M\n"
ASEG = """Measure:volume\tLeft-Hippocampus\tBrainSegVolNotVent\tEstimatedTotalIntraCranialVol
sub-01\t3501.1\t1100000.5\t1500000.25
sub-02\t3702.2\t1200000.5\t1600000.25
sub-03\t3903.3\t1300000.5\t1700000.25
"""
THICKNESS = """lh.aparc.thickness\tlh_insula_thickness\tBrainSegVolNotVent\teTIV
sub-01\t2.1\t1100000.5\t1500000.25
sub-02\t2.2\t1200000.5\t1600000.25
sub-03\t2.3\t1300000.5\t1700000.25
"""
VOLUME = """rh.aparc.a2009s.volume\trh_G_cuneus_volume\tBrainSegVolNotVent\teTIV
sub-01\t8801\t1100000.5\t1500000.25
sub-02\t8702\t1200000.5\t1600000.25
sub-03\t8903\t1300000.5\t1700000.25
"""
PARTICIPANTS = """participant_id\tgroup\tsite\tage
sub-03\tHC\tB\t30
sub-01\tSZ\tA\t40
sub-02\tHC\tA\t50
"""


@pytest.fixture
def joined(tmp_path):
    def join(features=(FNC, SBM), labels=LABELS, id_column="Id", **options):
        paths = [tmp_path / f"f{number}.csv" for number in range(len(features))]
        for path, content in zip(paths, features, strict=True):
            path.write_text(content)
        (tmp_path / "labels.csv").write_text(labels)
        return joined_tables(paths, tmp_path / "labels.csv", id_column, **options)

    return join


def real_data(folder):
    if not (DATA / folder).is_dir():
        pytest.skip(f"the real data is not at {DATA / folder}")
    return DATA / folder


def test_rows_are_joined_by_id_in_the_order_of_the_labels(joined):
    found = joined()
    assert found.features.index.tolist() == found.labels.index.tolist() == ["02", "01", "03"]
    assert found.features.columns.tolist() == ["a", "b", "c"]
    assert found.features.to_numpy().tolist() == [[2, 2.5, 20], [1, 2, 10], [3, 1, 30]]
    assert set(found.features.dtypes) == {np.dtype(np.float64)}


def test_the_report_is_one_line_of_what_was_found_and_joined(joined):
    assert joined().report == (
        "f0.csv: 3 subjects x 2 features; f1.csv: 3 subjects x 1 features; "
        "labels.csv: 3 subjects; joined 3 subjects, 3 features; dropped nothing"
    )


def test_names_used_by_several_tables_get_the_name_of_their_file(joined):
    found = joined((FNC, SBM.replace("c", "a")))
    assert found.features.columns.tolist() == ["f0.a", "b", "f1.a"]


def test_constant_features_and_columns_without_a_name_are_dropped_and_reported(joined):
    found = joined((",Id,a,k\n0,01,1,7\n1,02,2,7\n2,03,3,7\n",))
    assert found.features.columns.tolist() == ["a"]
    assert found.report.endswith(
        "dropped 1 column (Unnamed: 0) without a name in f0.csv, 1 constant feature (k)"
    )


def test_true_and_false_are_numbers(joined):
    found = joined(("Id,a\n01,True\n02,False\n03,True\n",))
    assert found.features["a"].tolist() == [0, 1, 1]


def test_ids_that_do_not_match_are_counted_and_named(joined):
    message = r"1 id \(03\) not in f0\.csv; 1 id \(04\) not in f1\.csv; 1 id \(04\) not in labels"
    with pytest.raises(DataError, match=message + r".*2 in all tables\. Try `join=\"inner\"`"):
        joined((FNC.replace("03", "04"), SBM))


def test_an_inner_join_keeps_the_common_ids_and_reports_the_others(joined):
    found = joined((FNC.replace("03,3", "04,"), SBM), join="inner")
    assert found.features.index.tolist() == found.labels.index.tolist() == ["02", "01"]
    assert "joined 2 subjects" in found.report
    assert "dropped 1 id (03) not in f0.csv, 1 id (04) not in f1.csv" in found.report


def test_lost_leading_zeros_are_suspected(joined):
    with pytest.raises(DataError, match="More would match without leading zeros"):
        joined((FNC.replace("\n0", "\n"), SBM))


def test_tables_without_a_common_id_cannot_be_joined(joined):
    with pytest.raises(DataError, match=r"0 in all tables\. Try another id column"):
        joined((FNC.replace("\n0", "\n9"),), join="inner")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (FNC.replace("3,1", "3,"), r"1 missing or infinite, in 1 column \(b\) of 1 id \(03\)"),
        (FNC.replace("3,1", "NA,inf"), r"2 missing or infinite, in 2 columns \(a, b\) of 1 id"),
        (FNC.replace("3,1", "3,-inf"), r"1 missing or infinite"),
        (FNC.replace("3,1", "3,bad"), r"1 other column \(b\): b of id 03 is 'bad'"),
        ('Id,a\n01,1\n02,"2,5"\n03,3\n', "with a decimal point.*a of id 02 is '2,5'"),
        ("Id,sex,a\n01,F,1\n02,M,2\n03,F,3\n", r"\(sex\): sex of id 01 is 'F'. Try moving"),
        ("Id,a\n01,5\n02,5\n03,5\n", "must differ between subjects"),
        ("Id\n01\n02\n03\n", "features beside its ids"),
    ],
)
def test_features_that_cannot_be_learned_from_are_an_error(joined, table, message):
    with pytest.raises(DataError, match=message):
        joined((table,))


def test_arguments_that_cannot_be_meant_are_an_error(joined, tmp_path):
    with pytest.raises(DataError, match="`join` must be 'exact' or 'inner'"):
        joined(join="outer")
    with pytest.raises(DataError, match="at least one table"):
        joined(())
    path = tmp_path / "f.csv"
    path.write_text(FNC)
    with pytest.raises(DataError, match="name of its own"):
        joined_tables([path, path], tmp_path / "labels.csv", "Id")
    with pytest.raises(DataError, match="name of its own"):
        joined_tables(path, path, "Id")


@pytest.fixture
def freesurfer(tmp_path):
    def write(aseg=ASEG, thickness=THICKNESS, volume=VOLUME, suffix=".txt"):
        tables = {
            f"aseg{suffix}": aseg,
            f"lh.aparc.thickness{suffix}": thickness,
            f"rh.aparc.a2009s.volume{suffix}": volume,
            "participants.tsv": PARTICIPANTS,
        }
        for name, content in tables.items():
            (tmp_path / name).write_text(content)
        *features, participants = (tmp_path / name for name in tables)
        return features, participants

    return write


@pytest.mark.parametrize("suffix", [".txt", ".tsv", ".table", ""])
@pytest.mark.parametrize("id_column", ["", "participant_id"])
def test_tables_of_freesurfer_hold_their_ids_in_the_first_column(freesurfer, suffix, id_column):
    found = joined_tables(*freesurfer(suffix=suffix), id_column)
    assert found.features.index.tolist() == ["sub-03", "sub-01", "sub-02"]
    assert found.features.columns.tolist() == [
        "Left-Hippocampus",
        "BrainSegVolNotVent",
        "EstimatedTotalIntraCranialVol",
        "lh_insula_thickness",
        "eTIV",
        "rh_G_cuneus_volume",
    ]
    assert found.features.loc["sub-02"].tolist() == [
        3702.2,
        1200000.5,
        1600000.25,
        2.2,
        1600000.25,
        8702,
    ]
    assert found.report.endswith(
        "joined 3 subjects, 6 features; "
        "dropped repeats of 2 equal columns (BrainSegVolNotVent, eTIV)"
    )


@pytest.mark.parametrize("written", ["sub-01/", "/data/subjects/sub-01", "/data/subjects/sub-01/"])
def test_an_id_of_freesurfer_is_the_last_part_of_a_path(freesurfer, written):
    found = joined_tables(*freesurfer(ASEG.replace("sub-01", written)), "")
    assert found.features.index.tolist() == ["sub-03", "sub-01", "sub-02"]


def test_a_slash_stays_in_the_ids_of_other_tables(joined):
    found = joined(("Id,a\nx/1,1\nx/2,2\n",), "Id,b\nx/1,1\nx/2,2\n")
    assert found.features.index.tolist() == ["x/1", "x/2"]


def test_a_column_of_the_name_asked_for_goes_before_the_first_one(freesurfer):
    lines = zip(["participant_id", "sub-11", "sub-12", "sub-13"], ASEG.splitlines(), strict=True)
    aseg = "".join(f"{line}\t{name}\n" for name, line in lines)
    features, participants = freesurfer(aseg)
    with pytest.raises(DataError, match=r"3 ids \(sub-11, sub-12, sub-13\) not in lh"):
        joined_tables(features, participants, "participant_id")


def test_a_repeated_column_with_other_values_gets_the_name_of_its_file(freesurfer):
    found = joined_tables(*freesurfer(volume=VOLUME.replace("00000.25", "99999.75")), "")
    names = found.features.columns.tolist()
    assert [name for name in names if "eTIV" in name] == [
        "lh.aparc.thickness.eTIV",
        "rh.aparc.a2009s.volume.eTIV",
    ]
    assert "not equal" not in found.report


def test_ids_that_were_swapped_show_in_the_columns_that_tables_repeat(tmp_path):
    ids = [f"sub-{number}" for number in range(6)]
    swapped = [ids[1], ids[0], *ids[2:]]
    for hemisphere, order in (("lh", ids), ("rh", swapped)):
        columns = {f"{hemisphere}_insula_volume": range(6), "eTIV": np.arange(6) + 1.5e6}
        index = pd.Index(order, name=f"{hemisphere}.aparc.volume")
        pd.DataFrame(columns, index).to_csv(tmp_path / f"{hemisphere}.txt", sep="\t")
    pd.DataFrame({"sex": list("FMFMFM")}, pd.Index(ids, name="id")).to_csv(tmp_path / "labels.csv")
    tables = [tmp_path / "lh.txt", tmp_path / "rh.txt"]
    found = joined_tables(tables, tmp_path / "labels.csv", "id")
    assert found.features.columns.tolist()[1::2] == ["lh.eTIV", "rh.eTIV"]
    assert found.report.endswith(
        "; not equal in all tables for 2 ids (sub-0, sub-1): 1 column (eTIV)"
    )


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (THICKNESS.replace("sub-03\t2.3\t1300000.5\t1700000.25\n", ""), r"\(sub-03\) not in lh"),
        (THICKNESS.replace("sub-03", "sub-04"), r"\(sub-04\) not in aseg"),
        (THICKNESS.replace("sub-03", "sub-02"), r"repeats 1 id \(sub-02\)"),
        (THICKNESS.replace("\t1700000.25", "\t1700000.25\t7"), "Expected 4 fields"),
        (THICKNESS.replace("lh.aparc.thickness", "lh.aparc.wrong"), "must have the id column"),
        (THICKNESS.replace("lh.aparc.thickness\t", ""), "must have the id column"),
        (THICKNESS[: THICKNESS.index("1300000.5")], "missing or infinite.*sub-03"),
        (THICKNESS[: THICKNESS.index("sub-01")], "only a header"),
        ("", "which is empty"),
    ],
)
def test_a_broken_table_of_freesurfer_is_an_error(freesurfer, table, message):
    with pytest.raises(DataError, match=message):
        joined_tables(*freesurfer(thickness=table), "participant_id")


def test_an_extra_column_is_a_feature_only_of_numbers(freesurfer):
    lines = ASEG.splitlines()
    ends = ["\tsite", "\tA", "\tA", "\tB"]
    aseg = "\n".join(line + end for line, end in zip(lines, ends, strict=True))
    with pytest.raises(DataError, match=r"aseg\.txt with 1 other column \(site\)"):
        joined_tables(*freesurfer(aseg), "")


def test_loaded_tables_are_subjects_with_named_columns(freesurfer, capsys):
    features, participants = freesurfer()
    x, y, phenotype = load_tables(features, participants, "group")
    assert x.index.tolist() == phenotype.index.tolist() == ["sub-03", "sub-01", "sub-02"]
    assert x.shape == (3, 6)
    assert set(x.dtypes) == {np.dtype(np.float64)}
    assert y.tolist() == [0, 1, 0]
    assert phenotype.attrs["classes"] == ("HC", "SZ")
    assert capsys.readouterr().out == phenotype.attrs["report"] + "\n"
    assert phenotype.attrs["report"] == (
        "aseg.txt: 3 subjects x 3 features; lh.aparc.thickness.txt: 3 subjects x 3 features; "
        "rh.aparc.a2009s.volume.txt: 3 subjects x 3 features; participants.tsv: 3 subjects; "
        "joined 3 subjects, 6 features; "
        "dropped repeats of 2 equal columns (BrainSegVolNotVent, eTIV); group: HC 2, SZ 1"
    )


@pytest.mark.parametrize("where", [{"site": "A"}, {"site": ["A", "C"]}, {"age": [40, 50]}])
def test_where_keeps_subjects_and_does_not_miss_the_others(freesurfer, where):
    x, y, phenotype = load_tables(*freesurfer(), "group", where=where)
    assert x.index.tolist() == phenotype.index.tolist() == ["sub-01", "sub-02"]
    assert y.tolist() == [1, 0]
    assert "joined 2 subjects" in phenotype.attrs["report"]
    assert "dropped 1 subject with" in phenotype.attrs["report"]


def test_where_does_not_hide_a_subject_that_is_missing(freesurfer):
    aseg = "".join(line for line in ASEG.splitlines(True) if "sub-02" not in line)
    with pytest.raises(DataError, match=r"1 id \(sub-02\) not in aseg\.txt; 1 in all"):
        load_tables(*freesurfer(aseg), "group", where={"site": "A"})
    with pytest.raises(DataError, match=r"\(sub-02\) not in aseg\.txt"):
        load_tables(*freesurfer(aseg), "group")
    x, *_ = load_tables(*freesurfer(aseg), "group", join="inner")
    assert x.index.tolist() == ["sub-03", "sub-01"]


def test_the_phenotype_may_be_a_data_frame(freesurfer, capsys):
    features, participants = freesurfer()
    table = pd.read_csv(participants, sep="\t")
    for phenotype in (table, table.set_index("participant_id")):
        x, y, _ = load_tables(features[0], phenotype, "group", where={"site": "A"})
        assert (x.index.tolist(), y.tolist()) == (["sub-01", "sub-02"], [1, 0])
        assert "; phenotype: 3 subjects; joined 2 subjects" in capsys.readouterr().out


def test_a_target_among_the_features_is_refused(freesurfer, tmp_path):
    features, participants = freesurfer()
    (tmp_path / "ages.csv").write_text("id,age\nsub-01,40\nsub-02,50\nsub-03,30\n")
    with pytest.raises(DataError, match=r"input of the model.*features with age"):
        load_tables([*features, tmp_path / "ages.csv"], participants, "age")


def test_a_target_or_filter_that_is_absent_is_an_error(freesurfer):
    with pytest.raises(DataError, match=r"`target`.*Did you mean 'group'"):
        load_tables(*freesurfer(), "Group")
    with pytest.raises(DataError, match=r"`where`.*'scanner'"):
        load_tables(*freesurfer(), "group", where={"scanner": "A"})
    with pytest.raises(DataError, match="must keep some subjects"):
        load_tables(*freesurfer(), "group", where={"site": "C"})


def test_simulated_tables_are_read_back_value_for_value(tmp_path):
    x, phenotype = simulated_fnc(n_subjects=20, group_size=5, seed=3)
    features, labels = write_simulated_tables(tmp_path, n_subjects=20, group_size=5, seed=3)
    found = joined_tables(features, labels, "id")
    np.testing.assert_array_equal(found.features.to_numpy(dtype=np.float32), x)
    pd.testing.assert_frame_equal(found.labels.reset_index(), phenotype, check_dtype=False)


def test_the_real_mlsp_tables_join_without_loss():
    folder = real_data("mlsp2014_kaggle")
    found = joined_tables(
        [folder / "train_FNC.csv", folder / "train_SBM.csv"], folder / "train_labels.csv", "Id"
    )
    assert found.features.shape == (86, 410)
    assert found.report.endswith("joined 86 subjects, 410 features; dropped nothing")
    y, classes = target_classes(target_column(found, "Class"))
    assert classes == ("0", "1")
    assert np.bincount(y).tolist() == [46, 40]
    assert Membership.of(group_columns(found.labels, ["Class"]), 86).names == ("Class=0", "Class=1")


def test_the_real_cobre_phenotype_keeps_its_ids_and_the_text_none(tmp_path):
    labels = real_data("cobre_indi_phenotypic") / "COBRE_phenotypic_data.csv"
    ids = pd.read_csv(labels, dtype=str).iloc[:, 0]
    numbers = np.random.default_rng(0).normal(size=len(ids))
    pd.DataFrame({"Id": ids[::-1], "x": numbers}).to_csv(tmp_path / "x.csv", index=False)
    found = joined_tables(tmp_path / "x.csv", labels, "Id")
    assert found.labels.index[0] == "0040061"
    assert found.features["x"].tolist() == numbers[::-1].tolist()
    assert (found.labels["Diagnosis"] == "None").sum() == 72
    y, classes = target_classes(target_column(found, "Subject Type"))
    assert classes == ("Control", "Disenrolled", "Patient")
    with pytest.raises(DataError, match="2 of 'Disenrolled'"):
        require_enough_per_class(y, classes, folds=5)
    with pytest.raises(DataError, match="as a continuous column has"):
        target_classes(target_column(found, "Current Age"))
