"""How groups travel with their examples: through shuffling, batching and splitting."""

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_spectral.errors import GroupsError
from keras_spectral.groups import Membership

_MISFIT = (
    "`groups` must have one label per example. Received: {} labels for a dataset of {}. "
    "Try the labels of just the examples in the dataset, in the same order."
)


class Grouped(NamedTuple):
    """Inputs with their group mask, in the place of `x`: Keras moves both alike.

    Attributes:
        x: What the model's `call` receives.
        mask: 0/1 array or tensor `[n, g]`.
    """

    x: Any
    mask: Any


class GroupMask(tf.experimental.BatchableExtensionType):
    """The fourth member of a dataset's elements: a mask that knows the names of its columns.

    Attributes:
        mask: uint8 tensor `[g]` of one example, or `[n, g]` of a batch.
        names: Group labels.
        permutation: For each column 0, or the number of the permutation it belongs to.
        permuted_within_strata: As in `Membership`.
    """

    mask: tf.Tensor
    names: tuple[str, ...]
    permutation: tuple[int, ...]
    permuted_within_strata: bool

    class Spec:
        """Specification of a `GroupMask`, made by TensorFlow."""


def with_groups(dataset, groups, batched=None):
    """Attach group labels to a `tf.data.Dataset`.

    Attach them before shuffling: labels follow their examples from then on.

    Args:
        dataset: Dataset of `(x, y)` or `(x, y, sample_weight)`, batched or not, whose order is
            that of `groups`.
        groups: What `fit(groups=…)` accepts, for all examples of the dataset.
        batched: Whether elements are batches. `None` infers it from their number and shapes.

    Returns:
        Dataset of `(x, y, sample_weight, groups)`, to shuffle, batch, prefetch and pass to `fit`.

    Raises:
        GroupsError: If the number of labels cannot be that of the examples, or it cannot be told
            whether the dataset is batched.

    Example:
        >>> data = tf.data.Dataset.from_tensor_slices(([[1.0], [2.0]], [0, 1]))
        >>> for x, y, sample_weight, groups in with_groups(data, ["HC", "SZ"]).batch(2):
        ...     print(groups.names, groups.mask.numpy().tolist())
        ('HC', 'SZ') [[1, 0], [0, 1]]
    """
    _require_tuples(dataset)
    membership = Membership.of(groups)
    mask = tf.constant(membership.mask.astype("uint8"))
    permutation = tuple(int(r) for r in membership.permutation)
    columns = (membership.names, permutation, membership.permuted_within_strata)
    elements = int(dataset.cardinality())
    batched = _is_batched(dataset, len(membership)) if batched is None else batched
    if not batched and elements >= 0 and elements != len(membership):
        raise GroupsError(_MISFIT.format(len(membership), f"{elements} examples"))
    largest = _static_batch_size(dataset) if batched else 1
    misfit = _MISFIT.format(len(membership), "more or fewer examples")

    def with_rows(seen, element):
        position, begin = seen
        x, y, sample_weight = element if len(element) == 3 else (*element, None)
        part = next(part for part in tf.nest.flatten((y, x)) if part is not None)
        n = tf.shape(part, tf.int64)[0] if batched else tf.constant(1, tf.int64)
        end = begin + n
        left = tf.constant(len(membership), tf.int64) - end
        # `batch(…, drop_remainder=True)` may leave less than a batch.
        fits = (left >= 0) & ((left < largest) | (position + 1 != elements))
        checked = tf.debugging.Assert(fits, [misfit])
        with tf.control_dependencies([checked]):
            rows = mask[begin:end] if batched else mask[begin]
        return (position + 1, end), (x, y, sample_weight, rows)

    def with_names(x, y, sample_weight, rows):
        return x, y, sample_weight, GroupMask(rows, *columns)

    # In two steps, as `scan` cannot make a `GroupMask`.
    zero = tf.constant(0, tf.int64)
    return dataset.scan((zero, zero), with_rows).map(with_names)


def grouped_dataset(dataset):
    """Return a dataset that Keras can consume, and the groups its elements carry.

    Args:
        dataset: Any `tf.data.Dataset`, with or without groups.

    Returns:
        `(dataset, membership)`: elements `(Grouped, y, sample_weight)` and a `Membership` without
        examples if there are groups; else the dataset itself and no groups.

    Raises:
        GroupsError: If elements have four members, the last not made by `with_groups`.
    """
    spec = dataset.element_spec
    if not isinstance(spec, tuple) or len(spec) != 4:
        return dataset, Membership.of(None)
    if not isinstance(spec[3], GroupMask.Spec):
        raise GroupsError(
            "A dataset with groups must come from `keras_spectral.with_groups(dataset, groups)`. "
            f"Received: elements with a fourth member {spec[3]}."
        )
    mapped = dataset.map(lambda x, y, weight, groups: (Grouped(x, groups.mask), y, weight))
    return mapped, _without_examples(spec[3])


def ungrouped(x):
    """Return the inputs and the mask (or `None`) of what stood in the place of `x`."""
    return x if isinstance(x, Grouped) else (x, None)


def _without_examples(spec):
    mask = np.zeros((0, len(spec.names)), dtype=bool)
    permutation = np.asarray(spec.permutation, dtype=np.int32)
    return Membership(tuple(spec.names), mask, permutation, spec.permuted_within_strata)


def _require_tuples(dataset):
    spec = dataset.element_spec
    if not isinstance(spec, tuple) or len(spec) not in (2, 3):
        raise GroupsError(
            "`dataset` must have elements (x, y) or (x, y, sample_weight). "
            f"Received: elements {spec}. Try `dataset.map` to arrange them."
        )


def _is_batched(dataset, n):
    elements = int(dataset.cardinality())
    leading = {_leading_size(spec) for spec in tf.nest.flatten(dataset.element_spec)}
    sizes = leading - {None}
    if "scalar" in sizes or len(sizes) > 1:
        return False
    if elements == n and sizes != {1}:  # batches of one have an unknown size
        return not sizes
    if elements > n:  # too few labels in any case
        return False
    if 0 <= elements < n or not sizes:
        return True
    raise GroupsError(
        "`batched` must be given if shapes do not tell whether elements are batches. "
        f"Received: batched=None for elements {dataset.element_spec}. "
        "Try `with_groups(dataset, groups, batched=True)`."
    )


def _static_batch_size(dataset):
    sizes = [_leading_size(spec) for spec in tf.nest.flatten(dataset.element_spec)]
    return next((size for size in sizes if isinstance(size, int)), 1)


def _leading_size(spec):
    shape = getattr(spec, "shape", None)  # None itself has none
    if shape is None or shape.rank is None:
        return None
    return shape[0] if shape.rank else "scalar"
