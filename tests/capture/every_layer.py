"""Every public layer of Keras: an example of each, or why it has none.

Used by the tests, and by `scripts/layers_table.py`, which writes docs/layers.md.
"""

import keras

L = keras.layers


def attention(layer):
    return lambda x: layer(x, x)


def states(cell, count=1):
    return lambda x: cell(x, [keras.ops.zeros_like(x[:, :3])] * count)[0]


# How to call each layer that has trainable weights, and on which input.
TRAINABLE = {
    "AdditiveAttention": (lambda: lambda x: L.AdditiveAttention()([x, x]), (5, 4)),
    "Attention": (lambda: lambda x: L.Attention(use_scale=True)([x, x]), (5, 4)),
    "BatchNormalization": (lambda: L.BatchNormalization(), (4,)),
    "Bidirectional": (lambda: L.Bidirectional(L.GRU(3)), (5, 4)),
    "Conv1D": (lambda: L.Conv1D(3, 2), (5, 4)),
    "Conv1DTranspose": (lambda: L.Conv1DTranspose(3, 2), (5, 4)),
    "Conv2D": (lambda: L.Conv2D(3, 2), (5, 4, 2)),
    "Conv2DTranspose": (lambda: L.Conv2DTranspose(3, 2), (5, 4, 2)),
    "Conv3D": (lambda: L.Conv3D(3, 2), (3, 4, 3, 2)),
    "Conv3DTranspose": (lambda: L.Conv3DTranspose(3, 2), (3, 4, 3, 2)),
    "ConvLSTM1D": (lambda: L.ConvLSTM1D(2, 2), (3, 5, 2)),
    "ConvLSTM2D": (lambda: L.ConvLSTM2D(2, 2), (3, 5, 4, 2)),
    "ConvLSTM3D": (lambda: L.ConvLSTM3D(2, 2), (2, 3, 4, 3, 2)),
    "Dense": (lambda: L.Dense(3), (4,)),
    "DepthwiseConv1D": (lambda: L.DepthwiseConv1D(2), (5, 4)),
    "DepthwiseConv2D": (lambda: L.DepthwiseConv2D(2), (5, 4, 2)),
    "EinsumDense": (lambda: L.EinsumDense("abc,cd->abd", (None, 3)), (5, 4)),
    "Embedding": (lambda: lambda x: L.Embedding(7, 3)(keras.ops.cast(x > 0, "int32")), (5,)),
    "GRU": (lambda: L.GRU(3), (5, 4)),
    "GRUCell": (lambda: states(L.GRUCell(3)), (4,)),
    "GroupNormalization": (lambda: L.GroupNormalization(2), (5, 4)),
    "GroupedQueryAttention": (lambda: attention(L.GroupQueryAttention(3, 4, 2)), (5, 4)),
    "LSTM": (lambda: L.LSTM(3), (5, 4)),
    "LSTMCell": (lambda: states(L.LSTMCell(3), 2), (4,)),
    "LayerNormalization": (lambda: L.LayerNormalization(), (5, 4)),
    "MultiHeadAttention": (lambda: attention(L.MultiHeadAttention(2, 3)), (5, 4)),
    "PReLU": (lambda: L.PReLU(), (4,)),
    "RMSNormalization": (lambda: L.RMSNormalization(), (5, 4)),
    "RNN": (lambda: L.RNN(L.SimpleRNNCell(3)), (5, 4)),
    "ReversibleEmbedding": (
        lambda: lambda x: L.ReversibleEmbedding(7, 3)(keras.ops.cast(x > 0, "int32")),
        (5,),
    ),
    "SeparableConv1D": (lambda: L.SeparableConv1D(3, 2), (5, 4)),
    "SeparableConv2D": (lambda: L.SeparableConv2D(3, 2), (5, 4, 2)),
    "SimpleRNN": (lambda: L.SimpleRNN(3), (5, 4)),
    "SimpleRNNCell": (lambda: states(L.SimpleRNNCell(3)), (4,)),
    "SpectralNormalization": (lambda: L.SpectralNormalization(L.Dense(3)), (4,)),
    "StackedRNNCells": (lambda: L.RNN(L.StackedRNNCells([L.GRUCell(3)])), (5, 4)),
    "TimeDistributed": (lambda: L.TimeDistributed(L.Dense(3)), (5, 4)),
}

FOREIGN = {
    "FlaxLayer": "runs on JAX only",
    "JaxLayer": "runs on JAX, or by jax2tf, whose functions show no layer within",
    "TFSMLayer": "a SavedModel for inference: its weights are not trained",
    "TorchModuleWrapper": "runs on torch only",
}

RANDOM = """Brightness ColorDegeneration ColorJitter Contrast Crop ElasticTransform Erasing Flip
GaussianBlur Grayscale Hue Invert Perspective Posterization Rotation Saturation Sharpness Shear
Translation Zoom"""

POOLING = ("Max", "Average", "GlobalMax", "GlobalAverage", "AdaptiveMax", "AdaptiveAverage")

OTHERS = """Activation ActivityRegularization Add AlphaDropout AugMix AutoContrast Average
CategoryEncoding CenterCrop Concatenate ContrastLimitedAdaptiveHistogramEqualization Cropping1D
Cropping2D Cropping3D CutMix Discretization Dot Dropout ELU Equalization Flatten GaussianDropout
GaussianNoise HashedCrossing Hashing Identity InputLayer IntegerLookup Lambda Layer LeakyReLU
Masking MaxNumBoundingBoxes Maximum MelSpectrogram Minimum MixUp Multiply Normalization Permute
Pipeline RandAugment ReLU RepeatVector Rescaling Reshape Resizing STFTSpectrogram Softmax
Solarization SpatialDropout1D SpatialDropout2D SpatialDropout3D StringLookup Subtract
TextVectorization UnitNormalization UpSampling1D UpSampling2D UpSampling3D Wrapper ZeroPadding1D
ZeroPadding2D ZeroPadding3D"""

WITHOUT_TRAINABLE_WEIGHTS = {
    *OTHERS.split(),
    *(f"{kind}Pooling{d}D" for kind in POOLING for d in (1, 2, 3)),
    *(f"Random{what}" for what in RANDOM.split()),
}
