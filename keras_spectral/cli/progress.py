"""How far a run is."""

import sys
import time

import click


class Progress:
    """Tells how far a run is: a bar on a terminal, a line per training elsewhere.

    Args:
        plan: `Plan` of the run.
        jobs: Number of processes; several call once for each training.
    """

    def __init__(self, plan, jobs):
        self._plan = plan
        self._each = 1 if jobs == 1 else plan.epochs  # epochs between two calls
        self._begin = time.monotonic()
        self._seen = 0
        self._total = len(plan.all_trainings)

    def __call__(self, fold, seed, epoch, number):
        """Tell, as `experiment.run.cross_validated` calls its `progress`.

        Args:
            fold: Number of the fold.
            seed: Number of the repetition.
            epoch: Number of the epoch that has ended.
            number: Number of the permuted target, 0 for the real one.
        """
        self._seen += self._each
        if not (epoch + 1 == self._plan.epochs or sys.stderr.isatty()):
            return
        place = self._plan.all_trainings.index((number, fold, seed))
        ahead = (self._total - place) * self._plan.epochs - epoch - 1
        left = (time.monotonic() - self._begin) / self._seen * ahead
        again = f"permuted target {number}/{self._plan.retrainings}, " if number else ""
        text = (
            f"{again}fold {fold + 1}/{self._plan.folds}, seed {seed + 1}/{self._plan.seeds}, "
            f"epoch {epoch + 1}/{self._plan.epochs}, about {_duration(left)} left"
        )
        if sys.stderr.isatty():
            click.echo(f"\r{text}\033[K", nl=False, err=True)
        else:
            click.echo(text, err=True)

    def done(self):
        """End the line of the bar."""
        if sys.stderr.isatty():
            click.echo(err=True)


def _duration(seconds):
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
