"""One callback, one model."""

from keras_spectral.errors import RecordingError


def require_same_model(callback, model):
    """Raise if a callback that has served one model is now used with another.

    Args:
        callback: The callback.
        model: The model that it served, or `None`.

    Raises:
        RecordingError: If it is.
    """
    if model is not None and model is not callback.model:
        name = type(callback).__name__
        raise RecordingError(
            f"A `{name}` must stay with one model. Received: {callback.model.name}, after "
            f"{model.name}. Try a new `{name}` for each model."
        )
