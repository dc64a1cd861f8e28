"""What `fit` and `evaluate` are given, and what is made of it: groups in batches, and a clock."""

import inspect

import keras
import tensorflow as tf

from keras_spectral.batches import Grouped, grouped_dataset
from keras_spectral.errors import GroupsError
from keras_spectral.groups import Membership


def bound(method, *args, **kwargs):
    """Return the arguments of a call by name, those of `**kwargs` among them.

    Args:
        method: Function whose first parameter is `self`.
        *args: What it would be called with, `self` first.
        **kwargs: Likewise.

    Returns:
        Dictionary without `self`.
    """
    arguments = inspect.signature(method).bind(*args, **kwargs).arguments
    extra = arguments.pop("kwargs", {})
    return {name: value for name, value in arguments.items() if name != "self"} | extra


def with_mask(arguments, groups, keep):
    """Return arguments whose `x` brings the mask of the groups along.

    Args:
        arguments: Dictionary of what `fit` or `evaluate` was given.
        groups: Likewise.
        keep: Whether the mask is wanted; else groups are checked, and only their names returned.

    Returns:
        `(arguments, membership)`: a new dictionary, and the `Membership` of all examples.

    Raises:
        GroupsError: If `groups` does not fit `x`.
    """
    x = arguments.get("x")
    if isinstance(x, tf.data.Dataset):
        if groups is not None:
            raise GroupsError(
                "`groups` must travel inside a tf.data.Dataset. Received: groups beside a dataset. "
                "Try `fit(keras_spectral.with_groups(dataset, groups))`."
            )
        dataset, membership = grouped_dataset(x)
    elif groups is None:
        return arguments, Membership.of(None)
    else:
        leaves = [leaf for leaf in keras.tree.flatten(x) if hasattr(leaf, "shape")]
        if not leaves:
            raise GroupsError(
                "`groups` must come with arrays as `x`, or inside a tf.data.Dataset. "
                f"Received: x of type {type(x).__name__}. Try `keras_spectral.with_groups`."
            )
        membership = Membership.of(groups, n=leaves[0].shape[0])
        dataset = Grouped(x, membership.mask.astype("uint8")) if keep else x
    if not keep and isinstance(dataset, tf.data.Dataset) and membership.names:
        dataset = dataset.map(lambda grouped, *rest: (grouped.x, *rest))
    return {**arguments, "x": dataset}, membership


def without_mask(validation_data):
    """Return validation data whose elements, of a dataset with groups, have none.

    Args:
        validation_data: As in `keras.Model.fit`.
    """
    if not isinstance(validation_data, tf.data.Dataset):
        return validation_data
    return with_mask({"x": validation_data}, None, keep=False)[0]["x"]


def batch_size(arguments):
    """Return the expected examples of a batch, or `None`.

    Args:
        arguments: As in `with_mask`.
    """
    x = arguments.get("x")
    if not isinstance(x, tf.data.Dataset):
        return arguments.get("batch_size")
    return keras.tree.flatten(x.element_spec)[0].shape[:1].as_list()[0]


def callbacks_of(given):
    """Return callbacks as a list.

    Args:
        given: What `fit` was given: `None`, one, a sequence, or a `CallbackList`.
    """
    if isinstance(given, keras.callbacks.CallbackList):
        return list(given.callbacks)
    return [callback for callback in keras.tree.flatten(given) if callback is not None]


def with_clock(given, clock, model):
    """Return callbacks, the clock before all others.

    Args:
        given: As in `callbacks_of`.
        clock: Callback.
        model: The model that is trained.
    """
    if isinstance(given, keras.callbacks.CallbackList):
        clock.set_model(model)
        given.callbacks.insert(0, clock)
        return given
    return [clock, *callbacks_of(given)]
