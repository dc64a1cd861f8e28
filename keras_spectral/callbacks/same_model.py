"""A check of callbacks that record one model only."""

from keras_spectral.errors import RecordingError


def require_same_model(callback, model):
    """Raise if a callback that has been used with one model is now used with another.

    Args:
        callback: The callback, whose `model` is the present one.
        model: The model of an earlier `fit`, or `None`.

    Raises:
        RecordingError: If the two models differ.
    """
    if model is not None and model is not callback.model:
        name = type(callback).__name__
        raise RecordingError(
            f"A `{name}` must stay with one model. Received: {callback.model.name}, after "
            f"{model.name}. Try a new `{name}` for each model."
        )
