"""`keras-spectral demo`: everything on simulated data."""

import click

from keras_spectral.cli.options import FILE
from keras_spectral.cli.reporting import train_and_report

PLANTED = "90 subjects, 378 connectivity values; the 40 subjects of site B vary more."


@click.command()
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
    how = {"overwrite": None, "resume": False, "jobs": 1, "cluster": None, "settings": None}
    columns = {"groups": ["site"], "stratify": None, "within": None}
    train_and_report(subjects, columns, out, plan, about, how)
