"""How groups travel with their examples, and where they are removed.

Each example carries one number, its row in the table of groups (`groups.Membership`). Keras
shuffles, splits and batches inputs, targets and weights, and nothing else, so the number travels in
the place of `x`, in a `Grouped`. It is removed before any other code sees the batch. The host looks
up in the table which groups an example belongs to.
"""

import hashlib
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_spectral.errors import GroupsError
from keras_spectral.groups import Membership

_MISFIT = (
    "`groups` must have one label per example. Received: {} labels for a dataset of {}. "
    "Try the labels of just the examples in the dataset, in the same order."
)

_KEY = "keras_spectral groups "
"""A dataset carries numbers under a key that begins with this and ends with a digest of the table.
A dictionary of plain tensors passes through every operation of `tf.data`."""

_TABLES: dict[str, Membership] = {}
"""The tables of groups that datasets of this process refer to, by key."""


class Grouped(NamedTuple):
    """Inputs and the numbers of their examples, in the place of `x`; Keras treats both alike.

    Attributes:
        x: What the model's `call` receives.
        index: Integer array or tensor `[n]`, the row of each example in the table of groups.
    """

    x: Any
    index: Any


def without_groups(data):
    """Return a batch as a plain model would receive it, and the numbers of its examples.

    Args:
        data: Batch from Keras: `x`, or a tuple that begins with `x`, which may be `Grouped`.

    Returns:
        `(batch, index)`: the batch without groups, and an integer tensor `[n]` or `None`.
    """
    if isinstance(data, Grouped):
        return data.x, data.index
    if isinstance(data, tuple | list) and data and isinstance(data[0], Grouped):
        return (data[0].x, *data[1:]), data[0].index
    return data, None


def plain_batch(data):
    """Return a batch as a plain model would receive it.

    Args:
        data: As in `without_groups`.
    """
    return without_groups(data)[0]


def grouped_inputs(x, groups):
    """Return inputs that carry their groups, and the table of groups.

    Args:
        x: Inputs, as given to `fit`: arrays, or a dataset from `with_groups`.
        groups: Groups, as given to `fit`.

    Returns:
        `(x, membership)`: inputs for Keras, and the `Membership` of all examples.

    Raises:
        GroupsError: If `groups` does not fit `x`.
    """
    if isinstance(x, tf.data.Dataset):
        _require_none_beside(groups)
        return grouped_dataset(x)
    if groups is None:
        return x, Membership.of(None)
    leaves = [leaf for leaf in keras.tree.flatten(x) if hasattr(leaf, "shape")]
    if not leaves:
        raise GroupsError(
            "`groups` must come with arrays as `x`, or inside a tf.data.Dataset. "
            f"Received: x of type {type(x).__name__}. Try `keras_spectral.with_groups`."
        )
    membership = Membership.of(groups, n=leaves[0].shape[0])
    return Grouped(x, np.arange(len(membership), dtype=np.int32)), membership


def plain_inputs(x):
    """Return inputs without the groups that they may contain.

    Args:
        x: Inputs, as given to `predict`, `evaluate` or as `validation_data`.
    """
    if isinstance(x, Grouped):
        return x.x
    if not isinstance(x, tf.data.Dataset) or _key_of(x.element_spec) is None:
        return x
    return x.map(lambda *element: element[:-1])


def with_groups(dataset, groups, batched=None):
    """Attach group labels to a `tf.data.Dataset`.

    Attach them before shuffling: labels follow their examples from then on.

    Args:
        dataset: Dataset of `(x, y)` or `(x, y, sample_weight)`, batched or not, whose order is
            that of `groups`.
        groups: What `fit(groups=…)` accepts, for all examples of the dataset.
        batched: Whether elements are batches. `None` infers it from their number and shapes.

    Returns:
        Dataset whose elements have one more member, the groups: a dictionary with one integer
        tensor, the number of each example. To shuffle, batch, prefetch and pass to `fit`.

    Raises:
        GroupsError: If the number of labels cannot be that of the examples, or it cannot be told
            whether the dataset is batched.

    Example:
        >>> data = tf.data.Dataset.from_tensor_slices(([[1.0], [2.0]], [0, 1]))
        >>> for x, y, groups in with_groups(data, ["HC", "SZ"]).batch(2):
        ...     print(*(numbers.numpy() for numbers in groups.values()))
        [0 1]
    """
    _require_tuples(dataset)
    membership = Membership.of(groups)
    key = _registered(membership)
    elements = int(dataset.cardinality())
    batched = _is_batched(dataset, len(membership)) if batched is None else batched
    if not batched and elements >= 0 and elements != len(membership):
        raise GroupsError(_MISFIT.format(len(membership), f"{elements} examples"))
    largest = _static_batch_size(dataset) if batched else 1
    misfit = _MISFIT.format(len(membership), "more or fewer examples")

    def with_numbers(seen, element):
        position, begin = seen
        part = next(part for part in tf.nest.flatten(element[::-1]) if part is not None)
        n = tf.shape(part, tf.int64)[0] if batched else tf.constant(1, tf.int64)
        end = begin + n
        left = tf.constant(len(membership), tf.int64) - end
        # `batch(…, drop_remainder=True)` may leave less than a batch.
        fits = (left >= 0) & ((left < largest) | (position + 1 != elements))
        checked = tf.debugging.Assert(fits, [misfit])
        with tf.control_dependencies([checked]):
            index = tf.range(begin, end) if batched else begin
        return (position + 1, end), (*element, {key: tf.cast(index, tf.int32)})

    zero = tf.constant(0, tf.int64)
    return dataset.scan((zero, zero), with_numbers)


def grouped_dataset(dataset):
    """Return a dataset that Keras can consume, and the groups its elements carry.

    Args:
        dataset: Any `tf.data.Dataset`, with or without groups.

    Returns:
        `(dataset, membership)`: elements that begin with a `Grouped` and the `Membership` of all
        examples if there are groups; else the dataset itself and no groups.

    Raises:
        GroupsError: If the table of groups belongs to another process, or elements have a fourth
            member that `with_groups` has not made.
    """
    key = _key_of(dataset.element_spec)
    if key is None:
        _require_no_fourth(dataset.element_spec)
        return dataset, Membership.of(None)
    if key not in _TABLES:
        raise GroupsError(
            "A dataset with groups must come from `keras_spectral.with_groups` in this process. "
            f"Received: numbers of examples under {key!r}, whose table is not here. "
            "Try `with_groups` with the same labels once more, after loading the dataset."
        )

    def grouped(x, *rest):
        *others, groups = rest
        return (Grouped(x, groups[key]), *others)

    return dataset.map(grouped), _TABLES[key]


def _registered(membership):
    digest = hashlib.sha256(repr((membership.names, membership.permutation.tolist())).encode())
    digest.update(np.packbits(membership.mask).tobytes())
    key = _KEY + digest.hexdigest()[:16]
    _TABLES[key] = membership
    return key


def _key_of(spec):
    """Return the key of the groups that elements carry, or `None`."""
    if not isinstance(spec, tuple) or len(spec) < 2 or not isinstance(spec[-1], dict):
        return None
    keys = [key for key in spec[-1] if isinstance(key, str) and key.startswith(_KEY)]
    return keys[0] if keys else None


def _require_no_fourth(spec):
    if isinstance(spec, tuple) and len(spec) == 4:
        raise GroupsError(
            "A dataset with groups must come from `keras_spectral.with_groups(dataset, groups)`. "
            f"Received: elements with a fourth member {spec[3]}."
        )


def _require_none_beside(groups):
    if groups is not None:
        raise GroupsError(
            "`groups` must travel inside a tf.data.Dataset. Received: groups beside a dataset. "
            "Try `keras_spectral.with_groups(dataset, groups)` in its place."
        )


def _require_tuples(dataset):
    spec = dataset.element_spec
    if not isinstance(spec, tuple) or len(spec) not in (2, 3) or _key_of(spec) is not None:
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
