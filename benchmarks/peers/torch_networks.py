"""The networks of `benchmarks/workloads.py` in PyTorch: same layers, widths and windows.

They end in logits, and know no padding. What learns and multiplies is a layer that hooks can watch:
attention is made of four `Linear`, the LSTM of two that a loop calls, unless `fused`.
"""

import functools
from collections import OrderedDict
from itertools import pairwise

import torch
from torch import nn

from benchmarks.peers import oracle
from benchmarks.peers.task import CHECK, Loop

CLASSES = 2


class Windows(nn.Module):
    """Cuts `[n, t, r]` into `[n, w, window r]`, without what is left at the end."""

    def __init__(self, window):
        super().__init__()
        self._window = window

    def forward(self, x):
        """Return windows."""
        n, t, regions = x.shape
        whole = t // self._window
        return x[:, : whole * self._window].reshape(n, whole, self._window * regions)


class Mean(nn.Module):
    """A mean over the given axes."""

    def __init__(self, *axes):
        super().__init__()
        self._axes = axes

    def forward(self, x):
        """Return the mean."""
        return x.mean(self._axes)


class ChannelsFirst(nn.Module):
    """Moves the last axis to the second place, as convolutions of PyTorch want it."""

    def forward(self, x):
        """Return the same numbers."""
        return x.movedim(-1, 1)


class LSTM(nn.Module):
    """One direction of an LSTM, its gates side by side.

    `nn.LSTM` shows hooks no gates.
    """

    def __init__(self, features, units):
        super().__init__()
        self.kernel = nn.Linear(features, 4 * units)
        self.recurrent = nn.Linear(units, 4 * units, bias=False)
        self._units = units

    def forward(self, x):
        """Return states `[n, t, units]`, and the last ones, as `nn.LSTM` does."""
        from_input = self.kernel(x)
        state = carry = x.new_zeros(len(x), self._units)
        states = []
        for t in range(x.shape[1]):
            gates = from_input[:, t] + self.recurrent(state)
            keep_in, forget, new, out = gates.chunk(4, dim=1)
            carry = forget.sigmoid() * carry + keep_in.sigmoid() * new.tanh()
            state = out.sigmoid() * carry.tanh()
            states.append(state)
        return torch.stack(states, dim=1), (state, carry)


class Bidirectional(nn.Module):
    """An LSTM in each direction, states side by side."""

    def __init__(self, features, units, fused):
        super().__init__()
        self.onward, self.back = (
            nn.LSTM(features, units, batch_first=True) if fused else LSTM(features, units)
            for _ in range(2)
        )

    def forward(self, x):
        """Return states `[n, t, 2 units]`."""
        onward, _ = self.onward(x)
        back, _ = self.back(x.flip(1))
        return torch.cat([onward, back.flip(1)], dim=2)


class Positions(nn.Module):
    """A learned bias for each position."""

    def __init__(self, tokens, width):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(tokens, width))

    def forward(self, x):
        """Return tokens that know their place."""
        return x + self.bias


class Attention(nn.Module):
    """Self-attention of several heads."""

    def __init__(self, width, heads):
        super().__init__()
        self.query, self.key, self.value, self.back = (nn.Linear(width, width) for _ in range(4))
        self._heads = heads

    def forward(self, x):
        """Return what each token saw."""
        n, tokens, width = x.shape
        q, k, v = (
            layer(x).view(n, tokens, self._heads, -1).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        seen = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.back(seen.transpose(1, 2).reshape(n, tokens, width))


class Residual(nn.Module):
    """Adds what layers make of the normalised input to the input."""

    def __init__(self, width, *layers):
        super().__init__()
        self.layers = nn.Sequential(nn.LayerNorm(width, eps=1e-3), *layers, nn.Dropout(0.2))

    def forward(self, x):
        """Return the sum."""
        return x + self.layers(x)


def mlp(widths):
    """Return a multilayer perceptron with layers named as in Keras."""
    layers = OrderedDict()
    for depth, (before, width) in enumerate(pairwise(widths[:-1]), start=1):
        layers[f"hidden_{depth}"] = nn.Linear(before, width)
        layers[f"relu_{depth}"] = nn.ReLU()
    layers["output"] = nn.Linear(widths[-2], widths[-1])
    return nn.Sequential(layers)


def bilstm(t, regions, window=10, encoder=64, units=32, fused=False):
    """Return a bidirectional LSTM over windows."""
    del t
    return nn.Sequential(
        Windows(window),
        nn.Linear(window * regions, encoder),
        nn.ReLU(),
        Bidirectional(encoder, units, fused),
        Mean(1),
        nn.Dropout(0.5),
        nn.Linear(2 * units, CLASSES),
    )


def transformer(t, regions, window=8, width=128, heads=4, feed_forward=512, blocks=2):
    """Return a Transformer encoder over windows."""
    layers = [
        Windows(window),
        nn.Linear(window * regions, width, bias=False),
        Positions(t // window, width),
    ]
    for _ in range(blocks):
        layers += [
            Residual(width, Attention(width, heads)),
            Residual(
                width, nn.Linear(width, feed_forward), nn.GELU(), nn.Linear(feed_forward, width)
            ),
        ]
    return nn.Sequential(*layers, nn.LayerNorm(width, eps=1e-3), Mean(1), nn.Linear(width, CLASSES))


def cnn1d(t, regions, filters=(32, 64), kernel_size=7, pool=4):
    """Return a convolutional network in time."""
    del t
    layers, before = [ChannelsFirst()], regions
    for channels in filters:
        layers += [nn.Conv1d(before, channels, kernel_size, padding=kernel_size // 2), nn.ReLU()]
        layers += [nn.MaxPool1d(pool)]
        before = channels
    return nn.Sequential(*layers, Mean(2), nn.Dropout(0.5), nn.Linear(before, CLASSES))


def cnn3d(*shape, filters=(4, 8, 16, 24, 32)):
    """Return a convolutional network for volumes."""
    layers, before = [ChannelsFirst()], shape[-1]
    for channels in filters:
        layers += [nn.Conv3d(before, channels, 3, padding=1, bias=False)]
        layers += [nn.BatchNorm3d(channels, eps=1e-3), nn.ReLU(), nn.MaxPool3d(2)]
        before = channels
    return nn.Sequential(*layers, Mean(2, 3, 4), nn.Dropout(0.5), nn.Linear(before, CLASSES))


NETWORKS = {
    CHECK: lambda _: mlp(oracle.WIDTHS),
    "MLP 1378-128x3-2": lambda inputs: mlp((inputs, 128, 128, 128, CLASSES)),
    "MLP 1024x4": lambda inputs: mlp((inputs, 1024, 1024, 1024, 1024, CLASSES)),
    "BiLSTM": bilstm,
    "Transformer": transformer,
    "1D CNN": cnn1d,
    "3D CNN": cnn3d,
}

FUSED = NETWORKS | {"BiLSTM": functools.partial(bilstm, fused=True)}


def network(task, fused=False):
    """Return the network of a task and Adam for it.

    Args:
        task: `Task`.
        fused: Whether an LSTM is PyTorch's own, which shows hooks no gates.
    """
    torch.manual_seed(0)
    made = (FUSED if fused else NETWORKS)[task.network](*task.x.shape[1:])
    if task.network == CHECK:
        with torch.no_grad():
            for name, (kernel, bias) in zip(oracle.LAYERS, oracle.parameters(), strict=True):
                layer = made.get_submodule(name)
                layer.weight.copy_(torch.from_numpy(kernel.T))
                layer.bias.copy_(torch.from_numpy(bias))
    return made, torch.optim.Adam(made.parameters(), lr=1e-3)


def tensors(x, y, masks):
    """Return a batch as tensors that share its memory."""
    return torch.from_numpy(x), torch.from_numpy(y), torch.from_numpy(masks)


def plain(task):
    """Return a `Loop` that records nothing."""
    model, optimizer = network(task, fused=True)

    def step(x, y, masks):
        x, y, _ = tensors(x, y, masks)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()

    return Loop(step, task)
