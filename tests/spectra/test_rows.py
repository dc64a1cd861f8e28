"""Rows of groups: what is gathered is what belongs."""

import numpy as np
import tensorflow as tf
from keras_spectral.spectra.rows import group_rows


def test_rows_of_each_group_are_taken_in_order_and_padded_with_zeros():
    mask = np.array([[1, 0], [1, 1], [0, 0], [1, 1]], bool)
    x = np.arange(1, 17, dtype="f").reshape(4, 2, 2)
    rows = group_rows(tf.constant(mask))
    taken = rows.take(tf.constant(x)).numpy()
    assert rows.count.numpy().tolist() == [3, 2]
    np.testing.assert_array_equal(taken[0], x[[0, 1, 3]].reshape(-1, 2))
    np.testing.assert_array_equal(taken[1], np.r_[x[[1, 3]].reshape(-1, 2), np.zeros((2, 2))])


def test_absent_groups_leave_one_padded_row():
    rows = group_rows(tf.zeros([4, 2], tf.bool))
    assert rows.index.shape == (2, 1)
    assert rows.count.numpy().tolist() == [0, 0]
    assert (rows.take(tf.ones([4, 1, 3])).numpy() == 0).all()
