"""`keras-spectral layers`: how the weights of a saved model are captured."""

import re
import textwrap
import zipfile
import zlib
from pathlib import Path

import click

from keras_spectral.cli.options import FILE


@click.command()
@click.argument("model", type=FILE)
def layers(model):
    """List every weight of a saved MODEL, how it is captured, or why not."""
    if not Path(model).exists():
        raise click.ClickException(f"`MODEL` must be a saved model. Received: {model}, not found.")
    loaded = _loaded(model)
    from keras_spectral.capture.coverage import coverage
    from keras_spectral.capture.listing import listing

    try:
        table = coverage(loaded)
    except ValueError as error:  # a model saved before it was built
        raise click.ClickException(str(error)) from error
    click.echo(listing(table))


def _loaded(path):
    from keras_spectral.experiment.quiet import load_tensorflow

    load_tensorflow()
    import keras

    from keras_spectral import model as _registered  # noqa: F401  (makes our classes loadable)

    try:
        return keras.models.load_model(path, compile=False)
    except NO_MODEL as error:
        why = str(error).rpartition("Exception encountered: ")[2]
        raise click.ClickException(_not_loaded(path, why)) from error


NO_MODEL = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    ImportError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What Keras raises for files that hold no model, are incomplete, or need unknown classes."""
UNKNOWN = re.compile(r"(?:Could not locate (\w+)|Unknown (\w+):) '([^']*)'")
"""How Keras names a class or function that is neither its own nor registered."""


def _not_loaded(path, why):
    """Return the error text for a file that Keras cannot load for the reason `why`."""
    script = f"`ks.coverage(keras.models.load_model({str(path)!r}, compile=False))` in a script"
    unknown = UNKNOWN.search(why)
    if unknown:
        return (
            "`MODEL` must be made of classes that Keras knows. "
            f"Received: {path}, with the {unknown[1] or unknown[2]} {unknown[3]!r}. "
            f"Try {script} that imports or defines it first."
        )
    if "safe_mode=False" in why:
        return (
            "`MODEL` must hold no code of its own. "
            f"Received: {path}, with a `Lambda` layer, which Keras does not run unasked. "
            f"If you trust it, try {script}, with `safe_mode=False`."
        )
    return (
        "`MODEL` must be a saved model. "
        f"Received: {path}, which Keras cannot load: {textwrap.shorten(why, 300)} "
        "Try a `.keras` file, as `model.save('model.keras')` writes it."
    )
