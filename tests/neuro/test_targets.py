"""Targets and groups out of a table of labels."""

import numpy as np
import pandas as pd
import pytest

from keras_spectral.errors import DataError
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
    with pytest.raises(DataError, match=f"reads the answer.*{leak}"):
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


def test_every_fold_needs_an_example_of_every_class():
    require_enough_per_class([0, 0, 0, 1, 1, 1], ("HC", "SZ"), folds=3)
    with pytest.raises(DataError, match=r"folds=4, but 3 of 'SZ'\. Try folds=3"):
        require_enough_per_class([0, 0, 0, 0, 1, 1, 1], ("HC", "SZ"), folds=4)
    with pytest.raises(DataError, match="0 of 'X'"):
        require_enough_per_class([0, 0, 1, 1], ("HC", "SZ", "X"), folds=2)
    with pytest.raises(DataError, match="`folds` must be at least 2"):
        require_enough_per_class([0, 1], ("HC", "SZ"), folds=1)
