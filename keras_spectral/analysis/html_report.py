"""The report of a log: one HTML page with figures, tables, and the limits of what they show."""

import base64
import io
from datetime import datetime
from importlib import resources
from pathlib import Path

from jinja2 import Environment

from keras_spectral import __version__
from keras_spectral.analysis.nulls import target_labels
from keras_spectral.analysis.report_content import (
    cards,
    cautions,
    findings,
    simulated,
    story,
    target_caution,
)
from keras_spectral.analysis.report_figures import report_figures
from keras_spectral.analysis.report_pairs import report_comparisons
from keras_spectral.analysis.report_tables import (
    coverage_table,
    facts_table,
    full_tables,
    provenance_json,
    scores_table,
    sizes_table,
)
from keras_spectral.errors import ComparisonError, LogError
from keras_spectral.log.files import write_text

SECTIONS = (
    "overview",
    "caution",
    "findings",
    "figures",
    "sizes",
    "comparison",
    "coverage",
    "scores",
    "provenance",
)
"""The sections of a report, in order."""
DPI = 130


def report(
    log, path, comparison=None, a=None, b=None, title=None, sections=SECTIONS, figures_dir=None
):
    """Write a report of a log as one self-contained HTML file.

    The page states what was recorded and what may be concluded from it, and holds the comparison of
    groups, figures, and provenance. It needs no network and no scripts, and can be printed.

    Args:
        log: A `SpectralLog`.
        path: HTML file to write, in an existing folder; an old file is replaced atomically.
        comparison: Result of `compare_groups`, or several of them concatenated. `None` compares
            `a` with `b`; without these, all pairs of groups of the same factor, at most 6.
        a: Group label.
        b: Another group label.
        title: Title of the page.
        sections: Which of `SECTIONS` to write.
        figures_dir: Folder in which to save the figures as PNG files too; made if missing.

    Returns:
        The path written.

    Raises:
        OSError: If the folder of `path` does not exist or `path` is a folder: before any work.
        ComparisonError: If `a` and `b` cannot be compared, or a section is unknown.
        LogError: If the log is empty.

    Example:
        >>> report(log, "report.html", a="SZ", b="HC")  # doctest: +SKIP
    """
    path = Path(path)
    _require_writable(path)
    _require_sections(sections)
    _require_pair(a, b)
    _require_spectra(log)
    if figures_dir is not None:
        _require_folder(Path(figures_dir))
    pairs = report_comparisons(log, comparison, a, b)
    figures = report_figures(log, pairs) if "figures" in sections or figures_dir else []
    images = {figure.name: _png(figure.figure) for figure in figures}
    if figures_dir is not None:
        _save(images, Path(figures_dir))
    write_text(_page(log, pairs, figures, images, title, sections), path)
    return path


def _page(log, pairs, figures, images, title, sections):
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(
        resources.files("keras_spectral.analysis").joinpath("report.html.j2").read_text("utf-8")
    )
    return template.render(
        title=title or "How groups taught the network",
        date=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        version=__version__,
        sections=sections,
        cards=cards(log),
        story=story(log),
        simulated=simulated(log),
        target=target_caution(log),
        cautions=cautions(log, pairs),
        pairs=pairs,
        findings=[
            findings(table, bool(target_labels(log, *names)))
            for table, names in zip(pairs.tables, pairs.names, strict=True)
        ],
        figures=figures,
        images={name: base64.b64encode(image).decode("ascii") for name, image in images.items()},
        sizes=sizes_table(log),
        tables=full_tables(pairs),
        coverage=coverage_table(log),
        scores=scores_table(log),
        facts=facts_table(log),
        several_runs=len(log.runs) > 1,
        provenance=provenance_json(log),
    )


def _png(figure):
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=DPI, metadata={"Software": None})
    return image.getvalue()


def _save(images, folder):
    for name, image in images.items():
        (folder / f"{name}.png").write_bytes(image)


def _require_folder(path):
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise type(error)(
            f"`figures_dir` must be a folder, or a name for a new one. Received: {path}: "
            f"{error.strerror}. Try another name."
        ) from error


def _require_writable(path):
    if path.is_dir():
        raise IsADirectoryError(
            f"`path` must be a file to write. Received: {path}, which is a folder. "
            f"Try {str(path / 'report.html')!r}."
        )
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"`path` must be in an existing folder. Received: {path}, whose folder does not "
            f"exist. Try `mkdir -p {path.parent}` first."
        )
    try:
        part = path.with_name(path.name + ".part")
        part.touch()
        part.unlink()
    except OSError as error:
        raise type(error)(
            f"`path` must be in a folder that can be written to. Received: {path}: "
            f"{error.strerror}. Try another folder."
        ) from error


def _require_sections(sections):
    unknown = [section for section in sections if section not in SECTIONS]
    if isinstance(sections, str) or unknown:
        raise ComparisonError(
            f"`sections` must be a list of names among {list(SECTIONS)}. "
            f"Received: sections={sections!r}."
        )


def _require_pair(a, b):
    if (a is None) != (b is None):
        raise ComparisonError(
            f"`a` and `b` must be given together. Received: a={a!r}, b={b!r}. "
            "Try naming the second group too."
        )


def _require_spectra(log):
    if not len(log):
        raise LogError(
            "`log` must hold spectra to be reported. Received: an empty log. "
            "Try `model.fit(…, groups=…)` first."
        )
