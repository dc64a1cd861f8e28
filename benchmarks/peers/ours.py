"""keras_spectral itself: every step, exact, as `benchmarks/overhead.py` times it."""

import functools

import keras_spectral as ks
from benchmarks.peers import oracle
from benchmarks.peers.task import CHECK, GRADIENT, GROUPS, QUANTITIES, Peer
from benchmarks.training import ALWAYS, CASES, PLAIN, trainer
from benchmarks.workloads import WORKLOADS
from keras_spectral.neuro.models import mlp


def _peer(task, spectra, quantities):
    if task.network == CHECK:
        return _of_small_mlp(task, spectra, quantities)
    workload = WORKLOADS[task.network]

    def case(recorded):
        train = trainer(workload, recorded, workload.steps)
        return lambda seconds: (train(), workload.steps)

    return Peer(case(CASES[PLAIN]), case(spectra), dict)


def _of_small_mlp(task, spectra, quantities):
    *widths, classes = oracle.WIDTHS
    model = ks.SpectralModel.from_model(mlp(widths[0], classes, widths[1:], dropout=0.0))
    model.set_weights([array for pair in oracle.parameters() for array in pair])
    model.compile("adam", "sparse_categorical_crossentropy", spectra=spectra)

    def recorded(seconds):
        model.fit(task.x, task.y, batch_size=task.batch, groups=task.labels, verbose=0)

    def found():
        log = model.spectral_log
        return {
            (layer, quantity, group): log.singular_values(layer, quantity, group=group, step=0)
            for layer in oracle.LAYERS
            for quantity in quantities
            for group in GROUPS
        }

    return Peer(lambda seconds: None, recorded, found)


every_step = functools.partial(_peer, spectra=CASES[ALWAYS], quantities=QUANTITIES)

gradients_only = functools.partial(
    _peer, spectra=ks.Spectra(quantities=GRADIENT), quantities=GRADIENT
)
