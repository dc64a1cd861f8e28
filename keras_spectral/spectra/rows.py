"""Rows of each group within a batch.

Letters: `n` example, `s` position, `w` feature, `g` group, `m` examples of the largest group.
"""

from typing import Any, NamedTuple

import tensorflow as tf


class GroupRows(NamedTuple):
    """Which examples of a batch each group has.

    Attributes:
        index: Integer tensor `[g, m]`: the examples of each group, in order, then the number `n`
            (one past the last example) as padding.
        count: Integer tensor `[g]`: examples of each group in this batch.
        divide: Scalar boolean tensor: whether every example is in exactly one group.
    """

    index: Any
    count: Any
    divide: Any

    def take(self, x):
        """Return the rows of each group, padded with zero rows.

        Args:
            x: Tensor `[n, s, w]`.

        Returns:
            Tensor `[g, m * s, w]`.
        """
        padded = tf.pad(x, [[0, 1], [0, 0], [0, 0]])
        rows = tf.gather(padded, self.index)
        shape = tf.shape(rows)
        return tf.reshape(rows, tf.stack([shape[0], shape[1] * shape[2], x.shape[-1]]))


def taken(x, rows, dtype=tf.float64):
    """Return the rows of each group, padded with zero rows.

    Args:
        x: Tensor `[n, s, w]`.
        rows: `GroupRows`, or `None` for the whole batch (`g = 1`).
        dtype: Precision of the result.

    Returns:
        Tensor `[g, m * s, w]`.
    """
    found = tf.reshape(x, [1, -1, x.shape[-1]]) if rows is None else rows.take(x)
    return tf.cast(found, dtype)


def group_rows(mask):
    """Return the rows of each group from a membership mask.

    Args:
        mask: Boolean (or 0/1) tensor `[n, g]`.

    Returns:
        A `GroupRows` with `m` of at least 1, so that no matrix is empty.
    """
    members = tf.cast(tf.transpose(mask), tf.int32)  # [g, n]
    n = tf.shape(members)[1]
    count = tf.reduce_sum(members, axis=1)
    largest = tf.maximum(tf.reduce_max(count), 1)
    order = tf.argsort(members, axis=1, direction="DESCENDING", stable=True)[:, :largest]
    index = tf.where(tf.range(largest) < count[:, None], order, n)
    divide = tf.reduce_all(tf.equal(tf.reduce_sum(members, axis=0), 1))
    return GroupRows(index, count, divide)
