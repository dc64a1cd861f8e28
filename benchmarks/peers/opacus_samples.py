"""Opacus: a gradient of every example, summed per group, then its singular values."""

import torch
from opacus.grad_sample import GradSampleModule
from torch import nn

from benchmarks.peers.task import GROUPS, Loop, Peer
from benchmarks.peers.torch_networks import network, plain, tensors


def opacus(task):
    """Return the peer."""
    bare, optimizer = network(task)
    model = GradSampleModule(bare)
    kernels = {
        name.removesuffix(".weight"): parameter
        for name, parameter in bare.named_parameters()
        if name.endswith("weight") and parameter.ndim > 1
    }

    def step(x, y, masks):
        x, y, masks = tensors(x, y, masks)
        model.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(model(x), y).backward()
        found = {}
        for name, kernel in kernels.items():
            # Opacus takes the mean over the batch back out of each example's gradient.
            each = kernel.grad_sample.flatten(2) / len(y)
            gradients = torch.einsum("gn,noi->goi", masks.to(each.dtype), each)
            for group, values in zip(GROUPS, torch.linalg.svdvals(gradients), strict=True):
                found[name, "gradient", group] = values.numpy()
        optimizer.step()
        return found

    recorded = Loop(step, task)
    return Peer(plain(task), recorded, lambda: recorded.result)
