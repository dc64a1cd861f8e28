"""How far a run is."""

import sys
import time

import click


class Progress:
    """Tells how far a run is: a bar on a terminal, a line per training elsewhere.

    Args:
        plan: `Plan` of the run.
    """

    def __init__(self, plan):
        self._plan = plan
        self._begin = time.monotonic()
        self._epochs = {}

    def __call__(self, fold, seed, epoch, number):
        """Tell, as `experiment.run.cross_validated` calls its `progress`.

        Args:
            fold: Number of the fold.
            seed: Number of the repetition.
            epoch: Number of the epoch that has ended.
            number: Number of the permuted target, 0 for the real one.
        """
        self._epochs[number, fold, seed] = epoch + 1
        if not (epoch + 1 == self._plan.epochs or sys.stderr.isatty()):
            return
        place = self._plan.all_trainings.index((number, fold, seed))
        to_come = [each for each in self._plan.all_trainings[place:] if each not in self._epochs]
        ahead = (len(to_come) + 1) * self._plan.epochs - epoch - 1
        left = (time.monotonic() - self._begin) / sum(self._epochs.values()) * ahead
        again = f"permuted target {number}/{self._plan.permute_target}, " if number else ""
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
