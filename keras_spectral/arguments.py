"""What `fit` and `evaluate` are given: arguments by name, callbacks as Keras takes them."""

import inspect

import keras


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


def callbacks_of(given):
    """Return callbacks as a list.

    Args:
        given: What `fit` was given: `None`, one, a sequence, or a `CallbackList`.
    """
    if isinstance(given, keras.callbacks.CallbackList):
        return list(given.callbacks)
    return [callback for callback in keras.tree.flatten(given) if callback is not None]


def with_callback(given, callback, model):
    """Return callbacks, one before all others.

    Args:
        given: As in `callbacks_of`.
        callback: Callback.
        model: The model that is trained.
    """
    if isinstance(given, keras.callbacks.CallbackList):
        callback.set_model(model)
        given.callbacks.insert(0, callback)
        return given
    return [callback, *callbacks_of(given)]
