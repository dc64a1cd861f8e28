"""Cockpit's economy preset: no spectra and no groups, but what else one may watch at each step.

Norms, histograms and tests of the gradients of single examples, which BackPACK computes.
"""

import numpy as np
import torch
from backpack import extend
from cockpit import Cockpit
from cockpit.utils.configuration import configuration
from torch import nn

from benchmarks.peers.oracle import NORM
from benchmarks.peers.task import Loop, Peer
from benchmarks.peers.torch_networks import network, plain, tensors


def cockpit(task):
    """Return the peer."""
    model, optimizer = network(task, fused=True)
    model = extend(model)
    loss_function = extend(nn.CrossEntropyLoss())
    watch = Cockpit(model.parameters(), quantities=configuration("economy"))
    step_number = 0

    def step(x, y, masks):
        nonlocal step_number
        x, y, _ = tensors(x, y, masks)
        optimizer.zero_grad()
        outputs = model(x)
        loss = loss_function(outputs, y)
        with torch.no_grad():
            losses = nn.functional.cross_entropy(outputs, y, reduction="none")
        told = {
            "batch_size": len(y),
            "individual_losses": losses,
            "loss": loss,
            "optimizer": optimizer,
        }
        try:
            with watch(step_number, info=told):
                loss.backward(create_graph=watch.create_graph(step_number))
        except AttributeError as error:
            # Cockpit reads gradients also where there are none, and so hides what failed.
            raise (error.__context__ or error) from None
        optimizer.step()
        step_number += 1

    def found():
        norms = watch.get_output()[step_number - 1]["GradNorm"]
        names = [name for name, _ in model.named_parameters()]
        return {
            (name.removesuffix(".weight"), NORM, "all"): np.array([norm])
            for name, norm in zip(names, norms, strict=True)
            if name.endswith("weight")
        }

    return Peer(plain(task), Loop(step, task), found)
