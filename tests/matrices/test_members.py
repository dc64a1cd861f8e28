"""Membership: one encoding, in which group 0 is the whole batch."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from keras_spectral.matrices.members import Members

masks = arrays(bool, array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=7))


@given(masks)
def test_group_0_is_the_whole_batch_and_the_others_follow(groups):
    members = Members.of(groups)
    assert (members.n, members.n_groups) == (len(groups), groups.shape[1] + 1)
    assert members.mask.dtype == bool
    assert members.mask[:, 0].all()
    np.testing.assert_array_equal(members.mask[:, 1:], groups)
    assert members.sizes.tolist() == [len(groups), *groups.sum(axis=0)]


@given(masks, st.data())
def test_examples_of_a_group_are_increasing_and_none_says_all(groups, data):
    members = Members.of(groups)
    g = data.draw(st.integers(0, groups.shape[1]))
    examples, own = members.examples(g), np.flatnonzero(members.mask[:, g])
    if len(own) == len(groups):
        assert examples is None
    else:
        np.testing.assert_array_equal(examples, own)


@pytest.mark.parametrize(
    ("groups", "divide"),
    [
        ([[1, 0], [0, 1], [0, 1]], True),
        ([[1, 0, 0], [0, 0, 1], [0, 0, 1]], True),
        ([[1], [1], [1]], True),
        ([[1, 0], [0, 0], [0, 1]], False),
        ([[1, 0], [1, 1], [0, 1]], False),
        ([[1, 1], [0, 0], [0, 1]], False),
        ([[], [], []], False),
    ],
    ids=[
        *("each in one", "an empty group", "all in one"),
        *("one in none", "one in both", "as many memberships as examples", "no groups"),
    ],
)
def test_groups_divide_a_batch_if_each_example_is_in_exactly_one(groups, divide):
    assert Members.of(np.array(groups, bool)).divide is divide
