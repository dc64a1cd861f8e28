"""Plain Keras models for neuroimaging data: functions that return one, uncompiled.

The only folder of `neuro` that imports Keras.
"""

from keras_spectral.neuro.models.sequences import bilstm, cnn1d, transformer
from keras_spectral.neuro.models.tables import mlp
from keras_spectral.neuro.models.volumes import cnn3d

__all__ = ["bilstm", "cnn1d", "cnn3d", "mlp", "transformer"]
