"""Every recorded spectrum equals per-example tape gradients and float64 NumPy."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import keras_spectral as ks
from tests.oracles.mlp import activations_and_adjoints, example_gradients, singular_values

TOLERANCE = 1e-5
"""Of sigma_1: the float32 forward and backward pass rounds to about 1e-6, a deep one to more."""

ACTIVATIONS = ["linear", "relu", "tanh"]


def mlp(widths, activations):
    inputs = keras.Input((widths[0],))
    x = inputs
    for j, width in enumerate(widths[1:]):
        last = j == len(widths) - 2
        activation = "softmax" if last else activations[j]
        x = keras.layers.Dense(
            width, activation=activation, bias_initializer="random_normal", name=f"d{j}"
        )(x)
    return inputs, x


def recorded(model, x, y, groups, batch_size, spectra=1, sample_weight=None):
    model.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy", spectra=spectra)
    model.fit(
        x,
        y,
        groups=groups,
        batch_size=batch_size,
        sample_weight=sample_weight,
        shuffle=False,
        verbose=0,
    )
    return model.spectral_log


def assert_log_equals_oracle(log, model, activations, x, y, mask, batch_size, weight=None):
    kernels = [layer.kernel for layer in model.layers if hasattr(layer, "kernel")]
    weights = [np.asarray(w) for w in model.get_weights()]
    names = [layer.name for layer in model.layers if hasattr(layer, "kernel")]
    checked = 0
    for step, begin in enumerate(range(0, len(x), batch_size)):
        part = slice(begin, begin + batch_size)
        w = None if weight is None else weight[part]
        a, d = activations_and_adjoints(weights, activations, x[part], y[part], w)
        g = example_gradients(model, x[part], y[part], [k.value for k in kernels], w)
        columns = {"all": np.ones(len(x[part]), bool)}
        columns |= {str(j): mask[part, j] for j in range(mask.shape[1])}
        for j, layer in enumerate(names):
            for group, rows in columns.items():
                matrices = {
                    "activation": a[j][rows],
                    "adjoint": d[j][rows],
                    "gradient": g[j][rows].sum(axis=0),
                }
                for quantity, matrix in matrices.items():
                    if not rows.any():
                        with pytest.raises(ks.errors.LogError):
                            log.singular_values(layer, quantity, group, step)
                        continue
                    values = log.singular_values(layer, quantity, group, step)
                    wanted = singular_values(matrix, max(matrix.shape))
                    bound = min(*matrix.shape, rows.sum())
                    assert len(values) == bound
                    assert (np.diff(values) <= 0).all()
                    scale = max(wanted[0], 1e-12)
                    assert np.abs(values - wanted[:bound]).max() <= TOLERANCE * scale
                    assert np.abs(wanted[bound:]).max(initial=0) <= TOLERANCE * scale
                    checked += 1
    assert checked == len(log)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    widths=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    classes=st.integers(2, 6),
    activations=st.lists(st.sampled_from(ACTIVATIONS), min_size=4, max_size=4),
    n=st.integers(1, 14),
    batch_size=st.integers(1, 9),
    n_groups=st.integers(1, 3),
    weighted=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_every_record_equals_the_oracle(
    widths, classes, activations, n, batch_size, n_groups, weighted, seed
):
    widths = [*widths, classes]
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, widths[0])).astype("f")
    y = rng.integers(0, widths[-1], n)
    mask = rng.random((n, n_groups)) < 0.5  # overlapping, sometimes absent
    weight = rng.random(n).astype("f") if weighted else None
    model = ks.SpectralModel(*mlp(widths, activations))
    log = recorded(model, x, y, mask, batch_size, sample_weight=weight)
    assert_log_equals_oracle(log, model, activations, x, y, mask, batch_size, weight)


@pytest.mark.parametrize(
    "spectra",
    [
        ks.Spectra(method="svd"),
        ks.Spectra(gradients="per_example"),
        ks.Spectra(method="svd", gradients="per_example"),
    ],
    ids=["svd", "per_example", "svd per_example"],
)
def test_every_method_equals_the_oracle(spectra):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((11, 6)).astype("f"), rng.integers(0, 3, 11)
    mask = rng.random((11, 2)) < 0.5
    model = ks.SpectralModel(*mlp([6, 7, 5, 3], ["relu", "tanh"]))
    log = recorded(model, x, y, mask, 4, spectra)
    assert_log_equals_oracle(log, model, ["relu", "tanh"], x, y, mask, 4)


def test_groups_that_partition_the_batch_sum_to_the_gradient():
    # Frobenius norm of the whole from per-example gradients of the parts: sum of G_g is G.
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((9, 6)).astype("f"), rng.integers(0, 3, 9)
    labels = rng.choice(["a", "b", "c"], 9)
    model = ks.SpectralModel(*mlp([6, 4, 3], ["relu"]))
    log = recorded(model, x, y, labels, 9)
    kernels = [layer.kernel.value for layer in model.layers if hasattr(layer, "kernel")]
    for name, per_example in zip(
        ["d0", "d1"], example_gradients(model, x, y, kernels), strict=True
    ):
        parts = {g: per_example[labels == g].sum(axis=0) for g in "abc"}
        for group, part in parts.items():
            norm = np.linalg.norm(log.singular_values(name, "gradient", group))
            assert norm == pytest.approx(np.linalg.norm(part), rel=1e-5)
        norm = np.linalg.norm(log.singular_values(name, "gradient", "all"))
        assert norm == pytest.approx(np.linalg.norm(sum(parts.values())), rel=1e-5)


def linear_net(widths):
    inputs = keras.Input((widths[0],))
    x = inputs
    for j, width in enumerate(widths[1:]):
        last = j == len(widths) - 2
        x = keras.layers.Dense(width, activation="softmax" if last else None, name=f"d{j}")(x)
    return ks.SpectralModel(inputs, x)


@pytest.mark.parametrize(
    ("widths", "n", "input_rank", "ranks"),
    [
        ([40, 32, 32, 10], 64, 40, [9, 9, 9]),
        ([40, 32, 4, 32, 10], 64, 40, [4, 4, 4, 4]),
        ([40, 32, 32, 10], 64, 3, [3, 3, 3]),
        ([40, 32, 32, 10], 5, 40, [5, 5, 5]),
        ([40, 32, 32, 2], 64, 40, [1, 1, 1]),
    ],
    ids=["full", "bottleneck", "inputs of rank 3", "five examples", "two logits"],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_gradient_ranks_of_linear_networks_are_as_the_theory_says(
    widths, n, input_rank, ranks, seed
):
    keras.utils.set_random_seed(seed)
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, input_rank)) @ rng.standard_normal((input_rank, widths[0]))
    y = np.arange(n) % widths[-1]
    log = recorded(linear_net(widths), x.astype("f"), y, None, n)
    table = log.select(quantity="gradient").summary("numerical_rank")
    assert table["numerical_rank"].tolist() == ranks


def test_last_gradient_of_a_leaky_relu_net_with_two_logits_has_rank_one_for_every_group():
    rng = np.random.default_rng(0)
    inputs = keras.Input((40,))
    x = keras.layers.Dense(32, activation="leaky_relu", name="d0")(inputs)
    x = keras.layers.Dense(2, activation="softmax", name="last")(x)
    data = rng.standard_normal((64, 40)).astype("f")
    model = ks.SpectralModel(inputs, x)
    log = recorded(model, data, np.arange(64) % 2, rng.choice(["a", "b"], 64), 64)
    table = log.select(quantity="gradient").summary("numerical_rank")
    last = table[table["layer"] == "last"]
    assert len(last) == 3
    assert (last["numerical_rank"] == 1).all()
    assert (table.loc[table["layer"] == "d0", "numerical_rank"] > 5).all()
