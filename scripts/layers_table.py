"""Every layer of Keras and how it is captured: the page docs/layers.md.

    python -m scripts.layers_table [--write docs/layers.md]

The descriptions are those of the rules (`in_words`, `left_to_generic`). The rule of a layer is
found from an example of it. The page describes a machine without a GPU.
"""

import argparse
import inspect
import os
import textwrap
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import tensorflow as tf

from keras_spectral.capture.generic import GenericRule
from keras_spectral.capture.registry import ANY_LAYER, RULES
from keras_spectral.capture.sites import sites
from tests.capture.every_layer import FOREIGN, TRAINABLE, WITHOUT_TRAINABLE_WEIGHTS
from tests.capture.examples import example

HEAD = ("layer", "rule", "weight", "A", "Δ", "G", "left to the generic rule")

L = keras.layers

SOURCES = "../keras_spectral/capture"
"""The rules, seen from the page."""

PAGE = """\
# Every layer, and how it is captured

Made by `python -m scripts.layers_table --write docs/layers.md`, for the layers of Keras {version}.
`ks.coverage(model)` and `keras-spectral layers MODEL.keras` list every weight of your own model.

Letters: `n` example, `s` shared position, `t` step, `i` input feature, `o` output feature, `k`
kernel offset, `c` input channel, `m` depth multiplier, `u` unit, `v` vocabulary. Z is what the
activation function receives, Y what the layer (or a depthwise part) returns. *G* is the shape of
the matrix `G = AᵀΔ`, the gradient of the weight. The definitions are in [method.md](method.md).

With the options in *left to the generic rule* the generic rule captures the layer: group gradients
are still exact, by automatic differentiation, and A and Δ are those in the rows of GenericRule. The
same holds for any subclass that overrides `call`, or a member that `call` uses, such as a kernel or
`convolution_op`. A layer that is called in a loop is captured at the layer that runs the loop. The
generic rule records no A that is not floating point, such as tokens.

*In its …* names the sublayer that has the weights; for a wrapper, that of an example.

{table}

{generic}

## Not captured

{without}

{foreign}
"""

GENERIC = """The generic rule also captures layers of your own: A is {0.a}, Δ is {0.delta}, and G is
{0.gradient}. Only the generic rule records biases, which are vectors."""


def row(name):
    """Return the cells of a layer of Keras.

    Args:
        name: Name of its class.

    Returns:
        List of texts, one for each column of `HEAD`.
    """
    rule, layer_type, words = _captured(name)
    within = "" if layer_type == name else f", in its {_code(layer_type)}"
    left = "(always)" if rule is ANY_LAYER else "; ".join(rule.left_to_generic)
    return [
        _code(_public_name(name)),
        f"{_source(rule)}{within}",
        _lines([_code(each.weight) for each in words]),
        *(_lines([getattr(each, part) for each in words]) for part in ("a", "delta", "gradient")),
        left or "–",
    ]


def table():
    """Return the Markdown table of all layers with trainable weights."""
    lines = [HEAD, ["---"] * len(HEAD), *sorted(map(row, TRAINABLE), key=_by_name)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def page():
    """Return the whole page."""
    without = "Layers without trainable weights: "
    without += ", ".join(map(_code, sorted(WITHOUT_TRAINABLE_WEIGHTS, key=str.lower)))
    return PAGE.format(
        version=".".join(keras.__version__.split(".")[:2]),
        table=table(),
        generic=textwrap.fill(GENERIC.format(ANY_LAYER.in_words[0]), 100),
        without=textwrap.fill(without + ".", 100),
        foreign="\n".join(f"- {_code(name)}: {why}." for name, why in sorted(FOREIGN.items())),
    )


def _by_name(cells):
    return cells[0].lower()


def _captured(name):
    """Return the rule of a layer, the class that has the weights, and their descriptions."""
    for rule in RULES:
        if not isinstance(rule, GenericRule) and name in [
            known.__name__ for known in rule.layer_types
        ]:
            return rule, name, rule.in_words
    model, _, _ = example(*TRAINABLE[name])
    site = next(site for site in sites(model) if site.rule is not None)
    words = site.rule.in_words
    if isinstance(site.rule, GenericRule):
        words = [_of_weight(weight, variable) for weight, variable in site.weights]
    return site.rule, type(site.layer).__name__, words


def _of_weight(name, variable):
    shape = ("`[1, 1]`", "`[1, o]`", "`[…, o]`")[min(2, len(variable.shape))]
    return ANY_LAYER.in_words[0]._replace(weight=name, gradient=shape)


def _public_name(name):
    """Return the name under which `keras.layers` has a class: not always its own."""
    if hasattr(L, name):
        return name
    classes = inspect.getmembers(L, inspect.isclass)
    return next(public for public, member in classes if member.__name__ == name)


def _source(rule):
    file = Path(inspect.getfile(type(rule))).name
    return f"[{type(rule).__name__}]({SOURCES}/{file})"


def _code(name):
    return f"`{name}`"


def _lines(texts):
    """Return texts one below the other in a cell; one that all share stands once."""
    return texts[0] if len(set(texts)) == 1 else "<br>".join(texts)


def main():
    """Print the table, or write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", type=Path, help="Markdown page to write")
    options = parser.parse_args()
    tf.config.set_visible_devices([], "GPU")
    if options.write:
        options.write.write_text(page(), encoding="utf-8")
    else:
        print(table())


if __name__ == "__main__":
    main()
