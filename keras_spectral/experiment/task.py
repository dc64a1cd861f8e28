"""Some trainings as a task that can run in another process.

python -m keras_spectral.experiment.task < PICKLED_ARGUMENTS
"""

import functools
import pickle
import subprocess
import sys

from keras_spectral.errors import RecordingError
from keras_spectral.experiment.folder import training_folder
from keras_spectral.experiment.quiet import load_tensorflow


def no_progress(fold, seed, epoch, number):
    """Ignore the progress of a run."""


def train(study, plan, trainings, folder, progress=no_progress):
    """Run some trainings of a run, without those that are finished.

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
        report = functools.partial(_report, progress, number)
        if number:
            retrain_fold(study, plan, number, fold, seed, folder, report)
        else:
            train_fold(study, plan, fold, seed, folder, report)
    return trainings


def _report(progress, number, fold, seed, epoch):
    progress(fold, seed, epoch, number)


def train_quietly(*arguments):
    """Run `train` in a worker process of this package, without the messages of TensorFlow.

    Args:
        *arguments: As of `train`.

    Returns:
        The trainings.
    """
    load_tensorflow()
    return train(*arguments)


def train_apart(*arguments):
    """Run `train` in a process of its own, unless all trainings are finished.

    Keras draws its seeds from the random state of the process, which the threads of a Dask worker
    share: there, trainings could not be reproduced. Keras also keeps some megabytes of every
    trained model until the process ends.

    Args:
        *arguments: As of `train`.

    Returns:
        The trainings.

    Raises:
        RecordingError: If that process fails; the message ends with its standard error.
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
        message = done.stderr.decode(errors="replace").strip()[-2000:]
        raise RecordingError(f"A training must not fail. Received: {message}")
    return trainings


if __name__ == "__main__":
    train_quietly(*pickle.load(sys.stdin.buffer))
