"""`keras-spectral run`: its options, and what they ask for."""

import ast
import contextlib
import dataclasses

import click

from keras_spectral.cli.options import COUNT, FILE, Interval
from keras_spectral.cli.reporting import train_and_report
from keras_spectral.cli.settings import settings_text, take_settings
from keras_spectral.settings import QUANTITIES


@click.command()
@click.option(
    "--settings",
    type=FILE,
    is_eager=True,
    expose_value=False,
    callback=take_settings,
    help="TOML file of the options below, as a run writes it; options given here override it.",
)
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
    metavar="NAME=VALUE",
    help="Argument of the model's function, such as units=64; may be given several times.",
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
    "--permutations",
    default=99,
    type=click.IntRange(min=0),
    show_default=True,
    help="Permutations of the groups over subjects: the null distribution. 0: no p-values.",
)
@click.option(
    "--every",
    default="auto",
    type=Interval(),
    metavar="N|auto",
    show_default=True,
    help="Training steps between two recorded steps. auto: the fewest by which recording takes at "
    "most a tenth of the time of training, found by the first fold before the others start.",
)
@click.option(
    "--layers",
    multiple=True,
    metavar="PATTERN",
    help="Layers to record, such as 'conv_*'; may be given several times  [default: all]",
)
@click.option(
    "--quantities",
    multiple=True,
    type=click.Choice(QUANTITIES),
    default=QUANTITIES,
    help="Matrices to record; may be given several times  [default: all three]",
)
@click.option(
    "--probe-every",
    type=COUNT,
    help="Epochs between two evaluations of the whole training fold  "
    "[default: at most 40 evaluations, 6 if --model is not mlp]",
)
@click.option(
    "--permute-target",
    default=0,
    type=click.IntRange(min=0),
    show_default=True,
    metavar="N",
    help="Repeat everything N times with the target permuted over subjects: the exact null "
    "distribution where --groups are the target. Takes N times as long.",
)
@click.option("--balanced", is_flag=True, help="Give classes equal weight in the loss.")
@click.option(
    "--patience",
    type=COUNT,
    help="Epochs without a lower loss on held-out subjects after which training stops  "
    "[default: no early stopping]",
)
@click.option(
    "--where",
    multiple=True,
    metavar="COLUMN=VALUE",
    help="Subjects to keep; may be given several times.",
)
@click.option(
    "--space",
    type=click.Choice(("world", "centre")),
    default="world",
    show_default=True,
    help="How volumes are aligned: by the coordinates of their affines, or by their centres.",
)
@click.option(
    "--stratify", help="Column whose labels all folds should have in equal shares, such as site."
)
@click.option(
    "--within",
    help="Column, such as the diagnosis, within whose labels groups are permuted: its association "
    "with --groups is not tested.",
)
@click.option(
    "--jobs", default=1, type=COUNT, show_default=True, help="Folds to train at the same time."
)
@click.option(
    "--cluster",
    metavar="ADDRESS",
    help="Address of a Dask scheduler whose workers train the folds. They must share --out.",
)
@click.option("--inner-join", is_flag=True, help="Keep the subjects that all tables have.")
@click.option("--overwrite", is_flag=True, help="Replace a former run in --out.")
@click.option("--resume", is_flag=True, help="Continue an interrupted run in --out.")
@click.pass_context
def run(context, **given):
    """Train a classifier, cross-validated; compare and report its groups."""
    from keras_spectral.experiment.folder import require_usable
    from keras_spectral.experiment.study import Plan

    require_usable(given["out"], given["overwrite"], given["resume"])
    settings = settings_text(context.command, given)
    given |= {
        "options": _model_options(given["options"]),
        "where": _entries(given["where"], "--where"),
    }
    plan = {field.name: given[field.name] for field in dataclasses.fields(Plan)}
    subjects = _subjects(given, plan["model"])
    about = {
        "features": [str(path) for path in given["features"]] or str(given["data"]),
        "labels": str(given["labels"]),
        "target": given["target"],
        "group_columns": list(given["groups"]),
    }
    how = {name: given[name] for name in ("overwrite", "resume", "jobs", "cluster")}
    how["settings"] = settings
    columns = {name: given[name] for name in ("groups", "stratify", "within")}
    train_and_report(subjects, columns, given["out"], plan, about, how)


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


def _entries(values, name):
    """Return the `column=value` texts of an option as a dictionary of lists."""
    entries = {}
    for value in values:
        column, mark, text = value.partition("=")
        if not mark:
            raise click.BadParameter(f"must be NAME=VALUE. Received: {value!r}.", param_hint=name)
        entries.setdefault(column.strip(), []).append(text.strip())
    return entries


def _model_options(values):
    """Return `name=value` texts as a dictionary of numbers, tuples of numbers, or text."""
    options = {name: given[-1] for name, given in _entries(values, "--option").items()}
    for name, text in options.items():
        with contextlib.suppress(ValueError, SyntaxError):
            options[name] = ast.literal_eval(text)
    return options
