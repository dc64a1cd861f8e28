"""Targets and groups out of a table of labels."""

import numpy as np
import pandas as pd
import pytest

from keras_spectral.errors import DataError
from keras_spectral.groups import Membership
from keras_spectral.neuro.tables import Joined
from keras_spectral.neuro.targets import (
    group_columns,
    require_enough_per_class,
    target_classes,
    target_column,
)

IDS = pd.Index([f"s{row}" for row in range(4)], name="id")
LABELS = pd.DataFrame(
    {"Class": ["SZ", "HC", "HC", "SZ"], "sex": ["F", None, "M", "F"], "scanner": [None] * 4}, IDS
)


def joined(*features):
    return Joined(pd.DataFrame(0.0, IDS, list(features)), LABELS, report="")


def test_classes_are_sorted_text_and_index_the_labels():
    y, classes = target_classes(LABELS["Class"])
    assert classes == ("HC", "SZ")
    assert np.array(classes)[y].tolist() == LABELS["Class"].tolist()


def test_numbers_are_classes_too():
    y, classes = target_classes(pd.Series([1, 0, 2]))
    assert (y.tolist(), classes) == ([1, 0, 2], ("0", "1", "2"))


def test_the_target_is_a_column_of_the_labels():
    assert target_column(joined("x"), "Class").equals(LABELS["Class"])
    with pytest.raises(DataError, match=r"`target`.*Class, sex, scanner\. Did you mean 'Class'"):
        target_column(joined("x"), "class")


@pytest.mark.parametrize("leak", ["Class", "train.Class"])
def test_a_target_among_the_features_is_an_error(leak):
    with pytest.raises(DataError, match=f"input of the model.*{leak}"):
        target_column(joined("x", leak), "Class")


def test_a_missing_target_is_named_by_id():
    with pytest.raises(DataError, match=r"'sex', without one for 1 id \(s1\)"):
        target_classes(LABELS["sex"])


def test_a_single_class_teaches_nothing():
    with pytest.raises(DataError, match="every label is 'HC'"):
        target_classes(LABELS["Class"].iloc[1:3])


def test_twenty_classes_are_classes_and_more_are_a_continuous_column():
    assert len(target_classes(pd.Series(range(20)))[1]) == 20
    with pytest.raises(DataError, match=r"21 different values.*continuous"):
        target_classes(pd.Series(range(21)))


def test_group_columns_are_those_asked_for():
    groups = group_columns(LABELS, ("sex", "Class", "sex"))
    assert groups.columns.tolist() == ["sex", "Class"]
    assert group_columns(LABELS, "sex").columns.tolist() == ["sex"]


def test_an_unknown_or_empty_group_column_is_an_error():
    with pytest.raises(DataError, match=r"`groups`.*Received: site, age; the columns are Class"):
        group_columns(LABELS, ["site", "Class", "age"])
    with pytest.raises(DataError, match="scanner, without any label"):
        group_columns(LABELS, ["scanner"])


def ages(*values):
    rows = pd.Index([f"s{row}" for row in range(len(values))], name="id")
    return pd.DataFrame({"age": values, "sex": ["F", "M"] * (len(values) // 2)}, rows)


def test_bins_are_of_about_equal_size_and_say_their_interval():
    labels = ages(*[str(age) for age in np.random.default_rng(0).permutation(np.arange(18, 78))])
    groups = group_columns(labels, "age:3")["age:3"]
    assert groups.value_counts().sort_index().to_dict() == {
        "age 18 to 37": 20,
        "age 38 to 57": 20,
        "age 58 to 77": 20,
    }
    for label, numbers in labels["age"].astype(int).groupby(groups):
        assert label == f"age {numbers.min()} to {numbers.max()}"


def test_equal_numbers_stay_in_one_bin():
    groups = group_columns(ages("1", "2", "2", "2", "3", "4"), "age:2")["age:2"]
    assert groups.tolist() == ["age 1 to 2"] * 4 + ["age 3 to 4"] * 2


def test_a_bin_of_one_number_is_called_by_it():
    groups = group_columns(ages("1", "1", "2", "2", "3", "4"), "age:2")["age:2"]
    assert groups.tolist() == ["age 1 to 2"] * 4 + ["age 3 to 4"] * 2
    groups = group_columns(ages("1", "1", "3", "4"), "age:2")["age:2"]
    assert groups.tolist() == ["age 1"] * 2 + ["age 3 to 4"] * 2


def test_subjects_may_have_several_rows():
    labels = ages("20", "20", "40", "40").set_axis(["s0", "s0", "s1", "s1"])
    groups = group_columns(labels, ["age:2", "sex x age<30", "sex"])
    assert groups.index.tolist() == ["s0", "s0", "s1", "s1"]
    assert groups["age:2"].tolist() == ["age 20", "age 20", "age 40", "age 40"]


def test_labels_of_bins_sort_by_size():
    groups = group_columns(ages("8", "9", "10", "99", "100", "101"), "age:3")["age:3"]
    assert groups.tolist() == sorted(groups)
    assert groups.unique().tolist() == ["age 008 to 009", "age 010 to 099", "age 100 to 101"]


def test_bins_of_fractions_have_the_decimals_that_tell_them_apart():
    labels = ages("0.0512", "0.1", "0.1004", "12.5")
    assert group_columns(labels, "age:2")["age:2"].unique().tolist() == [
        "age 00.0512 to 00.1000",
        "age 00.1004 to 12.5000",
    ]


@pytest.mark.parametrize("name", ["age<30", "age < 30"])
def test_a_threshold_makes_two_groups(name):
    groups = group_columns(ages("18", "29.9", "30", "65"), name)[name]
    assert groups.tolist() == ["age < 30"] * 2 + ["age ≥ 30"] * 2


def test_a_threshold_may_be_negative_and_a_fraction():
    groups = group_columns(ages(-3.0, -2.0), "age<-2.5")
    assert groups["age<-2.5"].tolist() == ["age < -2.5", "age ≥ -2.5"]


@pytest.mark.parametrize("name", ["age:2", "age<30", "sex x age<30"])
def test_a_missing_number_belongs_to_no_group(name):
    groups = group_columns(ages("18", None, "", "65"), name)[name]
    assert groups.isna().tolist() == [False, True, True, False]


def test_intersections_are_missing_where_a_part_is():
    groups = group_columns(LABELS, ["Class x sex", "sex"])
    assert groups["Class x sex"].tolist() == ["SZ, F", np.nan, "HC, M", "SZ, F"]
    assert Membership.of(groups["Class x sex"], 4).names == ("HC, M", "SZ, F")


def test_three_parts_may_intersect_bins_among_them():
    labels = ages("20", "30", "40", "50").assign(site=["A", "A", "B", "B"])
    name = "site x sex x age:2"
    assert group_columns(labels, name)[name].tolist() == [
        "A, F, age 20 to 30",
        "A, M, age 20 to 30",
        "B, F, age 40 to 50",
        "B, M, age 40 to 50",
    ]


def test_a_column_of_just_that_name_is_taken_first():
    labels = LABELS.assign(**{"Class x sex": list("abcd"), "age:3": list("efgh")})
    groups = group_columns(labels, ["Class x sex", "age:3", "sex x age:3"])
    assert groups["Class x sex"].tolist() == list("abcd")
    assert groups["age:3"].tolist() == list("efgh")
    assert groups["sex x age:3"].tolist() == ["F, e", np.nan, "M, g", "F, h"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            np.arange(30) + 0.5,
            r"'mm3', with 30 different labels of 30 subjects. Try 'mm3:3', three",
        ),
        ([f"s{k}" for k in range(30)], "labels that several subjects share.*Try another column"),
    ],
)
def test_a_group_per_subject_is_an_error(values, message):
    with pytest.raises(DataError, match=message):
        group_columns(pd.DataFrame({"mm3": values}), ["mm3"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sex:2", r"column of numbers.*'sex:2', where sex of id s0 is 'F'.*4 of 4\). Try 'sex'"),
        ("sex<3", "column of numbers"),
        ("age:5", "'age:5', with 4 different numbers in 4 subjects.*'age<33'"),
        ("age:1", "at least 2 groups.*'age:1'"),
        ("age:0", "at least 2 groups.*'age:0'"),
        ("age<18", "both sides.*'age<18', where age is 18 to 65"),
        ("sex x age<70", "both sides.*'age<70', where age is 18 to 65"),
        ("ag:3", r"`groups` must name a column.*Received: ag;.*Did you mean 'age'"),
        ("sex x Age", r"Received: Age; the columns are age, sex\. Did you mean 'age'"),
        ("age:three", "Received: age:three"),
    ],
)
def test_groups_that_cannot_be_made_are_an_error(name, message):
    with pytest.raises(DataError, match=message):
        group_columns(ages("18", "19", "30", "65"), name)


def test_too_many_equal_numbers_cannot_be_split_by_quantiles():
    with pytest.raises(DataError, match=r"'age:3', with 2 different numbers in 6 subjects"):
        group_columns(ages("18", "18", "18", "18", "18", "40"), "age:3")


@pytest.mark.parametrize("name", ["scanner:2", "scanner<2", "sex x scanner"])
def test_groups_out_of_an_empty_column_are_an_error(name):
    with pytest.raises(DataError, match=f"Received: {name}, without any label"):
        group_columns(LABELS, name)


def test_every_fold_needs_an_example_of_every_class():
    require_enough_per_class([0, 0, 0, 1, 1, 1], ("HC", "SZ"), folds=3)
    with pytest.raises(DataError, match=r"folds=4, but 3 of 'SZ'\. Try folds=3"):
        require_enough_per_class([0, 0, 0, 0, 1, 1, 1], ("HC", "SZ"), folds=4)
    with pytest.raises(DataError, match="0 of 'X'"):
        require_enough_per_class([0, 0, 1, 1], ("HC", "SZ", "X"), folds=2)
    with pytest.raises(DataError, match="`folds` must be at least 2"):
        require_enough_per_class([0, 1], ("HC", "SZ"), folds=1)
