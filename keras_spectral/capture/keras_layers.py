"""Operations on layers without a public Keras API: own weights, temporary attributes."""

from collections import Counter
from contextlib import contextmanager


@contextmanager
def attributes(layer, **values):
    """Set instance attributes of a layer temporarily; they are restored also after an exception.

    Attributes are set in the instance dictionary, where Keras neither tracks nor locks them.

    Args:
        layer: The layer.
        **values: Attribute values.

    Yields:
        Nothing.
    """
    before = {name: layer.__dict__[name] for name in values if name in layer.__dict__}
    layer.__dict__.update(values)
    try:
        yield
    finally:
        for name in values:
            layer.__dict__.pop(name, None)
        layer.__dict__.update(before)


@contextmanager
def losses_kept(model):
    """Restore the losses that layers have added (`add_loss`) at the end of the context.

    Args:
        model: A Keras layer or model.

    Yields:
        Nothing.
    """
    before = [(layer, layer._losses[:]) for layer in model._flatten_layers()]
    try:
        yield
    finally:
        for layer, losses in before:
            layer._losses[:] = losses


def name_of_call(layer):
    """Return the name of the method that Keras runs when a layer is called.

    Args:
        layer: A Keras layer.
    """
    return "call" if layer.quantization_mode is None else "quantized_call"


def own_variables(layer):
    """Return the weights of a layer without those of its sublayers.

    Args:
        layer: A built Keras layer.
    """
    within = {id(v) for part in layer._flatten_layers(include_self=False) for v in part.variables}
    everything = layer._trainable_variables + layer._non_trainable_variables
    return [variable for variable in everything if id(variable) not in within]


def numbered(names):
    """Return unique names: the second occurrence of a name ends in `#2`.

    Args:
        names: Sequence of texts.
    """
    seen, result = Counter(), []
    for name in names:
        seen[name] += 1
        result.append(f"{name}#{seen[name]}" if seen[name] > 1 else name)
    return result
