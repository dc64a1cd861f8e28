"""`keras-spectral compare` and `report`: analysis of a log."""

import click

from keras_spectral.cli.options import COUNT, FILE


@click.command()
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
    show_comparison(table, rows)
    if out is not None:
        table.to_csv(out, index=False)
        click.echo(f"{len(table)} rows: {out}")


@click.command()
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
            "Try the command that started it, with --resume."
        )
    return log


def _require_other_file(out, log):
    if out is not None and out.exists() and log.exists() and out.samefile(log):
        raise click.ClickException(
            f"`--out` must be another file than the log. Received: {out}, which it would replace."
        )


def show_comparison(table, rows):
    """Print the rows of a comparison with the smallest p-values, and the null it used.

    Args:
        table: Result of `compare_groups`.
        rows: Number of rows.
    """
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
