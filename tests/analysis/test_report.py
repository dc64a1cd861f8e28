"""The report: its sections, its honesty, and that it stands alone."""

import re
from html.parser import HTMLParser

import pandas as pd
import pytest

from keras_spectral.analysis import compare_groups, report
from keras_spectral.analysis.html_report import SECTIONS
from keras_spectral.analysis.provenance import facts, records
from keras_spectral.analysis.report_pairs import natural_pairs, report_comparisons
from keras_spectral.errors import ComparisonError, LogError
from keras_spectral.log import SpectralLog

VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """Reads a page: section names, links to elsewhere, images, and whether tags close."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.resources, self.alts, self.open, self.tags = [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        self.ids += [attrs["id"]] if "id" in attrs else []
        self.resources += [attrs[name] for name in ("src", "href") if name in attrs]
        self.alts += [attrs.get("alt")] if tag == "img" else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture
def written(synthetic_log, tmp_path):
    """Return a function that writes a report and returns its text."""

    def write(log=None, **options):
        return report(log or synthetic_log(), tmp_path / "report.html", **options).read_text()

    return write


def test_a_report_has_its_sections_in_order(written, synthetic_log):
    provenance = {"coverage": [{"layer": "dense"}], "scores": [{"fold": 0, "auc": 0.7}]}
    page = Page(written(synthetic_log(n_permutations=19, provenance=provenance)))
    assert page.ids == list(SECTIONS)
    assert page.open == []


def test_a_report_stands_alone(written, synthetic_log):
    text = written(synthetic_log(n_permutations=19))
    page = Page(text)
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in page.resources)
    assert not {"script", "link", "iframe"} & set(page.tags)
    assert "url(" not in text
    assert "@import" not in text


def test_every_figure_has_an_alternative_text(written, synthetic_log):
    page = Page(written(synthetic_log(n_permutations=19)))
    assert len(page.alts) == 5  # two trajectories, spectra, two maps
    assert all(len(alt) > 40 for alt in page.alts)


def test_a_report_says_what_a_group_gradient_is_and_is_not(written):
    text = written()
    assert "part of the real training gradient" in text
    assert "not the gradient of a batch made of that group alone" in text
    assert "not independent observations" in text


def test_a_finding_is_highlighted(written, synthetic_log):
    text = written(synthetic_log(n_permutations=39, effect=4.0), sections=["findings"])
    assert re.search(r"\d+ of 6 tests stays? at or below 0.05", text)
    assert '<tr class="notable">' in text
    assert "39 permutations over subjects, sizes kept" in text


def test_no_finding_is_said_to_be_none(written, synthetic_log):
    text = written(synthetic_log(n_permutations=9, effect=4.0), sections=["findings"])
    assert "None of 6 tests stays at or below 0.05" in text
    assert "not evidence that the groups are alike" in text
    assert '<tr class="notable">' not in text


def test_without_permutations_nothing_is_called_a_finding(written):
    text = written(sections=["caution", "findings"])
    assert "the largest relative differences, not findings" in text
    assert "ks.permutations" in text
    assert "adjusted p</th>" not in text


def test_a_target_is_warned_of(written, synthetic_log):
    provenance = {"groups_are_target": ["HC", "SZ"]}
    text = written(synthetic_log(n_permutations=19, provenance=provenance))
    assert "trained to tell apart" in text
    assert "exact null permutes the target" in text


def test_rows_of_a_target_are_no_findings(written, synthetic_log):
    seen = synthetic_log(n_permutations=39, effect=9.0, provenance={"groups_are_target": ["HC"]})
    text = written(seen, sections=["findings"])
    assert "none of it is a finding" in text
    assert 'class="notable"' not in text
    assert 'class="notable"' in written(synthetic_log(n_permutations=39, effect=9.0))


@pytest.mark.parametrize("provenance", [{"simulated": True}, {"runs": {"a": {"simulated": True}}}])
def test_simulated_data_are_said_to_be(written, synthetic_log, provenance):
    assert "Simulated data." in written(synthetic_log(provenance=provenance))


def test_what_was_planted_in_simulated_data_is_told(written, synthetic_log):
    planted = "Site B varies more."
    assert f"Simulated data. {planted}" in written(synthetic_log(provenance={"simulated": planted}))


def test_groups_are_named_with_the_column_they_come_from(written, synthetic_log):
    page = written(synthetic_log(provenance={"group_columns": ["Class"]}))
    assert "for groups by Class (" in page


def test_figures_go_to_a_folder_and_never_to_a_file(synthetic_log, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"`figures_dir` must be a folder.*notes\.txt"):
        report(synthetic_log(), tmp_path / "r.html", figures_dir=tmp_path / "notes.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_measured_data_are_not_said_to_be_simulated(written):
    assert "Simulated" not in written()


def test_text_from_the_log_cannot_become_markup(written, synthetic_log):
    text = written(synthetic_log({"<b>x</b>": 9, "y & z": 9}), title="<script>alert(1)</script>")
    assert "script" not in Page(text).tags
    assert "&lt;b&gt;x&lt;/b&gt;" in text


def test_sections_can_be_chosen(written):
    page = Page(written(sections=["overview", "sizes"]))
    assert page.ids == ["overview", "sizes"]
    assert page.alts == []


def test_scores_and_coverage_of_runs_are_put_together(written, synthetic_log):
    logs = {
        f"fold={j}": synthetic_log(
            seed=j,
            provenance={
                "coverage": [{"layer": "lstm", "how": "no rule"}],
                "scores": [{"auc": 0.5 + j / 10}],
                "versions": {"keras": "3.15.0"},
            },
        )
        for j in range(2)
    }
    text = written(SpectralLog.concat(logs), sections=["coverage", "scores", "provenance"])
    assert text.count("no rule</td>") == 1
    assert "What all runs share." in text
    assert ">fold=1</td>" in text
    assert "0.6</td>" in text
    assert "versions.keras" in text


def test_facts_of_runs_are_those_that_all_share():
    provenance = {"runs": {"a": {"seed": 1, "v": {"k": "3"}}, "b": {"seed": 2, "v": {"k": "3"}}}}
    assert facts(provenance) == [("v.k", "3")]
    assert records(provenance, "scores") == []


def test_given_groups_are_compared(written, synthetic_log):
    log = synthetic_log({"A": 8, "B": 8, "C": 8})
    text = written(log, a="C", b="A", sections=["findings"])
    assert "<h3>C against A</h3>" in text
    assert text.count("<h3>") == 1


def test_a_given_comparison_is_shown(written, synthetic_log):
    log = synthetic_log({"A": 8, "B": 8, "C": 8})
    both = pd.concat([compare_groups(log, "A", "B"), compare_groups(log, "B", "C")])
    text = written(log, comparison=both, sections=["findings", "comparison"])
    assert re.findall(r"<h3>(.*)</h3>", text) == ["A against B", "B against C"]
    assert text.count("all 6 rows") == 2


def test_at_most_six_pairs_are_compared_and_the_others_named(written, synthetic_log):
    text = written(synthetic_log(dict.fromkeys("ABCDE", 4)), sections=["findings"])
    assert text.count("<h3>") == 6
    assert "D against E: only 6 pairs" in text


def test_only_groups_of_one_factor_are_paired():
    assert natural_pairs(["all", "sex=F", "dx=HC", "sex=M"]) == [("sex=F", "sex=M")]
    assert natural_pairs(["all", "x"]) == []


def test_a_pair_that_never_met_is_named(synthetic_log):
    log = synthetic_log(steps=(0, 1))
    apart = (log.rows["group"] == "all") | ((log.rows["group"] == "HC") == (log.rows["step"] == 0))
    pairs = report_comparisons(SpectralLog(log.rows[apart], log.sigma[apart]))
    assert not pairs.tables
    assert pairs.left_out[0].startswith("HC against SZ: Two groups must both be present")


def test_a_log_without_groups_has_a_report(written, synthetic_log):
    log = synthetic_log().select(group="all")
    assert "There are no two groups to compare" in written(log)


def test_figures_are_saved_as_png_too(written, synthetic_log, tmp_path):
    folder = tmp_path / "a" / "figures"
    log = synthetic_log({"sex=F": 9, "sex=M": 9}, n_permutations=19)
    written(log, figures_dir=folder)
    names = sorted(path.name for path in folder.iterdir())
    assert names == [
        "spectra_gradient.png",
        "trajectories_gradient_effective_rank.png",
        "trajectories_gradient_spectral_norm.png",
        "z_map_sex_F_sex_M_effective_rank.png",
        "z_map_sex_F_sex_M_spectral_norm.png",
    ]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in folder.iterdir())


def test_a_report_replaces_an_older_one_and_leaves_no_parts(written, tmp_path):
    (tmp_path / "report.html").write_text("old")
    assert "old" not in written(sections=["overview"])[:10]
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize(
    ("name", "error"),
    [("nowhere/report.html", FileNotFoundError), ("", IsADirectoryError)],
)
def test_a_path_that_cannot_be_written_raises_before_any_work(tmp_path, name, error):
    with pytest.raises(error, match="`path` must be"):
        report(None, tmp_path / name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"a": "HC"}, "must be given together"),
        ({"a": "HC", "b": "BP"}, "must be groups of the log"),
        ({"sections": ["overveiw"]}, "`sections` must be"),
        ({"sections": "overview"}, "`sections` must be"),
        ({"comparison": pd.DataFrame()}, "must be a result of `compare_groups`"),
    ],
)
def test_wrong_arguments_raise(written, options, message):
    with pytest.raises(ComparisonError, match=message):
        written(**options)


def test_an_empty_log_has_no_report(tmp_path):
    with pytest.raises(LogError, match="must hold spectra"):
        report(SpectralLog(), tmp_path / "report.html")
