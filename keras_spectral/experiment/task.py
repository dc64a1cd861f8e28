"""Some trainings as a task, which any process can be given.

python -m keras_spectral.experiment.task < PICKLED_ARGUMENTS
"""

import functools
import pickle
import subprocess
import sys

from keras_spectral.errors import RecordingError
from keras_spectral.experiment.folder import training_folder
from keras_spectral.experiment.quiet import load_tensorflow


def untold(fold, seed, epoch, number):
    """Take no notice of progress."""


def train(study, plan, trainings, folder, progress=untold):
    """Do some trainings of a run, those that have not been done.

    Args:
        study: `Study`.
        plan: `Plan`.
        trainings: Some of `plan.all_trainings`.
        folder: Folder of the run.
        progress: Called with `fold, seed, epoch, number` after each epoch.

    Returns:
        The trainings.
    """
    from keras_spectral.experiment.fold import retrain_fold, train_fold

    for number, fold, seed in trainings:
        told = functools.partial(_tell, progress, number)
        if number:
            retrain_fold(study, plan, number, fold, seed, folder, told)
        else:
            train_fold(study, plan, fold, seed, folder, told)
    return trainings


def _tell(progress, number, fold, seed, epoch):
    progress(fold, seed, epoch, number)


def train_quietly(*arguments):
    """Do the same in a process that is ours, where TensorFlow's notes may be silenced.

    Args:
        *arguments: As of `train`.

    Returns:
        The trainings.
    """
    load_tensorflow()
    return train(*arguments)


def train_apart(*arguments):
    """Do the same in a process of its own, unless all has been done.

    Keras draws its seeds from the random numbers of the process, and so do the threads of a Dask
    worker: there, no training would repeat another. And of every model that was trained Keras keeps
    some megabytes until its process ends.

    Args:
        *arguments: As of `train`.

    Returns:
        The trainings.

    Raises:
        RecordingError: If that process fails; with the end of what it said.
    """
    _, _, trainings, folder = arguments
    if all(training_folder(folder, *each).exists() for each in trainings):
        return trainings
    done = subprocess.run(
        [sys.executable, "-m", "keras_spectral.experiment.task"],
        input=pickle.dumps(arguments),
        capture_output=True,
        check=False,
    )
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()[-2000:]
        raise RecordingError(f"A training must end well. Received: {said}")
    return trainings


if __name__ == "__main__":
    train_quietly(*pickle.load(sys.stdin.buffer))
