"""The interval between recorded steps that all trainings of a run share.

The first training of a run finds it; its log tells it to the others, also when a run is resumed.
"""

import dataclasses

from keras_spectral import schedules
from keras_spectral.experiment.folder import fold_folder
from keras_spectral.log.files import read_provenance

SPECTRA_FILE = "spectra.csv"
"""The log of the recorded training steps."""


def with_found_interval(plan, folder):
    """Return a plan that records at the interval which the first training found.

    Args:
        plan: `Plan`.
        folder: Folder of the run, with the first training.

    Returns:
        A `Plan`. A training that was too short to find an interval was recorded at the one of the
        steps that are timed; so are the others then.
    """
    interval = _found(plan, folder).get("interval", schedules.TIMED_EVERY)
    return dataclasses.replace(plan, every=schedules.budget(interval=interval))


def interval_line(plan, folder):
    """Return which interval a run has and why, as one line for reports.

    Args:
        plan: `Plan`.
        folder: Folder of the run, with the first training.
    """
    found = _found(plan, folder)
    if not found:
        text = schedules.interval_text(schedules.TIMED_EVERY)
        return f"{text}; the first training was too short to time more"
    return (
        f"{schedules.interval_text(found['interval'])}; recording one takes "
        f"{found['recording_ms']:.1f} ms beside {found['plain_step_ms']:.1f} ms of a plain step, "
        f"and may take {found['fraction']:.0%} of the time of training"
    )


def _found(plan, folder):
    first = fold_folder(folder, *plan.trainings[0])
    return read_provenance(first / SPECTRA_FILE).get("schedule", {})
