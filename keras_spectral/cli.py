"""The command line: `keras-spectral demo | run | layers | compare | report`.

Each command is a thin face of the same functions that a script would call. Heavy packages are
imported only by the command that needs them.
"""

import ast
import dataclasses
import os
import re
import sys
import textwrap
import time
import warnings
from contextlib import suppress
from pathlib import Path

import click

from keras_spectral import __version__
from keras_spectral.errors import SpectralError

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


class _Commands(click.Group):
    """Tells users of errors and warnings in one message, without a traceback."""

    def invoke(self, ctx):
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            try:
                return super().invoke(ctx)
            except BrokenPipeError:
                raise  # click ends quietly, as `… | head` wants it
            except (SpectralError, OSError) as error:
                raise click.ClickException(str(error)) from error


def _show_warning(message, *_):
    click.echo(f"Warning: {message}", err=True)


@click.group(cls=_Commands)
@click.version_option(__version__)
def main():
    """See how each group of samples teaches each layer of a network."""


PLANTED = "90 subjects, 378 connectivity values; the 40 subjects of site B vary more."

FILE = click.Path(path_type=Path)
COUNT = click.IntRange(min=1)


def _load_tensorflow():
    """Import TensorFlow without the start-up notes that its C++ part prints whatever one sets."""
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        import tensorflow
    finally:
        os.dup2(kept, 2)
        os.close(kept)
    tensorflow.get_logger().setLevel("ERROR")  # a new model per fold is not "retracing"


def _entry(context, parameter, values):
    """Return `column=value` options as a dictionary of lists."""
    entries = {}
    for value in values:
        name, mark, text = value.partition("=")
        if not mark:
            raise click.BadParameter(f"must be column=value. Received: {value!r}.")
        entries.setdefault(name.strip(), []).append(text.strip())
    return entries


def _options(context, parameter, values):
    """Return `name=value` options as a dictionary of numbers, tuples of numbers, or text."""
    options = {name: given[-1] for name, given in _entry(context, parameter, values).items()}
    for name, text in options.items():
        with suppress(ValueError, SyntaxError):
            options[name] = ast.literal_eval(text)
    return options


@main.command()
@click.option(
    "--features",
    multiple=True,
    type=FILE,
    help="Table of features; may be given several times.",
)
@click.option(
    "--data",
    type=FILE,
    help="Instead of --features: folder, `folder/*` or array of time series; of volumes for cnn3d.",
)
@click.option(
    "--model",
    default="mlp",
    type=click.Choice(("mlp", "bilstm", "transformer", "cnn1d", "cnn3d")),
    show_default=True,
    help="What to train. mlp with --data: on the connectivity of time series.",
)
@click.option(
    "--option",
    "options",
    multiple=True,
    callback=_options,
    metavar="NAME=VALUE",
    help="Argument of the model's function, such as units=64.",
)
@click.option("--labels", required=True, type=FILE, help="Table with target and groups.")
@click.option(
    "--id", "id_column", required=True, help="Column that identifies subjects in all tables."
)
@click.option("--target", required=True, help="Column to predict.")
@click.option(
    "--groups",
    multiple=True,
    required=True,
    help="Column whose groups are compared; may be given several times.",
)
@click.option("--out", required=True, type=FILE, help="Folder to write.")
@click.option(
    "--folds",
    default=5,
    type=click.IntRange(min=2),
    show_default=True,
    help="Stratified folds.",
)
@click.option(
    "--seeds",
    default=1,
    type=COUNT,
    show_default=True,
    help="Repetitions with other folds and initial weights.",
)
@click.option(
    "--epochs", default=40, type=COUNT, show_default=True, help="Passes over the training fold."
)
@click.option(
    "--batch-size", default=32, type=COUNT, show_default=True, help="Subjects per training step."
)
@click.option(
    "--relabelings",
    default=99,
    type=click.IntRange(min=0),
    show_default=True,
    help="Relabelings of the groups: the null distribution. 0: no p-values.",
)
@click.option(
    "--every",
    default=1,
    type=COUNT,
    show_default=True,
    help="Training steps between two records.",
)
@click.option(
    "--probe-every",
    type=COUNT,
    help="Epochs between two looks at the whole training fold  [default: at most 40 looks]",
)
@click.option("--balanced", is_flag=True, help="Let classes weigh equally in the loss.")
@click.option(
    "--patience",
    type=COUNT,
    help="Epochs without a better loss on held out subjects that end a training  [default: none]",
)
@click.option(
    "--where",
    multiple=True,
    callback=_entry,
    metavar="COLUMN=VALUE",
    help="Subjects to keep; may be given several times.",
)
@click.option(
    "--space",
    type=click.Choice(("world", "centre")),
    default="world",
    show_default=True,
    help="What volumes have in common: the millimetres of their affines, or their centres alone.",
)
@click.option("--strata", help="Column that all folds should have in equal shares, such as site.")
@click.option(
    "--jobs", default=1, type=COUNT, show_default=True, help="Folds to train at the same time."
)
@click.option("--inner-join", is_flag=True, help="Keep the subjects that all tables have.")
@click.option("--overwrite", is_flag=True, help="Replace a former run in --out.")
@click.option("--resume", is_flag=True, help="Go on with an interrupted run in --out.")
def run(**given):
    """Train a classifier, cross-validated; compare and report its groups."""
    from keras_spectral.experiment.study import Plan

    plan = {field.name: given[field.name] for field in dataclasses.fields(Plan)}
    subjects = _subjects(given, plan["model"])
    about = {
        "features": [str(path) for path in given["features"]] or str(given["data"]),
        "labels": str(given["labels"]),
        "target": given["target"],
        "group_columns": list(given["groups"]),
    }
    how = {name: given[name] for name in ("overwrite", "resume", "jobs")}
    _trained_and_reported(
        subjects, given["groups"], given["strata"], given["out"], plan, about, how
    )


def _subjects(given, model):
    if bool(given["features"]) == bool(given["data"]):
        raise click.UsageError("Give either --features or --data.")
    join = "inner" if given["inner_join"] else "exact"
    what = given["labels"], given["target"], given["id_column"]
    options = {"where": given["where"], "join": join}
    if given["features"]:
        from keras_spectral.neuro.tables import load_tables

        if model != "mlp":
            raise click.UsageError(f"--model {model} needs --data, not --features.")
        return load_tables(given["features"], *what, **options)
    if model == "cnn3d":
        from keras_spectral.neuro.volumes import load_volumes

        return load_volumes(given["data"], *what, space=given["space"], **options)
    from keras_spectral.neuro.time_series import connectivity, load_time_series

    subjects = load_time_series(given["data"], *what, **options)
    return connectivity(subjects) if model == "mlp" else subjects


@main.command()
@click.option(
    "--out",
    default="runs/demo",
    show_default=True,
    type=FILE,
    help="Folder to write; a former demo in it is replaced.",
)
def demo(out):
    """Try everything on simulated data with a planted difference between two sites."""
    import tempfile

    from keras_spectral.neuro.simulate import write_simulated_tables
    from keras_spectral.neuro.tables import load_tables

    click.echo(f"Simulated data. {PLANTED}")
    with tempfile.TemporaryDirectory() as folder:
        features, labels = write_simulated_tables(folder, n_subjects=90, group_size=40, seed=0)
        subjects = load_tables(features, labels, "diagnosis", "id")
    plan = {"folds": 3, "epochs": 20}
    about = {"simulated": PLANTED, "target": "diagnosis", "group_columns": ["site"]}
    how = {"overwrite": None, "resume": False, "jobs": 1}
    _trained_and_reported(subjects, ["site"], None, out, plan, about, how)


@main.command()
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
    _load_tensorflow()
    import keras

    from keras_spectral import model as _registered  # noqa: F401  (makes our classes loadable)

    try:
        return keras.models.load_model(path, compile=False)
    except Exception as error:  # whatever a file that is no model makes of the loader
        why = str(error).rpartition("Exception encountered: ")[2]
        raise click.ClickException(_not_loaded(path, why)) from error


UNKNOWN = re.compile(r"(?:Could not locate (\w+)|Unknown (\w+):) '([^']*)'")
"""What Keras says of a class or function that is not its own, nor registered."""


def _not_loaded(path, why):
    """Return what to tell of a file of which Keras says `why` it cannot be loaded."""
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


@main.command()
@click.argument("log", type=FILE)
@click.argument("a")
@click.argument("b")
@click.option("--out", type=FILE, help="CSV file for the whole table.")
@click.option("--rows", default=15, type=COUNT, show_default=True, help="Rows to print.")
def compare(log, a, b, out, rows):
    """Compare groups A and B of a LOG (a CSV or Parquet file, or the folder of a run)."""
    from keras_spectral.analysis.compare import comparison

    log = _log_file(log)
    _require_other_file(out, log)
    table = comparison(_read(log), a, b)
    _show_comparison(table, rows)
    if out is not None:
        table.to_csv(out, index=False)
        click.echo(f"{len(table)} rows: {out}")


@main.command()
@click.argument("log", type=FILE)
@click.option(
    "--out", default="report.html", show_default=True, type=FILE, help="HTML file to write."
)
@click.option("--a", help="First group to compare  [default: all pairs of a factor]")
@click.option("--b", help="Second group to compare.")
@click.option("--figures", type=FILE, help="Folder for the figures as PNG files.")
def report(log, out, a, b, figures):
    """Write a report of a LOG (a CSV or Parquet file, or the folder of a run)."""
    from keras_spectral.analysis import report as write_report

    log = _log_file(log)
    _require_other_file(out, log)
    click.echo(f"Report: {write_report(_read(log), out, a=a, b=b, figures_dir=figures)}")


def _read(path):
    from keras_spectral.log import read_log

    return read_log(path)


def _log_file(path):
    if not path.is_dir():
        return path
    from keras_spectral.experiment.folder import PROBE_FILE, former_run

    log = path / PROBE_FILE
    if not log.exists() and former_run(path):
        raise click.ClickException(
            f"`LOG` must be a finished run. Received: {path}, which was interrupted. "
            "Try the command that began it, with --resume."
        )
    return log


def _require_other_file(out, log):
    if out is not None and out.exists() and log.exists() and out.samefile(log):
        raise click.ClickException(
            f"`--out` must be another file than the log. Received: {out}, which it would replace."
        )


def _trained_and_reported(subjects, groups, strata, out, plan, about, how):
    from keras_spectral.neuro.targets import group_columns

    x, y, phenotype = subjects
    columns = group_columns(phenotype, list(groups))
    strata = None if strata is None else group_columns(phenotype, [strata]).iloc[:, 0]
    _load_tensorflow()
    from keras_spectral.experiment import run as experiment
    from keras_spectral.experiment.folder import former_run
    from keras_spectral.experiment.study import Plan, Study

    classes = phenotype.attrs["classes"]
    study = Study(
        x.to_numpy() if hasattr(x, "to_numpy") else x,
        y,
        classes,
        columns if len(columns.columns) > 1 else columns.iloc[:, 0],
        {**about, "tables": phenotype.attrs["report"], "classes": list(classes)},
        strata=strata,
    )
    plan = Plan(**plan)
    overwrite = how["overwrite"]
    if overwrite is None:  # a demo replaces a demo, and nothing else
        overwrite = bool(former_run(out).get("simulated"))
    folder = experiment.prepared_folder(out, study, plan, overwrite, how["resume"])
    progress = _Progress(plan)
    try:
        scores, probe = experiment.cross_validated(study, plan, folder, progress, how["jobs"])
    except KeyboardInterrupt:
        done = len([f for f in folder.glob("fold_*") if not f.suffix])
        raise click.ClickException(
            f"Stopped. {done} of {plan.folds * plan.seeds} folds are finished and kept in "
            f"{folder}; the same command with --resume goes on."
        ) from None
    progress.done()
    click.echo(scores.to_string(index=False, float_format=lambda value: f"{value:.3f}"))
    click.echo(
        f"mean test AUC {scores['auc'].mean():.3f}, accuracy {scores['accuracy'].mean():.3f}"
    )
    _written(experiment.findings(probe, folder, study), folder)


def _written(pairs, folder):
    if not pairs.tables:
        click.echo("Nothing was compared: that takes two groups of one column.")
    for table in pairs.tables:
        _show_comparison(table, rows=5)
    for text in pairs.left_out:
        click.echo(f"Not compared: {text}.")
    click.echo(f"Tables, figures, models: {folder}")
    click.echo(f"Report: {folder / 'report.html'}")


def _show_comparison(table, rows):
    columns = ["layer", "quantity", "summary", "value_a", "value_b", "z", "p", "p_adjusted"]
    shown = table.assign(
        value_a=table["corrected_a"].fillna(table["value_a"]),
        value_b=table["corrected_b"].fillna(table["value_b"]),
    ).sort_values(["p_adjusted", "p"], kind="stable")
    names = [*columns[:3], *table[["group_a", "group_b"]].iloc[0], *columns[5:]]
    first = shown[columns].head(rows)
    click.echo(first.to_string(index=False, header=names, float_format="{:.4g}".format))
    click.echo("Norms are corrected for group size, ranks are not.")
    click.echo(f"Null: {table['null'].iloc[0]}")


class _Progress:
    """Tells how far a run is: a bar on a terminal, a line per fold elsewhere."""

    def __init__(self, plan):
        self._plan = plan
        self._begin = time.monotonic()
        self._seen = 0

    def __call__(self, fold, seed, epoch):
        self._seen += 1
        last = epoch + 1 == self._plan.epochs
        if not (last or sys.stderr.isatty()):
            return
        total = self._plan.folds * self._plan.seeds * self._plan.epochs
        position = (seed * self._plan.folds + fold) * self._plan.epochs + epoch + 1
        left = (time.monotonic() - self._begin) / self._seen * (total - position)
        text = (
            f"fold {fold + 1}/{self._plan.folds}, seed {seed + 1}/{self._plan.seeds}, "
            f"epoch {epoch + 1}/{self._plan.epochs}, about {left:.0f} s left"
        )
        if sys.stderr.isatty():
            click.echo(f"\r{text}\033[K", nl=False, err=True)
        else:
            click.echo(text, err=True)

    def done(self):
        """End the line of the bar."""
        if sys.stderr.isatty():
            click.echo(err=True)


if __name__ == "__main__":
    main()
