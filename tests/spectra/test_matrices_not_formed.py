"""Patches, tokens and parts side by side, against the matrices they stand for."""

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from keras_spectral.spectra.patches import Patches
from keras_spectral.spectra.rows import group_rows
from keras_spectral.spectra.side_by_side import SideBySide
from keras_spectral.spectra.tokens import Tokens
from keras_spectral.spectra.unfolding import Unfolding
from keras_spectral.spectra.windows import Windows

from keras_spectral.spectra import compiled, patches, unfolding


def members_of(mask):
    return [np.ones(len(mask), bool), *mask.T]


def stacked(find, mask):
    """Return what `find` gives for the whole batch, and then for every group."""
    return np.concatenate([find(None), find(group_rows(tf.constant(mask)))])


def unfolded(x, kernel, strides, dilation, padding, blocks):
    """Return `[n, s, i]` by looking every number up."""
    n, *spatial, c = x.shape
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    if padding == "same":
        sizes = [-(-size // stride) for size, stride in zip(spatial, strides, strict=True)]
        total = [
            max((out - 1) * stride + r - size, 0)
            for out, stride, r, size in zip(sizes, strides, reach, spatial, strict=True)
        ]
        before = [t // 2 for t in total]
    elif padding == "causal":
        before = [r - 1 for r in reach]
        sizes = [(size - 1) // stride + 1 for size, stride in zip(spatial, strides, strict=True)]
    else:
        sizes = [
            (size - r) // stride + 1
            for size, r, stride in zip(spatial, reach, strides, strict=True)
        ]
        before = [0] * len(spatial)
    rows = []
    for position in itertools.product(*map(range, sizes)):
        row = np.zeros((n, blocks, int(np.prod(kernel)), c // blocks))
        for j, offset in enumerate(itertools.product(*map(range, kernel))):
            at = np.multiply(position, strides) + np.multiply(offset, dilation) - before
            if all(0 <= i < size for i, size in zip(at, spatial, strict=True)):
                row[:, :, j] = x[(slice(None), *at)].reshape(n, blocks, -1)
        rows.append(row.reshape(n, -1))
    return np.stack(rows, axis=1)


PRECISE = 1e-12
"""Of the trace of the Gram matrix, or of the product of both norms."""


@settings(max_examples=40, deadline=None)
@given(data=st.data(), axes=st.integers(1, 3), calls=st.integers(1, 2), seed=st.integers(0, 99))
def test_patches_equal_the_unfolded_input_in_chunks_of_any_size(data, axes, calls, seed):
    draw = [data.draw(st.integers(1, most)) for _ in range(axes) for most in (4 - axes // 2, 2, 3)]
    kernel, strides, dilation = (tuple(draw[k::3]) for k in range(3))
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    paddings = ["valid", "same"] + ["causal"] * (axes == 1)
    padding, blocks = data.draw(st.sampled_from(paddings)), data.draw(st.integers(1, 2))
    rng = np.random.default_rng(seed)
    inputs = []
    for _ in range(calls):
        # Many places along the first axis, which stretches are cut of, few along others.
        first = reach[0] + data.draw(st.integers(0, 20 // axes**2))
        spatial = [first, *(data.draw(st.integers(least, least + 2)) for least in reach[1:])]
        inputs.append(rng.standard_normal((4, *spatial, 2 * blocks)).astype("f"))
    mask = rng.random((4, 3)) < 0.5
    wanted = np.concatenate(
        [unfolded(x, kernel, strides, dilation, padding, blocks) for x in inputs], axis=1
    )
    found = Patches(tuple(map(tf.constant, inputs)), kernel, strides, dilation, padding, blocks)
    assert (found.positions, found.width) == wanted.shape[1:]
    np.testing.assert_array_equal(found.rows(), wanted)
    delta = rng.standard_normal((4, wanted.shape[1], 2 * blocks))
    in_numpy = found.unfolding
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(patches, "CHUNK_BYTES", data.draw(st.sampled_from([1, 900, 3000, 10**6])))
        patch.setattr(unfolding, "CHUNK_NUMBERS", data.draw(st.sampled_from([1, 100, 10**5])))
        products = stacked(lambda rows: found.products(tf.constant(delta), rows), mask)
        grams = stacked(found.grams, mask)
        for group, own in enumerate(members_of(mask)):
            products_now, grams_now = [products[group]], [grams[group]]
            if own.any():
                products_now.append(in_numpy.product(inputs, delta, own))
                grams_now.append(in_numpy.gram(inputs, own))
                patch.setattr(unfolding, "LAGGED", 0.0)
                grams_now.append(in_numpy.gram(inputs, own))
                patch.setattr(unfolding, "LAGGED", np.inf)
                grams_now.append(in_numpy.gram(inputs, own))
                patch.setattr(unfolding, "LAGGED", 0.0)
                with pytest.MonkeyPatch.context() as without:
                    without.setattr(compiled, "LIBRARY", Path("nowhere.so"))
                    products_now.append(in_numpy.product(inputs, delta, own))
                    grams_now.append(in_numpy.gram(inputs, own))
            flat = wanted[own].reshape(-1, wanted.shape[-1])
            atol = PRECISE * np.sum(flat**2)
            for gram in grams_now:
                np.testing.assert_allclose(gram, flat.T @ flat, rtol=0, atol=atol)
            parts, deltas = (np.split(part[own], blocks, axis=-1) for part in (wanted, delta))
            pairs = zip(parts, deltas, strict=True)
            product = np.concatenate([np.einsum("nsi,nso->io", a, d) for a, d in pairs], -1)
            atol = PRECISE * np.linalg.norm(flat) * np.linalg.norm(delta[own])
            for product_now in products_now:
                np.testing.assert_allclose(product_now, product, rtol=0, atol=atol)


@pytest.mark.parametrize("dilation", [1, 3])
def test_large_ends_leave_the_digits_of_a_small_interior(dilation, monkeypatch):
    """What is subtracted again would be lost: the ends weigh 1e20 times the interior."""
    x = np.random.default_rng(0).standard_normal((2, 40, 3))
    x[:, :dilation] *= 1e10
    x[:, -dilation:] *= 1e10
    wanted = unfolded(x, (5,), (1,), (dilation,), "valid", 1).reshape(-1, 15)
    monkeypatch.setattr(unfolding, "LAGGED", 0.0)
    windows = Windows((5,), (1,), (dilation,), "valid")
    gram = Unfolding(windows, 1).gram([x], np.ones(2, bool))
    np.testing.assert_allclose(np.diag(gram), np.sum(wanted**2, axis=0), rtol=1e-13)
    assert np.diag(gram)[3:12].max() < 1e-16 * np.trace(gram)  # seen by neither end


def test_gram_of_fewer_rows_than_features_has_no_more_eigenvalues_than_rows():
    x = np.random.default_rng(0).standard_normal((1, 16, 5)).astype("f")
    windows = Windows((9,), (1,), (1,), "valid")
    values = np.linalg.eigvalsh(Unfolding(windows, 1).gram([x], np.ones(1, bool)))
    assert len(values) == 45
    np.testing.assert_allclose(values[:-8], 0, atol=1e-14 * values.max())


def test_patches_of_sizes_that_a_graph_does_not_know():
    x = np.random.default_rng(0).standard_normal((3, 6, 5, 2)).astype("f")

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 2])])
    def found(x):
        patches = Patches((x,), (3, 2), (2, 1), (1, 1), "same", 1)
        return patches.rows(), patches.grams(None), patches.positions

    rows, gram, positions = found(x)
    wanted = unfolded(x, (3, 2), (2, 1), (1, 1), "same", 1)
    np.testing.assert_array_equal(rows, wanted)
    assert positions == wanted.shape[1]
    np.testing.assert_allclose(gram[0], np.einsum("nsi,nsj->ij", wanted, wanted), atol=1e-9)


PEAK = """
import resource
import tensorflow as tf
from keras_spectral.spectra.patches import Patches

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

@tf.function(reduce_retracing=True)
def gram(x):
    return Patches((x,), (3, 3, 3), (1, 1, 1), (1, 1, 1), "valid", 1).grams(None)

gram(tf.ones([4, 6, 6, 6, 8]))
x = tf.ones([4, 40, 40, 40, 8])
before = peak()
gram(x)
print(peak() - before)
"""

ALL_PATCHES = 4 * 38**3 * 27 * 8 * 8
BOUND = 80e6


def test_patches_are_never_held_all_at_once():
    command = [sys.executable, "-c", PEAK]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(found.stdout) < BOUND < ALL_PATCHES / 4


@settings(max_examples=25, deadline=None)
@given(vocabulary=st.integers(1, 9), s=st.integers(1, 5), o=st.integers(1, 6))
def test_tokens_equal_one_hot_rows(vocabulary, s, o):
    rng = np.random.default_rng(vocabulary + 10 * s)
    ids, mask = rng.integers(0, vocabulary, (4, s)), rng.random((4, 3)) < 0.5
    delta = rng.standard_normal((4, s, o))
    tokens = Tokens(tf.constant(ids, tf.int32), vocabulary)
    spectra = stacked(tokens.spectra, mask)
    products = stacked(lambda rows: tokens.products(tf.constant(delta), rows), mask)
    for group, own in enumerate(members_of(mask)):
        rows = np.eye(vocabulary)[ids[own]].reshape(-1, vocabulary)
        sigma = np.zeros(spectra.shape[1] - 1)
        values = np.linalg.svd(rows, compute_uv=False)
        sigma[: len(values)] = values
        np.testing.assert_allclose(spectra[group], [np.linalg.norm(rows), *sigma], atol=1e-7)
        gradient = rows.T @ delta[own].reshape(-1, o)
        np.testing.assert_allclose(
            np.linalg.norm(products[group]), np.linalg.norm(gradient), atol=1e-9
        )
        np.testing.assert_allclose(
            products[group].T @ products[group], gradient.T @ gradient, atol=1e-9
        )


def test_parts_side_by_side_meet_their_own_columns():
    rng = np.random.default_rng(0)
    a, delta = rng.standard_normal((4, 3, 4)), rng.standard_normal((4, 3, 5))
    mask = rng.random((4, 2)) < 0.5
    parts = SideBySide(tf.constant(a), (3, 2))
    products = stacked(lambda rows: parts.products(tf.constant(delta), rows), mask)
    for group, own in enumerate(members_of(mask)):
        wanted = [
            np.einsum("nsi,nso->io", a[own, :, :2], delta[own, :, :3]),
            np.einsum("nsi,nso->io", a[own, :, 2:], delta[own, :, 3:]),
        ]
        np.testing.assert_allclose(products[group], np.concatenate(wanted, -1), atol=1e-12)
