"""Joining tables by id: what is kept, what the report says, and each fault by name."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from keras_spectral.errors import DataError
from keras_spectral.neuro.simulate import simulated_fnc, write_simulated_tables
from keras_spectral.neuro.tables import joined_tables
from keras_spectral.neuro.targets import (
    group_columns,
    require_enough_per_class,
    target_classes,
    target_column,
)
from keras_spectral.spectra.groups import Membership

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
FNC = "Id,a,b\n01,1,2\n02,2,2.5\n03,3,1\n"
SBM = "Id,c\n03,30\n01,10\n02,20\n"
LABELS = "Id,Class,sex\n02,SZ,F\n01,HC,\n03,SZ,M\n"


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
