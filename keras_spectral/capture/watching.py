"""The watched pass: A and Z of every covered layer call, and Δ from one backward pass.

Letters: `n` example, `s` shared position, `i` input feature, `o` output feature.
"""

import itertools
import warnings
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import tensorflow as tf

from keras_spectral.capture.per_example import example_gradients, watched_outputs
from keras_spectral.matrices.factors import Factors


class WatchedPass(NamedTuple):
    """Results of a watched forward pass and its backward pass.

    Attributes:
        gradients: List of the gradients of the weights.
        adjoints: List of the gradients of `forward.outputs`.
        forward: `WatchedForward`, which makes factors of the adjoints.
    """

    gradients: Any
    adjoints: Any
    forward: Any

    def factors(self, backward):
        """Return A and Δ of every covered weight, see `WatchedForward.factors`.

        Args:
            backward: `Backward`.
        """
        return self.forward.factors(self.adjoints, backward)


def watched_pass(sites, forward, weights=(), cotangents=None, per_example=False):
    """Run a model forward, with its layers watched, and backward once.

    Used by training, introspection, `check_layer` and the comparison with a tape.

    Args:
        sites: List of `Site`, each with a rule.
        forward: Function without arguments that runs the model and returns the targets to be
            differentiated: a loss, or a list of tensors.
        weights: Sequence of variables whose gradients are returned too.
        cotangents: Function from the result of `forward` to its cotangents; `None` for ones.
        per_example: Whether to prepare for gradients by differentiation of every example.

    Returns:
        `WatchedPass`.
    """
    watched = WatchedForward(sites, per_example)
    with tf.GradientTape() as tape, watched(tape.watch):
        targets = forward()
    found = tape.gradient(
        targets,
        [*weights, *watched.outputs],
        output_gradients=None if cotangents is None else cotangents(targets),
    )
    return WatchedPass(found[: len(weights)], found[len(weights) :], watched)


class WatchedForward:
    """The covered layer calls of one forward pass.

    Args:
        sites: List of `Site`, each with a rule.
        per_example: As in `watched_pass`.

    Attributes:
        calls: List of `(site, Call)` in the order of the sites.
        hidden: List of the sites with a call inside a loop or branch of the graph, whose tensors
            are not accessible.
    """

    def __init__(self, sites, per_example=False):
        self._sites = sites
        self._per_example = per_example
        self._whole_calls = {}  # of each site, for `per_example`
        self.calls = []
        self.hidden = []

    @contextmanager
    def __call__(self, watch=lambda tensor: None):
        """Watch the layers within this context; they are restored afterwards, also on errors.

        Args:
            watch: `tape.watch` of the tape that differentiates, if there is one.

        Yields:
            Itself.
        """
        seen = [(site, []) for site in self._sites]
        with ExitStack() as stack:
            for site, calls in seen:
                stack.enter_context(site.rule.watched(site.watched, calls, watch))
                if self._per_example:
                    whole = self._whole_calls.setdefault(site, [])
                    stack.enter_context(watched_outputs(site.watched, whole))
            yield self
        reachable = {site.path: [c for c in calls if _in_this_graph(c)] for site, calls in seen}
        for site, calls in seen:
            if len(reachable[site.path]) < len(calls):
                self.hidden.append(site)
            else:
                self.calls += [(site, call) for call in calls]

    @property
    def outputs(self):
        """List of all tensors whose adjoints are needed."""
        calls = [call for _, call in self.calls]
        calls += [call for site in self._whole_calls for call in self._whole_of(site)]
        return [output for call in calls for output in call.outputs]

    def _whole_of(self, site):
        return [] if site in self.hidden else self._whole_calls.get(site, [])

    def factors(self, adjoints, backward):
        """Return A and Δ of every covered weight.

        Args:
            adjoints: Gradients of the loss with respect to `outputs`.
            backward: `Backward`.

        Returns:
            Dictionary `(path, weight name) -> Factors`, in the order of the model, with the rows of
            all calls of a layer.
        """
        left, by_site = iter(adjoints), {}
        for site, call in self.calls:
            own = list(itertools.islice(left, len(call.outputs)))
            by_site.setdefault(site, []).append((call, own))
        by_example = {}
        for site in self._whole_calls:
            calls = self._whole_of(site)
            by_example[site] = [list(itertools.islice(left, len(c.outputs))) for c in calls]
        for site in self.hidden:
            _warn_unreachable(site, "it is called inside a loop or branch of the graph")
        found = {}
        for site in self._sites:
            pairs = by_site.get(site, [])
            if any(all(adjoint is None for adjoint in own) for _, own in pairs):
                _warn_unreachable(site, _no_gradient(pairs))
            elif tf.executing_eagerly() and any(c.leading - {int(backward.n)} for c, _ in pairs):
                _warn_unreachable(site, "its output does not lead with the example")
            elif pairs:
                calls, own = zip(*pairs, strict=True)
                factors = site.rule.factors(site.layer, calls, own, backward)
                if self._per_example:
                    factors = self._of_examples(site, by_example[site], factors, backward)
                found |= {(site.path, name): factor for name, factor in factors.items()}
        return found

    def _of_examples(self, site, adjoints, factors, backward):
        """Return factors whose gradients are those of every example, by differentiation."""
        weights = [(name, v) for name, v in site.weights if name in factors]
        calls = self._whole_of(site)
        found = example_gradients(weights, site.watched, calls, adjoints, backward)
        return {
            name: Factors(
                factor.activation,
                factor.adjoint,
                example_gradients=site.rule.matrices(site.layer, name, found[name]),
            )
            for name, factor in factors.items()
        }


def _in_this_graph(call):
    if tf.executing_eagerly():
        return True
    return call.outputs[0].graph is tf.compat.v1.get_default_graph()


def _no_gradient(pairs):
    """Return an explanation of missing adjoints."""
    if any(hasattr(output, "_keras_logits") for call, _ in pairs for output in call.outputs):
        return (
            "the loss takes the logits of the softmax at its end, past its output; of a registered "
            "layer `register_layer(…, activation=…)` names that function"
        )
    return "no gradient reaches its output"


def _warn_unreachable(site, why):
    warnings.warn(f"The spectra of layer {site.path!r} are not recorded: {why}.", stacklevel=2)
