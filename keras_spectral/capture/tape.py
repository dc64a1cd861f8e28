"""The forward pass, watched: A and Z of every covered layer call, and Δ after the backward pass.

Letters: `n` example, `s` shared position, `i` input feature, `o` output feature.
"""

import warnings
from contextlib import ExitStack, contextmanager

import tensorflow as tf

from keras_spectral.capture.per_example import example_gradients_of
from keras_spectral.spectra.factors import Factors, joined_calls, with_positions


class WatchedForward:
    """The covered layer calls of one forward pass.

    Args:
        sites: List of `Site`, each with a rule.

    Attributes:
        calls: List of `(site, Call)` in the order of the sites.
    """

    def __init__(self, sites):
        self._sites = sites
        self.calls = []

    @contextmanager
    def __call__(self):
        """Watch the layers within this context; afterwards they are as they were, always."""
        seen = [(site, []) for site in self._sites]
        with ExitStack() as stack:
            for site, calls in seen:
                stack.enter_context(site.rule.watched(site.layer, calls))
            yield self
        reachable = {site.path: [c for c in calls if _in_this_graph(c)] for site, calls in seen}
        for site, calls in seen:
            if len(reachable[site.path]) < len(calls):
                _warn_unreachable(site, "it is called inside a loop or branch of the graph")
            else:
                self.calls += [(site, call) for call in calls]

    @property
    def pre_activations(self):
        """The list of all `Z`, to be differentiated together with the weights."""
        return [call.pre_activation for _, call in self.calls]

    def factors(self, adjoints, n, scale=None, example_gradients=False):
        """Return A and Δ of every covered weight.

        Args:
            adjoints: Gradients of the loss with respect to `pre_activations`.
            n: Scalar tensor, the number of examples.
            scale: Factor by which the loss was multiplied for mixed precision, divided out here.
            example_gradients: Also differentiate every example with `tape.jacobian`.

        Returns:
            Dictionary `(path, weight name) -> Factors`, all rows of all calls of a layer together.
        """
        found = {}
        for (site, call), adjoint in zip(self.calls, adjoints, strict=True):
            found.setdefault(site, []).append((call, adjoint))
        unreached = [site for site, calls in found.items() if any(d is None for _, d in calls)]
        for site in unreached:
            _warn_unreachable(site, "no gradient reaches its pre-activation")
        return {
            (site.path, site.rule.weight): joined_calls(
                [_call_factors(site, *call, n, scale, example_gradients) for call in calls]
            )
            for site, calls in found.items()
            if site not in unreached
        }


def _call_factors(site, call, adjoint, n, scale, example_gradients):
    if scale is not None:
        # float16 holds the scaled adjoint well and the unscaled one badly: widen first.
        adjoint = tf.cast(adjoint, tf.float32) / tf.cast(scale, tf.float32)
    return Factors(
        with_positions(site.rule.activation(site.layer, call.inputs), n),
        with_positions(site.rule.adjoint(site.layer, adjoint), n),
        example_gradients_of(site, call, adjoint, n) if example_gradients else None,
    )


def _in_this_graph(call):
    if tf.executing_eagerly():
        return True
    return call.pre_activation.graph is tf.compat.v1.get_default_graph()


def _warn_unreachable(site, why):
    warnings.warn(f"The spectra of layer {site.path!r} are not recorded: {why}.", stacklevel=2)
