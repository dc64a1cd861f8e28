"""Progress of a run on standard error."""

import contextlib
from datetime import timedelta

import click
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar


class Progress(contextlib.AbstractContextManager):
    """Shows the progress of a run: a bar on a terminal, a line per training in a log file.

    Args:
        plan: `Plan` of the run.
        console: Rich `Console`; `None` is standard error.
    """

    def __init__(self, plan, console=None):
        console = console or Console(stderr=True)
        self._plan = plan
        self._epochs = {}
        columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
        self._bar = Bar(*columns, console=console, disable=not console.is_terminal)
        self._bar.add_task("")
        (self._task,) = self._bar.tasks

    def __enter__(self):
        """Draw the bar."""
        self._bar.start()
        return self

    def __exit__(self, *exception):
        """End the line of the bar."""
        self._bar.stop()

    def __call__(self, fold, seed, epoch, number):
        """Report an epoch, as `experiment.run.cross_validated` calls its `progress`.

        Args:
            fold: Number of the fold.
            seed: Number of the repetition.
            epoch: Number of the epoch that has ended.
            number: Number of the permuted target, 0 for the real one.
        """
        plan = self._plan
        self._epochs[number, fold, seed] = epoch + 1
        place = plan.all_trainings.index((number, fold, seed))
        to_come = [each for each in plan.all_trainings[place:] if each not in self._epochs]
        done, ahead = sum(self._epochs.values()), (len(to_come) + 1) * plan.epochs - epoch - 1
        target = f"permuted target {number}/{plan.permute_target}, " if number else ""
        text = (
            f"{target}fold {fold + 1}/{plan.folds}, seed {seed + 1}/{plan.seeds}, "
            f"epoch {epoch + 1}/{plan.epochs}"
        )
        self._bar.update(self._task.id, description=text, completed=done, total=done + ahead)
        if self._bar.disable and epoch + 1 == plan.epochs:
            left = timedelta(seconds=round((self._task.elapsed or 0) / done * ahead))
            click.echo(f"{text}, about {left} left", err=True)
