"""docs/layers.md says what the rules say."""

from pathlib import Path

import keras
import pytest
import tensorflow as tf

from keras_spectral.capture.generic import GenericRule
from keras_spectral.capture.registry import RULES
from scripts import layers_table
from tests.capture.every_layer import TRAINABLE

L = keras.layers
PAGE = Path(__file__).resolve().parents[2] / "docs" / "layers.md"


@pytest.fixture
def on_a_cpu(monkeypatch):
    """Nothing: the page tells of a machine without a GPU."""
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind=None: [])


@pytest.mark.usefixtures("on_a_cpu")
def test_the_page_is_what_the_script_makes_now():
    made = layers_table.page()
    assert PAGE.read_text(encoding="utf-8") == made, "Try the command that the page names."
    assert all(len(line) <= 100 for line in made.splitlines() if not line.startswith("|"))


@pytest.mark.usefixtures("on_a_cpu")
def test_every_layer_with_trainable_weights_has_one_row_that_names_a_class():
    rows = layers_table.table().splitlines()[2:]
    assert len(rows) == len(TRAINABLE)
    named = [row.split("|")[1].strip(" `") for row in rows]
    assert named == sorted(named, key=str.lower)
    assert all(issubclass(getattr(L, name), L.Layer) for name in named)
    assert all(row.count("|") == len(layers_table.HEAD) + 1 for row in rows)


FAMILIES = [rule for rule in RULES if not isinstance(rule, GenericRule)]
"""The others say the same of every trainable weight."""


@pytest.mark.parametrize("rule", FAMILIES, ids=lambda rule: type(rule).__name__)
def test_every_rule_puts_the_weights_that_it_captures_in_words(rule):
    known = rule.layer_types[0]
    model, _, _ = layers_table.example(*TRAINABLE[known.__name__])
    layer = next(layer for layer in model._flatten_layers() if isinstance(layer, known))
    assert [words.weight for words in rule.in_words] == [name for name, _ in rule.weights(layer)]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_lora_and_quantised_weights_are_named_where_keras_offers_them(rule):
    for known in rule.layer_types:
        assert ("LoRA" in rule.left_to_generic) == hasattr(known, "enable_lora")
        quantised = known.quantize is not L.Layer.quantize
        assert ("quantised weights" in rule.left_to_generic) == quantised
