"""The way of AutoSpec's authors, by its description: hooks, and the spectra of whole matrices.

A forward hook keeps what every layer multiplies by its weight and asks for the gradient of what
comes out. Then the rows of each group are taken, and `torch.linalg.svdvals` of A, Δ and AᵀΔ.
"""

import torch
from torch import nn

from benchmarks.peers.task import GROUPS, QUANTITIES, Loop, Peer
from benchmarks.peers.torch_networks import network, plain, tensors

CONVOLUTIONS = (nn.Conv1d, nn.Conv3d)


class Recorded:
    """What came into a layer and what the loss's gradient is where it came out, call by call."""

    def __init__(self, layer):
        self._layer = layer
        self._calls = []
        layer.register_forward_hook(self._note)

    def forget(self):
        """Begin a new step."""
        self._calls.clear()

    def _note(self, layer, inputs, output):
        call = [inputs[0].detach(), None]
        self._calls.append(call)
        output.register_hook(lambda gradient: call.__setitem__(1, gradient))

    def factors(self):
        """Return A `[n, rows, i]` and Δ `[n, rows, o]`."""
        pairs = [self._rows(*call) for call in self._calls]
        a, delta = (torch.cat(parts, dim=1) for parts in zip(*pairs, strict=True))
        return a, delta

    def _rows(self, inputs, adjoint):
        n = len(inputs)
        if isinstance(self._layer, CONVOLUTIONS):
            inputs, adjoint = patches(inputs, self._layer.kernel_size), adjoint.movedim(1, -1)
        return inputs.reshape(n, -1, inputs.shape[-1]), adjoint.reshape(n, -1, adjoint.shape[-1])


def patches(x, kernel_size):
    """Return what the kernel sees at each output position, `[n, *positions, i]`.

    Args:
        x: Input of a convolution with odd kernel and "same" padding, `[n, channels, *positions]`.
        kernel_size: Along each axis.
    """
    sides = [side for size in reversed(kernel_size) for side in (size // 2, size // 2)]
    x = nn.functional.pad(x, sides)
    for axis, size in enumerate(kernel_size, start=2):
        x = x.unfold(axis, size, 1)
    return x.movedim(1, len(kernel_size) + 1).flatten(len(kernel_size) + 1)


def hooks_and_svdvals(task):
    """Return the peer."""
    model, optimizer = network(task)
    layers = {
        name: Recorded(layer)
        for name, layer in model.named_modules()
        if isinstance(layer, (nn.Linear, *CONVOLUTIONS))
    }

    def step(x, y, masks):
        x, y, masks = tensors(x, y, masks)
        for layer in layers.values():
            layer.forget()
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        found = {}
        for name, layer in layers.items():
            a, delta = layer.factors()
            for group, mask in zip(GROUPS, masks, strict=True):
                a_g, delta_g = a[mask].flatten(0, 1), delta[mask].flatten(0, 1)
                matrices = a_g, delta_g, a_g.T @ delta_g
                for quantity, matrix in zip(QUANTITIES, matrices, strict=True):
                    found[name, quantity, group] = torch.linalg.svdvals(matrix).numpy()
        optimizer.step()
        return found

    recorded = Loop(step, task)
    return Peer(plain(task), recorded, lambda: recorded.result)
