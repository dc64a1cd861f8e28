"""One training as a task, which any process can be given.

python -m keras_spectral.experiment.task < PICKLED_ARGUMENTS
"""

import pickle
import subprocess
import sys

from keras_spectral.errors import RecordingError
from keras_spectral.experiment.quiet import load_tensorflow


def untold(fold, seed, epoch, number):
    """Take no notice of progress."""


def train(study, plan, training, folder, progress=untold):
    """Do one training of a run, if it has not been done.

    Args:
        study: `Study`.
        plan: `Plan`.
        training: One of `plan.all_trainings`.
        folder: Folder of the run.
        progress: Called with `fold, seed, epoch, number` after each epoch.

    Returns:
        The training.
    """
    from keras_spectral.experiment.fold import retrain_fold, train_fold

    number, *pair = training

    def told(fold, seed, epoch):
        progress(fold, seed, epoch, number)

    if number:
        retrain_fold(study, plan, number, *pair, folder, told)
    else:
        train_fold(study, plan, *pair, folder, told)
    return training


def train_quietly(*arguments):
    """Do the same in a process that is ours, where TensorFlow's notes may be silenced.

    Args:
        *arguments: As of `train`.

    Returns:
        The training.
    """
    load_tensorflow()
    return train(*arguments)


def train_apart(*arguments):
    """Do the same in a process of its own.

    Keras draws its seeds from the random numbers of the process, and so do the threads of a Dask
    worker: there, no training would repeat another.

    Args:
        *arguments: As of `train`.

    Returns:
        The training.

    Raises:
        RecordingError: If that process fails; with the end of what it said.
    """
    done = subprocess.run(
        [sys.executable, "-m", "keras_spectral.experiment.task"],
        input=pickle.dumps(arguments),
        capture_output=True,
        check=False,
    )
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()[-2000:]
        raise RecordingError(f"A training must end well. Received: {said}")
    return arguments[2]


if __name__ == "__main__":
    train_quietly(*pickle.load(sys.stdin.buffer))
