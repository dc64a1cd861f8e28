"""Types of options that several commands have."""

from pathlib import Path

import click

FILE = click.Path(path_type=Path)
COUNT = click.IntRange(min=1)


class Interval(click.ParamType):
    """A positive number of steps, or `"auto"`."""

    name = "interval"

    def convert(self, value, param, ctx):
        """Return the number or `"auto"`."""
        if value == "auto":
            return value
        try:
            return COUNT.convert(value, param, ctx)
        except click.BadParameter:
            self.fail(f"must be a positive whole number or auto. Received: {value!r}.", param, ctx)
