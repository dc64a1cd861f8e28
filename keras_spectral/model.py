"""`SpectralModel`: a `keras.Model` whose training is watched."""

import keras
from keras.src.models.functional import Functional  # Keras has no public name for it

from keras_spectral.training import SpectralTraining

PACKAGE = "keras_spectral"


@keras.saving.register_keras_serializable(PACKAGE)
class SpectralModel(SpectralTraining, keras.Model):
    """A `keras.Model` that records how each group of samples teaches each layer.

    Built like any Keras model: from `inputs` and `outputs`, by subclassing and overriding `call`,
    or from an existing model with `from_model`. Trained weights are those of a plain model.

    Args:
        inputs: Keras input tensor, or a list or dictionary of them.
        outputs: Keras output tensor, or a list or dictionary of them.
        name: Name of the model.

    Example:
        >>> import numpy as np
        >>> inputs = keras.Input((3,))
        >>> model = SpectralModel(inputs, keras.layers.Dense(2, name="out")(inputs))
        >>> model.compile("sgd", "mse", spectra=1)
        >>> x, y = np.ones((4, 3)), np.zeros((4, 2))
        >>> history = model.fit(x, y, groups=["HC", "SZ", "HC", "SZ"], verbose=0)
        >>> model.spectral_log.groups
        ['all', 'HC', 'SZ']
    """

    def __new__(cls, *args, **kwargs):
        """Return a functional model if given tensors, else an instance of the subclass."""
        # As `keras.Model` does: two tensors make a functional model, anything else a subclass.
        if cls is SpectralModel and _are_tensors(args, kwargs):
            return super().__new__(SpectralFunctional)
        return super().__new__(cls)

    def __init__(self, *args, **kwargs):
        # Keras would change the bases of this very class, and with them those of every other
        # subclass, if a user's subclass is built from tensors: change the user's class only.
        if _are_tensors(args, kwargs) and not isinstance(self, Functional):
            _functional(type(self))
            Functional.__init__(self, *args, **kwargs)
        else:
            super().__init__(*args, **kwargs)

    @classmethod
    def from_model(cls, model):
        """Return a `SpectralModel` with the same layers and weights as an existing model.

        Args:
            model: Any `keras.Model`. Its layers are shared, not copied: training one trains both.

        Returns:
            A `SpectralModel`, not yet compiled.

        Raises:
            ValueError: If `model` is no Keras model, or has a `train_step`, a `compute_loss` or
                the like of its own, which would be lost.
        """
        if not isinstance(model, keras.Model):
            raise ValueError(
                f"`model` must be a keras.Model. Received: model={model!r} of type {type(model)}."
            )
        for name in ("train_step", "test_step", "compute_loss", "compute_metrics"):
            known = [getattr(base, name) for base in (keras.Model, SpectralModel)]
            if getattr(type(model), name) not in known:
                raise ValueError(
                    "`model` must train as keras.Model does. "
                    f"Received: {type(model).__name__}, which has a `{name}` of its own. "
                    "Try deriving that class from SpectralModel and overriding `compute_loss`."
                )
        if isinstance(model, keras.Sequential) and model.built:
            return cls(model.inputs[0], model.outputs[0], name=model.name)
        if type(model) is Functional or isinstance(model, SpectralFunctional):
            return cls(model.input, model.output, name=model.name)
        return WrappedModel(model, name=model.name)


@keras.saving.register_keras_serializable(PACKAGE)
class SpectralFunctional(SpectralModel, Functional):
    """A `SpectralModel` made from input and output tensors."""


@keras.saving.register_keras_serializable(PACKAGE)
class WrappedModel(SpectralModel):
    """A `SpectralModel` that calls a model which is not a graph of layers.

    Args:
        wrapped_model: The model.
        name: Name of this model.
    """

    def __init__(self, wrapped_model, name=None, **kwargs):
        super().__init__(name=name, **kwargs)
        self.wrapped_model = wrapped_model

    def call(self, inputs, training=None):
        """Return what the wrapped model returns."""
        if self.wrapped_model._call_has_training_arg:
            return self.wrapped_model(inputs, training=training)
        return self.wrapped_model(inputs)

    def get_config(self):
        """Return the configuration, the wrapped model's included."""
        wrapped = keras.saving.serialize_keras_object(self.wrapped_model)
        return {"wrapped_model": wrapped, "name": self.name}

    @classmethod
    def from_config(cls, config):
        """Return the model that `get_config` described."""
        wrapped = keras.saving.deserialize_keras_object(config["wrapped_model"])
        return cls(wrapped, name=config["name"])


def _are_tensors(args, kwargs):
    return len(args) == 2 or (len(args) == 1 and "outputs" in kwargs) or "inputs" in kwargs


def _functional(cls):
    if cls is SpectralModel:
        return SpectralFunctional
    if issubclass(cls, SpectralModel):
        cls.__bases__ = tuple(_functional(base) for base in cls.__bases__)
    return cls
