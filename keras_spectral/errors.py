"""The errors of keras_spectral.

```
SpectralError
├── GroupsError             group labels that do not fit the data
├── SettingsError           a setting of `Spectra` or of a schedule
├── UnsupportedLayerError   a layer that cannot be captured, with `strict=True`
├── LayerRuleError          a registered function whose A and Δ do not fit its layer
├── RecordingError          recording cannot go on (a full buffer, a distribution strategy)
├── LogError                a log without the wanted record, or a file that is not a log
├── ComparisonError         groups that cannot be compared
└── DataError               tables that cannot be joined or trained on
```

Every message says what was expected, what came, and what to do. All are also the built-in
error that a Python programmer expects (`ValueError` unless noted), so `except ValueError` works.
"""


class SpectralError(Exception):
    """Base class of all errors raised on purpose by this package."""


class GroupsError(SpectralError, ValueError):
    """Group labels do not fit the data."""


class SettingsError(SpectralError, ValueError):
    """A setting of `Spectra` or of a schedule is not possible."""


class UnsupportedLayerError(SpectralError, ValueError):
    """A layer cannot be captured and `strict=True` was asked for."""


class LayerRuleError(SpectralError, ValueError):
    """What was registered for a layer does not fit the layer."""


class RecordingError(SpectralError, RuntimeError):
    """Recording cannot go on."""


class LogError(SpectralError, ValueError):
    """A log does not hold what was asked for, or a file is not a log."""


class ComparisonError(SpectralError, ValueError):
    """Two groups cannot be compared."""


class DataError(SpectralError, ValueError):
    """Tables cannot be read, joined or trained on."""
