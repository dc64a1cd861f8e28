"""What `run` and `demo` do: train, compare, report."""

import contextlib

import click

from keras_spectral.cli.logs import show_comparison
from keras_spectral.cli.settings import SETTINGS_FILE


def train_and_report(subjects, columns, out, plan, about, how):
    """Train a study, compare its groups, and say what was found.

    Args:
        subjects: `Subjects`.
        columns: Dictionary of the columns of the phenotype: `groups`, `stratify`, `within`.
        out: Folder to write.
        plan: Dictionary of the fields of `Plan`.
        about: Dictionary for the provenance.
        how: Dictionary: `overwrite` (`None` replaces a simulated run only), `resume`, `jobs`,
            `cluster`, `settings`.

    Raises:
        ClickException: If training is interrupted.
    """
    from keras_spectral.neuro.targets import group_columns

    x, y, phenotype = subjects
    groups = group_columns(phenotype, list(columns["groups"]))
    strata = {
        name: group_columns(phenotype, [columns[name]], name).iloc[:, 0]
        for name in ("stratify", "within")
        if columns[name] is not None
    }
    if "within" in strata:
        about["permuted_within"] = columns["within"]
    from keras_spectral.experiment.quiet import load_tensorflow

    load_tensorflow()
    from keras_spectral.cli.progress import Progress
    from keras_spectral.experiment import run as experiment
    from keras_spectral.experiment.folder import former_run
    from keras_spectral.experiment.study import Plan, Study
    from keras_spectral.log.files import write_text

    classes = phenotype.attrs["classes"]
    study = Study(
        x.to_numpy() if hasattr(x, "to_numpy") else x,
        y,
        classes,
        groups if len(groups.columns) > 1 else groups.iloc[:, 0],
        {**about, "tables": phenotype.attrs["report"], "classes": list(classes)},
        **strata,
    )
    plan = Plan(**plan)
    overwrite = how["overwrite"]
    if overwrite is None:  # a demo replaces a former demo only
        overwrite = bool(former_run(out).get("simulated"))
    folder = experiment.prepared_folder(out, study, plan, overwrite, how["resume"])
    if how["settings"]:
        write_text(how["settings"], folder / SETTINGS_FILE)
    jobs = -1 if how["cluster"] else how["jobs"]
    try:
        with _workers(how["cluster"]), Progress(plan) as progress:
            scores, probe = experiment.cross_validated(
                study, plan, folder, progress, jobs, apart=how["cluster"] is not None
            )
    except KeyboardInterrupt:
        done = len([f for f in folder.glob("fold_*") if not f.suffix])
        raise click.ClickException(
            f"Stopped. {done} of {plan.folds * plan.seeds} folds are finished and kept in "
            f"{folder}; the same command with --resume goes on."
        ) from None
    if "recorded_steps" in probe.provenance:
        click.echo(f"Recorded: {probe.provenance['recorded_steps']}.")
    click.echo(scores.to_string(index=False, float_format=lambda value: f"{value:.3f}"))
    click.echo(
        f"mean test AUC {scores['auc'].mean():.3f}, accuracy {scores['accuracy'].mean():.3f}"
    )
    if "score_test" in probe.provenance:
        click.echo(
            "with permuted targets: mean test AUC {permuted_mean_auc:.3f}, p {p:.3g}".format(
                **probe.provenance["score_test"]
            )
        )
    _written(experiment.findings(probe, folder, study), folder)


def _written(pairs, folder):
    if not pairs.tables:
        click.echo("Nothing was compared: that takes two groups of one column.")
    for table in pairs.tables:
        show_comparison(table, rows=5)
    for text in pairs.left_out:
        click.echo(f"Not compared: {text}.")
    click.echo(f"Tables, figures, models: {folder}")
    click.echo(f"Report: {folder / 'report.html'}")


@contextlib.contextmanager
def _workers(address):
    """Run joblib's tasks on the workers of a Dask cluster, if there is an address."""
    if address is None:
        yield
        return
    import joblib

    try:
        from distributed import Client
    except ImportError as error:
        raise click.ClickException(
            "`--cluster` needs Dask. Try `pip install 'keras-spectral[cluster]'`."
        ) from error
    with Client(address) as client, joblib.parallel_config("dask"):
        if not client.nthreads():
            raise click.ClickException(
                "`--cluster` must have workers. "
                f"Received: {address}, without any. Try `dask worker {address}`."
            )
        yield
