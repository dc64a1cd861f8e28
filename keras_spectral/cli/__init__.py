"""The command line: `keras-spectral demo | run | layers | compare | report`.

Each command calls the functions that a script would call. Large packages are imported only by the
commands that need them.
"""

import os
import warnings

import click

from keras_spectral import __version__
from keras_spectral.cli.demo import demo
from keras_spectral.cli.logs import compare, report
from keras_spectral.cli.models import layers
from keras_spectral.cli.running import run
from keras_spectral.errors import SpectralError

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


class _Commands(click.Group):
    """Shows errors and warnings as one message, without a traceback."""

    def invoke(self, ctx):
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            try:
                return super().invoke(ctx)
            except BrokenPipeError:
                raise  # click then exits without a message, as with `… | head`
            except (SpectralError, OSError) as error:
                raise click.ClickException(str(error)) from error


def _show_warning(message, *_):
    click.echo(f"Warning: {message}", err=True)


@click.group(cls=_Commands)
@click.version_option(__version__)
def main():
    """See how each group of samples teaches each layer of a network."""


for command in (demo, run, layers, compare, report):
    main.add_command(command)
