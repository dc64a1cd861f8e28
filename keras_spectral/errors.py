"""The errors of keras_spectral.

```
SpectralError
├── GroupsError             group labels that do not fit the data
├── SettingsError           a setting of `Spectra` or of a schedule
├── UnsupportedLayerError   a layer that cannot be captured, with `strict=True`
├── LayerRuleError          a registered function whose A and Δ do not fit its layer
├── RecordingError          recording cannot go on (an unsupported strategy, a failed process)
├── LogError                a log without the wanted record, or a file that is not a log
├── ComparisonError         groups that cannot be compared
└── DataError               tables that cannot be joined or trained on
```

Every message states what was expected, what was received and a remedy. All are subclasses of
`ValueError` too, except `RecordingError`, which is a `RuntimeError`.
"""


class SpectralError(Exception):
    """Base class of all errors raised on purpose by this package."""


class GroupsError(SpectralError, ValueError):
    """Group labels do not fit the data."""


class SettingsError(SpectralError, ValueError):
    """A setting of `Spectra` or of a schedule is not possible."""


class UnsupportedLayerError(SpectralError, ValueError):
    """A layer cannot be captured, and `strict=True` was set."""


class LayerRuleError(SpectralError, ValueError):
    """The function registered for a layer returns matrices that do not fit the layer."""


class RecordingError(SpectralError, RuntimeError):
    """Recording cannot go on."""


class LogError(SpectralError, ValueError):
    """A log does not hold what was asked for, or a file is not a log."""


class ComparisonError(SpectralError, ValueError):
    """Two groups cannot be compared."""


class DataError(SpectralError, ValueError):
    """Tables cannot be read, joined or trained on."""
