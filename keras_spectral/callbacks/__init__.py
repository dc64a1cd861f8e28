"""When to look and where to write: callbacks for `fit`."""

from keras_spectral.callbacks.csv import SpectralCSVLogger
from keras_spectral.callbacks.probe import SpectralProbe

__all__ = ["SpectralCSVLogger", "SpectralProbe"]
