"""EinsumDense, and attention through it, against NumPy and per-example tapes."""

import keras
import numpy as np
import pytest

import keras_spectral as ks
from keras_spectral.capture.einsum_dense import EinsumDenseRule
from tests.oracles.layers import example_gradients
from tests.oracles.mlp import singular_values

TOLERANCE = 1e-5
N = 6
MASK = np.array([[1, 0], [1, 1], [0, 1], [0, 0], [1, 0], [0, 1]], bool)

# equation, input shape, output shape, orders of A, Δ and kernel: rows first, then i or o
CASES = {
    "dense": ("ab,bc->ac", (5,), 3, "ab->ab", "ac->ac", "bc->bc"),
    "time": ("abc,cd->abd", (4, 5), (None, 3), "abc->abc", "abd->abd", "cd->cd"),
    "heads": ("abc,cde->abde", (4, 5), (None, 2, 3), "abc->abc", "abde->abde", "cde->cde"),
    "merged": ("abcd,cde->abe", (4, 2, 3), (None, 5), "abcd->abcd", "abe->abe", "cde->cde"),
    "kernel the other way": ("abc,dc->abd", (4, 5), (None, 3), "abc->abc", "abd->abd", "dc->cd"),
    "features first": ("acb,cd->adb", (5, 4), (3, None), "acb->abc", "adb->abd", "cd->cd"),
    "split features": ("abcd,bde->ace", (2, 4, 3), (None, 5), "abcd->acbd", "ace->ace", "bde->bde"),
    "summed": ("abc,cd->ad", (4, 5), 3, "abc->ac", "ad->ad", "cd->cd"),
    "ellipsis": ("...c,cd->...d", (4, 5), 3, "abc->abc", "abd->abd", "cd->cd"),
    "ellipsis on the right": ("ac...,cd->ad...", (5, 4), 3, "acb->abc", "adb->abd", "cd->cd"),
}


def recorded(model, x, y, spectra=1, **options):
    model.compile(keras.optimizers.SGD(0.0), "mean_squared_error", spectra=spectra, **options)
    model.fit(x, y, groups=MASK, batch_size=N, shuffle=False, verbose=0)
    return model.spectral_log


def rows_and_features(array, order, n_features):
    rows = np.einsum(order, array)
    width = int(np.prod(rows.shape[rows.ndim - n_features :]))
    return rows.reshape(len(array), -1, width)


def assert_equal(log, layer, a, d, g):
    """Compare with A `[n, s, i]`, Δ `[n, s, o]` and per-example gradients `[n, i, o]`."""
    columns = {"all": np.ones(len(a), bool), "0": MASK[:, 0], "1": MASK[:, 1]}
    for group, rows in columns.items():
        for quantity, matrix in (
            ("activation", a[rows].reshape(-1, a.shape[-1])),
            ("adjoint", d[rows].reshape(-1, d.shape[-1])),
            ("gradient", g[rows].sum(axis=0)),
        ):
            values = log.singular_values(layer, quantity, group, 0)
            wanted = singular_values(matrix, len(values))
            assert len(values) >= min(np.linalg.matrix_rank(matrix), 1)
            assert np.abs(values - wanted).max() <= TOLERANCE * wanted[0], (quantity, group)


@pytest.mark.parametrize("gradients", ["factors", "per_example"])
@pytest.mark.parametrize("name", CASES)
def test_spectra_equal_the_oracle_for_every_kind_of_equation(name, gradients):
    equation, shape, out, order_a, order_d, order_w = CASES[name]
    inputs = keras.Input(shape)
    bias = None if "..." in equation else order_w[-1]
    layer = keras.layers.EinsumDense(equation, out, bias_axes=bias, activation="tanh", name="e")
    model = ks.SpectralModel(inputs, layer(inputs))
    rng = np.random.default_rng(0)
    x = rng.standard_normal((N, *shape)).astype("f")
    y = rng.standard_normal(model(x).shape).astype("f")
    log = recorded(model, x, y, ks.Spectra(gradients=gradients))
    z = np.asarray(model(x), float)
    delta = 2 * (z - y) / y.size * (1 - z**2)
    n_i = len([c for c in order_a.split("->")[1] if c in order_w])
    n_o = len([c for c in order_d.split("->")[1] if c in order_w])
    (g,) = example_gradients(model, x, y, [layer.kernel.value])
    w_in, w_out = order_w.split("->")
    g = np.einsum(f"N{w_in}->N{w_out}", g)
    a = rows_and_features(x.astype(float), order_a, n_i)
    d = rows_and_features(delta, order_d, n_o)
    assert_equal(log, "e", a, d, g.reshape(N, a.shape[-1], d.shape[-1]))


@pytest.mark.parametrize(
    ("equation", "shape", "out", "why"),
    [
        ("abc,bcd->abd", (4, 5), (4, 3), "has a kernel of its own for each position"),
        ("abb,bc->ac", (5, 5), 3, "repeats a letter"),
        (
            "abc,cd->bad",
            (4, 5),
            (None, 3),
            "does not lead with the example in its input and its output",
        ),
    ],
)
def test_equations_without_such_a_form_are_named_with_the_reason(equation, shape, out, why):
    layer = keras.layers.EinsumDense(equation, out, name="e")
    layer.build((4, *shape))
    assert EinsumDenseRule().obstacle(layer) == f"the equation {equation!r} {why}"


def attention(kind, **options):
    layers = keras.layers
    if kind == "mha":
        return layers.MultiHeadAttention(2, 3, value_dim=4, name="att", **options)
    return layers.GroupQueryAttention(3, 4, 2, name="att", **options)


@pytest.mark.parametrize("flash", [None, False])
@pytest.mark.parametrize("cross", [False, True])
@pytest.mark.parametrize("kind", ["mha", "gqa"])
def test_attention_is_captured_through_its_projections(kind, cross, flash):
    query, other = keras.Input((4, 5)), keras.Input((3, 5))
    layer = attention(kind, flash_attention=flash) if flash is not None else attention(kind)
    inputs = [query, other] if cross else [query]
    model = ks.SpectralModel(inputs, layer(query, other if cross else query))
    rng = np.random.default_rng(1)
    x = [rng.standard_normal((N, *part.shape[1:])).astype("f") for part in inputs]
    y = rng.standard_normal((N, 4, 5)).astype("f")
    log = recorded(model, x, y)
    kernels = {
        site: weight
        for site, weight in (
            ("att/query", layer._query_dense.kernel),
            ("att/key", layer._key_dense.kernel),
            ("att/value", layer._value_dense.kernel),
            ("att/attention_output", layer._output_dense.kernel),
        )
    }
    assert set(log.layers) == set(kernels)
    gradients = example_gradients(model, x, y, [weight.value for weight in kernels.values()])
    for (path, kernel), found in zip(kernels.items(), gradients, strict=True):
        split = 2 if path.endswith("output") else 1
        i = int(np.prod(kernel.shape[:split]))
        of_all = found.sum(axis=0).reshape(i, -1)
        for group, rows in (("all", np.ones(N, bool)), ("0", MASK[:, 0]), ("1", MASK[:, 1])):
            values = log.singular_values(path, "gradient", group, 0)
            wanted = singular_values(found[rows].sum(axis=0).reshape(i, -1), len(values))
            scale = singular_values(of_all, 1)[0]
            assert np.abs(values - wanted).max() <= TOLERANCE * scale, (path, group)


def test_recording_leaves_attention_training_as_it_was():
    def trained(record):
        keras.utils.set_random_seed(3)
        inputs = keras.Input((4, 5))
        outputs = keras.layers.Dense(1)(attention("mha", dropout=0.2)(inputs, inputs))
        model = (ks.SpectralModel if record else keras.Model)(inputs, outputs)
        model.compile("adam", "mse", **({"spectra": 1} if record else {}))
        x = np.random.default_rng(0).standard_normal((12, 4, 5)).astype("f")
        model.fit(x, x[..., :1], epochs=3, batch_size=4, verbose=0)
        return model.get_weights()

    for plain, watched in zip(trained(False), trained(True), strict=True):
        np.testing.assert_array_equal(plain, watched)
