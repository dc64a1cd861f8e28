"""What to record: the settings object `Spectra`."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from keras_spectral import schedules
from keras_spectral.errors import SettingsError
from keras_spectral.summaries import SUMMARIES

QUANTITIES = ("activation", "adjoint", "gradient")
METHODS = ("auto", "gram", "svd", "subspace")
GRADIENTS = ("factors", "per_example")


@dataclass(frozen=True)
class Spectra:
    """Settings of a recording: which steps, layers and quantities, and by which method.

    Args:
        every: Which steps: a positive integer `n` (every n-th step) or a schedule, see
            `keras_spectral.schedules`.
        quantities: Which matrices: any of `"activation"`, `"adjoint"`, `"gradient"`.
        layers: Which layers: `None` (all that can be captured), a layer path or a pattern such as
            `"encoder/*"`, a list of those, or a function `layer -> bool`.
        top_k: Record only the `top_k` largest singular values of each spectrum. `None` records
            all. The Frobenius norm is exact in any case.
        method: `"gram"` takes eigenvalues of the float64 Gram matrix of the smaller side, `"svd"`
            runs `tf.linalg.svd` on the matrix itself. `"auto"` is `"gram"` for models that compute
            in 16 or 32 bits and `"svd"` for float64 models, half of whose digits a Gram matrix
            would lose. `"subspace"` finds only the `top_k` largest where that is cheaper, by
            subspace iteration from one recorded step to the next: approximate, with a certified
            bound of every error (`log.sigma_error`), for wide layers with many rows.
        strict: Raise `UnsupportedLayerError` before training if a trainable layer cannot be
            captured, instead of one warning.
        gradients: `"factors"` forms group gradients as products of activations and adjoints.
            `"per_example"` differentiates every example with `tape.jacobian` and sums over the
            groups: a slow reference, which everything else must equal.
        show: Names of summaries of the gradient spectra (`"effective_rank"`, …) to put in
            `History` and the progress bar at the end of each epoch, one value per group, averaged
            over layers and recorded steps.

    Raises:
        SettingsError: If a value is not one of those above.

    Example:
        >>> Spectra(every=10, quantities="gradient").quantities
        ('gradient',)
    """

    every: int | Callable[..., Any] = 1
    quantities: Sequence[str] = QUANTITIES
    layers: str | Sequence[str] | Callable[[Any], bool] | None = None
    top_k: int | None = None
    method: str = "auto"
    strict: bool = False
    gradients: str = "factors"
    show: Sequence[str] = ()

    def __post_init__(self):
        every = schedules.every(self.every) if isinstance(self.every, int) else self.every
        if not callable(every):
            raise SettingsError(
                "`every` must be a positive integer or a schedule. "
                f"Received: every={self.every!r}. Try `every=10` or `schedules.epochs(1)`."
            )
        object.__setattr__(self, "every", every)
        object.__setattr__(self, "quantities", _choice("quantities", self.quantities, QUANTITIES))
        object.__setattr__(self, "show", _choice("show", self.show, tuple(SUMMARIES)))
        if self.layers is not None and not callable(self.layers):
            object.__setattr__(self, "layers", _patterns(self.layers))
        if not self.quantities:
            raise SettingsError(
                "`quantities` must name at least one of "
                f"{QUANTITIES}. Received: quantities=(). Use `spectra=None` to record nothing."
            )
        if self.top_k is not None and (type(self.top_k) is not int or self.top_k < 1):
            raise SettingsError(
                f"`top_k` must be a positive integer or None. Received: top_k={self.top_k!r}."
            )
        _require_one("method", self.method, METHODS)
        if self.method == "subspace" and self.top_k is None:
            raise SettingsError(
                '`method="subspace"` must be used with `top_k`, the number of singular values to '
                "find. Received: top_k=None. Try `top_k=16`."
            )
        _require_one("gradients", self.gradients, GRADIENTS)

    @classmethod
    def of(cls, value):
        """Return settings from what `compile(spectra=…)` accepts.

        Args:
            value: A `Spectra`, an integer `n` (every n-th step), a schedule, `"auto"` (the schedule
                `budget(0.1)`), or `None`.

        Returns:
            A `Spectra`, or `None` for a model that records nothing.

        Raises:
            SettingsError: If `value` is something else.
        """
        if value is None or isinstance(value, cls):
            return value
        if isinstance(value, str) and value == "auto":
            return cls(every=schedules.budget())
        if callable(value) or (isinstance(value, int) and not isinstance(value, bool)):
            return cls(every=value)
        raise SettingsError(
            '`spectra` must be a `Spectra`, an integer, a schedule, "auto" or None. '
            f"Received: spectra={value!r}. Try `spectra=ks.Spectra(every=1)`."
        )

    def selects(self, path, layer):
        """Tell whether `layers` selects a layer.

        Args:
            path: The layer's path in the model, such as `"encoder/dense"`.
            layer: The Keras layer, handed to a predicate.

        Returns:
            `True` if the layer is to be recorded.
        """
        if self.layers is None:
            return True
        if callable(self.layers):
            return bool(self.layers(layer))
        return any(fnmatchcase(path, pattern) for pattern in self.layers)

    def get_config(self):
        """Return the settings as plain data, for JSON.

        Returns:
            A dictionary that `from_config` accepts.

        Raises:
            SettingsError: If `every` or `layers` is a function, which has no plain form.
        """
        if callable(self.layers):
            raise SettingsError(
                "`layers` must be names or patterns to be saved with a model. "
                f"Received: layers={self.layers!r}. Try a list of layer paths."
            )
        return {
            "every": schedules.to_config(self.every),
            "quantities": list(self.quantities),
            "layers": None if self.layers is None else list(self.layers),
            "top_k": self.top_k,
            "method": self.method,
            "strict": self.strict,
            "gradients": self.gradients,
            "show": list(self.show),
        }

    @classmethod
    def from_config(cls, config):
        """Return the settings that `get_config` described.

        Args:
            config: The dictionary made by `get_config`.

        Returns:
            A `Spectra` equal to the original.
        """
        return cls(**{**config, "every": schedules.from_config(config["every"])})


def _as_tuple(value):
    one = isinstance(value, str) or not isinstance(value, Iterable)
    return (value,) if one else tuple(value)


def _patterns(value):
    patterns = _as_tuple(value)
    if not patterns or not all(isinstance(pattern, str) for pattern in patterns):
        raise SettingsError(
            "`layers` must be layer paths, patterns or a function. "
            f'Received: layers={value!r}. Try `layers=["encoder/*"]`, or None for all layers.'
        )
    return patterns


def _choice(name, value, allowed):
    chosen = _as_tuple(value)
    unknown = [item for item in chosen if item not in allowed]
    if unknown:
        raise SettingsError(f"`{name}` must be among {allowed}. Received: {name}={value!r}.")
    return tuple(item for item in allowed if item in chosen)


def _require_one(name, value, allowed):
    if value not in allowed:
        raise SettingsError(f"`{name}` must be one of {allowed}. Received: {name}={value!r}.")
