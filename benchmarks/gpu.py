"""Whether spectra are right on a GPU, where everything runs, and the overhead there.

    python -m benchmarks.gpu [--seconds 10] [--write docs/benchmarks-gpu.md]

Ends with status 1 if an error is larger than it may be, and with 2 where TensorFlow sees no GPU.
`--cpu` runs the same without one, to try the script itself.
"""

import argparse
import collections
import os
import sys
import unittest.mock
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.eager import context  # no public name gives the placed graphs

import keras_spectral as ks
from benchmarks.overhead import HEAD, measured, rows
from benchmarks.page import machine, table
from benchmarks.training import trainer
from benchmarks.workloads import WORKLOADS
from keras_spectral.errors import LayerRuleError
from keras_spectral.solver import Solver

N = 8
"""Examples of which gradients are compared."""

TOLERANCE = 1e-6
"""Largest error of a singular value as a part of the largest one, of a layer whose factors are
known exactly."""

NETWORK_TOLERANCE = 1e-5
"""The same of whole networks, which compute in float32 in another order than on a CPU."""

MATRICES = {
    "64 examples, 512 to 256": (64, (512,), 256),
    "512 examples, 64 to 32": (512, (64,), 32),
    "16 examples of 100 rows, 128 to 64": (16, (100, 128), 64),
    "256 examples, 1024 to 2": (256, (1024,), 2),
}
"""Examples, shape of each, outputs of a linear layer."""

KINDS = ("full rank", "rank 5", "condition 1e6", "zero")

L = keras.layers

LAYERS = {
    "Dense": (lambda: L.Dense(5, activation="tanh"), (7, 4)),
    "Conv1D": (lambda: L.Conv1D(5, 3, padding="same"), (9, 4)),
    "Conv2D, strides, groups": (lambda: L.Conv2D(4, 3, strides=2, groups=2), (9, 8, 4)),
    "Conv3D": (lambda: L.Conv3D(3, 2), (5, 4, 6, 2)),
    "Conv2DTranspose": (lambda: L.Conv2DTranspose(3, 2, strides=2), (4, 5, 3)),
    "DepthwiseConv2D": (lambda: L.DepthwiseConv2D(3, depth_multiplier=2), (6, 5, 3)),
    "SeparableConv1D": (lambda: L.SeparableConv1D(4, 3), (8, 3)),
    "SimpleRNN": (lambda: L.SimpleRNN(4), (6, 3)),
    "LSTM": (lambda: L.LSTM(4), (6, 3)),
    "LSTM, sequences": (lambda: L.LSTM(4, return_sequences=True), (6, 3)),
    "LSTM, unfused": (lambda: L.LSTM(4, use_cudnn=False), (6, 3)),
    "GRU, sequences, backwards": (
        lambda: L.GRU(4, return_sequences=True, go_backwards=True),
        (6, 3),
    ),
    "Bidirectional LSTM": (lambda: L.Bidirectional(L.LSTM(4, return_sequences=True)), (6, 3)),
    "Embedding": (lambda: L.Embedding(5, 3), (6,)),
    "LayerNormalization": (lambda: L.LayerNormalization(), (6, 3)),
    "BatchNormalization": (lambda: L.BatchNormalization(), (6, 5, 3)),
    "ConvLSTM1D": (lambda: L.ConvLSTM1D(3, 2), (4, 6, 2)),
}
"""A layer and the shape of one input."""

SVD_STEPS = 8
"""Steps of a timed training by `tf.linalg.svd`: each takes long."""

OPERATIONS = ("Svd", "MatMul", "Conv", "RNN", "Gather")
"""Parts of the names of operations whose devices are told."""


def errors_of_matrices(method):
    """Yield table rows: spectra of linear layers against `numpy.linalg.svd` in float64."""
    for name, (n, shape, outputs) in MATRICES.items():
        for kind in KINDS:
            x = _matrix(kind, (n, *shape))
            layer = L.Dense(outputs)
            inputs = keras.Input(shape)
            model = ks.SpectralModel(inputs, layer(inputs))
            model.compile(
                keras.optimizers.SGD(0.0),
                "mse",
                spectra=ks.Spectra(method=method),
                jit_compile=False,
            )
            groups = np.resize(["a", "b", "b"], n)
            kernel, bias = (np.asarray(weight, float) for weight in layer.get_weights())
            y = np.random.default_rng(1).standard_normal((n, *shape[:-1], outputs), dtype="float32")
            model.fit(x, y, batch_size=n, groups=groups, shuffle=False, verbose=0)
            delta = 2 * (x.astype(float) @ kernel + bias - y) / y.size
            worst = 0.0
            for group in ("all", "a", "b"):
                own = slice(None) if group == "all" else groups == group
                a, d = x[own].reshape(-1, shape[-1]), delta[own].reshape(-1, outputs)
                matrices = {"activation": a, "adjoint": d, "gradient": a.astype(float).T @ d}
                for quantity, matrix in matrices.items():
                    found = model.spectral_log.select(group=group, quantity=quantity)
                    worst = max(worst, _error(found.sigma[0], matrix))
            yield [name, kind, method, f"{worst:.1e}", f"{TOLERANCE:.0e}"]


def _matrix(kind, shape):
    rng = np.random.default_rng(0)
    flat = rng.standard_normal((int(np.prod(shape[:-1])), shape[-1]))
    if kind == "zero":
        return np.zeros(shape, "float32")
    if kind != "full rank":
        u, sigma, v = np.linalg.svd(flat, full_matrices=False)
        sigma = np.logspace(0, -6, len(sigma)) if kind == "condition 1e6" else sigma
        sigma = np.where(np.arange(len(sigma)) < 5, sigma, 0) if kind == "rank 5" else sigma
        flat = u * sigma @ v
    return flat.reshape(shape).astype("float32")


def _error(found, matrix):
    """Return the largest error as a part of the largest singular value, or of one if that is 0."""
    want = np.linalg.svd(np.asarray(matrix, float), compute_uv=False)
    found = found[np.isfinite(found)]  # as many as there can be, the others are zero
    found = np.pad(found, (0, len(want) - len(found)))
    return np.abs(found - want).max() / (want[0] or 1.0)


def errors_of_networks():
    """Yield table rows: gradients of whole networks against a tape of each example in float64."""
    for name, workload in WORKLOADS.items():
        network = keras.Model(*workload.tensors())
        network.compile(loss="sparse_categorical_crossentropy")
        x, y, _ = workload.data(1)
        x, y, groups = x[:N], y[:N], np.resize(["a", "b", "b"], N)
        spectra = ks.Spectra(quantities="gradient")
        log = ks.introspect(network, x, y, groups=groups, batch_size=N, spectra=spectra)
        each = _example_gradients(workload, network, x, y)
        worst, n_spectra = 0.0, 0
        for layer, weight, group in log.rows[["layer", "weight", "group"]].drop_duplicates().values:
            gradients = each.get(f"{layer}/{weight}")
            if gradients is None:
                raise KeyError(f"{layer}/{weight} is not among {list(each)}")
            own = slice(None) if group == "all" else groups == group
            found = log.select(layer=layer, weight=weight, group=group).sigma[0]
            gradient = gradients[own].sum(axis=0)
            worst = max(worst, _error(found, _as_matrix(layer, gradient)))
            n_spectra += 1
        yield [name, n_spectra, f"{worst:.1e}", f"{NETWORK_TOLERANCE:.0e}"]


def errors_beyond_bounds():
    """Yield table rows: by how much values in a subspace are wrong beyond what the log says."""
    for name, workload in WORKLOADS.items():
        network = keras.Model(*workload.tensors())
        network.compile(loss="sparse_categorical_crossentropy")
        x, y, groups = workload.data(1)
        found, exact = (
            ks.introspect(
                network,
                x,
                y,
                groups=groups,
                batch_size=workload.batch,
                spectra=ks.Spectra(top_k=16, method=method),
            )
            for method in ("subspace", "gram")
        )
        if "residual_norm" in found.rows:
            beyond = abs(found.sigma - exact.sigma) - found.sigma_error
            worst = max(0.0, np.nanmax(beyond / exact.sigma[:, :1]))
            followed = (found.rows["residual_norm"] > 0).sum()
            yield [name, followed, f"{worst:.1e}", f"{TOLERANCE:.0e}"]


def errors_of_layers():
    """Yield table rows: gradients of layers in training against a tape, by `check_layer`."""
    for name, (make, shape) in LAYERS.items():
        keras.utils.set_random_seed(0)
        x = np.random.default_rng(0).standard_normal((N, *shape), dtype="float32")
        x = abs(x).astype(int) if "Embedding" in name else x
        try:
            found = ks.check_layer(make(), x, training=True)
            rules, worst = ", ".join(sorted(set(found["rule"]))), found["error"].max()
        except LayerRuleError as error:
            rules, worst = str(error), float("inf")
        yield [name, rules, f"{worst:.1e}", f"{NETWORK_TOLERANCE:.0e}"]


def _as_matrix(layer, gradient):
    """Return the gradient of a kernel as a matrix: what is summed over, and outputs."""
    if gradient.ndim == 1:
        return gradient[None]
    is_projection = "attention_1" in layer or "attention_2" in layer
    inputs = 1 if is_projection and "attention_output" not in layer else gradient.ndim - 1
    return gradient.reshape(int(np.prod(gradient.shape[:inputs])), -1)


def _example_gradients(workload, network, x, y):
    """Return `{path of a weight: [n, …]}`, in float64 on the CPU.

    Volumes, which TensorFlow pools in float32 only, in float32 where the network is: which of two
    voxels that are nearly equal is the largest depends on the order of additions before.
    """
    of_volumes = len(workload.shape) == 4
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32" if of_volumes else "float64")
    try:
        with tf.device(None if of_volumes else "CPU:0"):
            twin = workload.network()
            twin.set_weights(network.get_weights())
            gradients = tf.function(lambda x, label: _gradients(twin, x, label))
            found = []
            for k in range(len(y)):
                of_one = gradients(tf.constant(x[k : k + 1]), tf.constant(y[k]))
                found.append([np.asarray(g, float) / len(y) for g in of_one])
    finally:
        keras.config.set_dtype_policy(before)
    paths = [weight.path for weight in network.trainable_weights]
    stacked = [np.stack(each) for each in zip(*found, strict=True)]
    return dict(zip(paths, stacked, strict=True))


def _gradients(model, x, label):
    with tf.GradientTape() as tape:
        loss = -tf.math.log(model(x, training=False)[0, label])
    return tape.gradient(loss, model.trainable_weights)


def placement(name, method):
    """Yield table rows: how often an operation of a recorded step runs on which device.

    And, as an operation of its own, where activations and adjoints lie that the step returns.
    """
    workload = WORKLOADS[name]
    x, y, groups = workload.data(1)
    model = ks.SpectralModel(*workload.tensors())
    spectra = ks.Spectra(method=method)
    model.compile("adam", "sparse_categorical_crossentropy", spectra=spectra, jit_compile=False)
    counts, submit = collections.Counter(), Solver.submit

    def submitting(solver, step, epoch, factors, *rest):
        for part in tf.nest.flatten(list(factors.values()), expand_composites=True):
            if part is not None:
                counts["(returned)", part.dtype.name, _device(part.device)] += 1
        submit(solver, step, epoch, factors, *rest)

    context.context().enable_run_metadata()
    with unittest.mock.patch.object(Solver, "submit", submitting):
        model.fit(x, y, batch_size=workload.batch, groups=groups, verbose=0)
    metadata = context.context().export_run_metadata()
    context.context().disable_run_metadata()
    for graph in metadata.partition_graphs:
        for node in graph.node:
            if any(part in node.op for part in OPERATIONS) and "Grad" not in node.op:
                types = [node.attr[key].type for key in ("T", "Tparams") if key in node.attr]
                kind = tf.dtypes.as_dtype(types[0]).name if types and types[0] else ""
                counts[node.op, kind, _device(node.device)] += 1
    for key, number in sorted(counts.items()):
        yield [f"{name}, {method}", *key, number]


def _device(name):
    return name.rsplit(":", 2)[-2]


def svd_rows():
    """Yield table rows: the time of a recorded step by `tf.linalg.svd` where the data are."""
    for name in ("MLP 378-128x3-2", "MLP 1024x4"):
        workload = WORKLOADS[name]
        for label, spectra in (("gram", 1), ("svd", ks.Spectra(method="svd"))):
            train = trainer(workload, spectra, SVD_STEPS, jit_compile=False)
            train()
            yield [name, label, f"{min(train() for _ in range(3)):.2f}"]


PAGE = """\
# On a GPU

Made by `python -m benchmarks.gpu --seconds {seconds}{flag} --write {write}`.
{machine}. GPU: {gpu}. {note}

## Errors

Largest error of a singular value over all quantities and groups, as a part of the largest one,
against `numpy.linalg.svd` in float64. TensorFloat-32 off.

{matrices}

Gradients of layers in training mode against a plain tape, for all examples and for some, by
`check_layer`, as a part of the Frobenius norm:

{layers}

Gradients of whole networks against the sum of the gradients of each example, each from a tape of
its own, by the same network in float64 on the CPU:

{networks}

With `method="subspace"`, by how much values differ from those by Gram matrices beyond their bound,
as a part of the largest one:

{subspaces}

## Where it runs

Operations of the graphs of a recorded step, as TensorFlow placed them, and the activations and
adjoints that it returns. Their Gram matrices are made where they lie, by single operations that are
in no graph; eigenvalues are found on the CPU.

{placement}

## Overhead

As [on a CPU](benchmarks.md): ratios to plain training, medians over repeats. TensorFloat-32 on, as
TensorFlow has it; {xla}.

{ratios}

Milliseconds of a step with spectra at every step, without XLA, by Gram matrices whose eigenvalues
are found on the CPU, and by `tf.linalg.svd` on the GPU:

{svd}
"""


def main(arguments=None):
    """Check, measure, print, and write the page if asked.

    Args:
        arguments: List of the command line's arguments, those of the process if not given.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=10, help="of each workload, or more")
    parser.add_argument("--only", default="", help="measure the workloads whose names hold this")
    parser.add_argument("--no-xla", action="store_true", help="train without XLA")
    parser.add_argument("--cpu", action="store_true", help="run without a GPU")
    parser.add_argument("--note", default="", help="what else the page should say of the machine")
    parser.add_argument("--write", type=Path, help="Markdown page to write")
    options = parser.parse_args(arguments)
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus and not options.cpu:
        print("TensorFlow sees no GPU. Try `pip install tensorflow[and-cuda]`, or --cpu.")
        return 2
    details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    gpu = ", ".join(each.get("device_name", "unknown") for each in details) or "none"
    print(f"{machine()}. GPU: {gpu}.", flush=True)

    tf.config.experimental.enable_tensor_float_32_execution(False)
    heads = {
        "matrices": ["matrix", "kind", "method", "largest error", "at most"],
        "layers": ["layer", "rules", "largest error", "at most"],
        "networks": ["network", "spectra", "largest error", "at most"],
        "subspaces": ["network", "spectra in a subspace", "largest error beyond", "at most"],
        "placement": ["network", "operation", "type", "device", "number"],
        "ratios": HEAD[:-1],
        "svd": ["workload", "method", "ms per step"],
    }
    jit_compile = not options.no_xla and "auto"
    parts = {
        "matrices": lambda: (row for m in ("gram", "svd") for row in errors_of_matrices(m)),
        "layers": errors_of_layers,
        "networks": errors_of_networks,
        "subspaces": errors_beyond_bounds,
        "placement": lambda: (
            row
            for name, method in (("MLP 1024x4", "gram"), ("MLP 1024x4", "svd"), ("3D CNN", "gram"))
            for row in placement(name, method)
        ),
        "svd": svd_rows,
        "ratios": lambda: (
            row[:-1]
            for name in WORKLOADS
            if options.only in name
            for row in rows(name, measured(name, options.seconds, jit_compile=jit_compile))
        ),
    }
    found = {part: [] for part in parts}
    try:
        for part, make in parts.items():
            if part == "svd":
                tf.config.experimental.enable_tensor_float_32_execution(True)
            print(f"\n{' | '.join(heads[part])}", flush=True)
            for row in make():
                found[part].append(row)
                print(" | ".join(map(str, row)), flush=True)
    except KeyboardInterrupt:
        print("\nInterrupted: what is there is kept.")
    if options.write:
        flag = " --no-xla" if options.no_xla else ""
        xla = "without XLA" if options.no_xla else "XLA as Keras chooses it"
        tables = {part: table(heads[part], some) for part, some in found.items()}
        page = PAGE.format(
            machine=machine(), gpu=gpu, xla=xla, flag=flag, **vars(options), **tables
        )
        options.write.write_text(page, encoding="utf-8")
    checked = [found[part] for part in ("matrices", "layers", "networks", "subspaces")]
    bad = [row for part in checked for row in part if float(row[-2]) > float(row[-1])]
    print(f"\n{len(bad)} errors are too large." if bad else "\nAll errors are small enough.")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
