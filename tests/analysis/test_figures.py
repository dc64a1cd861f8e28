"""Figures, by the artists in them."""

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from keras_spectral.analysis import figures
from keras_spectral.analysis.figures.styles import COLOURS, styles
from keras_spectral.analysis.labels import series_names
from keras_spectral.errors import ComparisonError, LogError
from keras_spectral.log import SpectralLog
from keras_spectral.summaries import size_correction

EIGHT = dict.fromkeys("ABCDEFGH", 5)


def drawn(figure):
    """Return a figure after everything in it was laid out and drawn."""
    figure.canvas.draw()
    return figure


def means(axis):
    """Return the lines of group means, by group."""
    return {line.get_label(): line for line in axis.lines if not line.get_label().startswith("_")}


def legend_texts(figure):
    """Return the entries of the figure's legend."""
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_each_weight_has_a_panel_and_each_group_a_line(synthetic_log):
    log = synthetic_log(layers=("dense", "logits"))
    figure = drawn(figures.trajectories(log))
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["dense", "logits"]
    assert all(list(means(axis)) == ["HC", "SZ"] for axis in figure.axes)
    assert legend_texts(figure) == ["HC", "SZ"]
    assert figure.get_suptitle() == "Largest singular value of the gradient"
    assert figure.get_supylabel() == "largest singular value\n× n / n_g (size-corrected)"
    assert all(axis.get_xlabel() == "step" for axis in figure.axes)


def test_a_line_shows_the_size_corrected_singular_value(synthetic_log):
    log = synthetic_log(steps=(0, 1, 2))
    line = means(figures.trajectories(log).axes[0])["SZ"]
    expected = [log.singular_values("dense", group="SZ", step=s)[0] for s in (0, 1, 2)]
    np.testing.assert_array_equal(line.get_xdata(), [0, 1, 2])
    np.testing.assert_allclose(line.get_ydata(), np.array(expected) * 34 / 14)


def test_a_line_can_show_what_was_recorded(synthetic_log):
    log = synthetic_log(steps=(0, 1))
    figure = figures.trajectories(log, size_corrected=False)
    expected = [log.singular_values("dense", group="SZ", step=s)[0] for s in (0, 1)]
    np.testing.assert_allclose(means(figure.axes[0])["SZ"].get_ydata(), expected)
    assert "(raw)" in figure.get_supylabel()


def test_the_mean_is_over_runs_at_the_steps_that_all_have(synthetic_log):
    a, b = synthetic_log(steps=(0, 1, 2), seed=1), synthetic_log(steps=(1, 2, 3), seed=2)
    log = SpectralLog.concat({"a": a, "b": b})
    figure = figures.trajectories(log, summary="effective_rank")
    line = means(figure.axes[0])["HC"]
    table = log.select(group="HC", step=[1, 2]).summary("effective_rank")
    np.testing.assert_array_equal(line.get_xdata(), [1, 2])
    np.testing.assert_allclose(line.get_ydata(), table.groupby("step")["effective_rank"].mean())
    assert len(figure.axes[0].lines) == 2 + 2 * 2
    assert "single runs" in legend_texts(figure)


def test_several_singular_values_are_drawn_paler(synthetic_log):
    axis = figures.trajectories(synthetic_log(), groups="SZ", k=3).axes[0]
    assert len(axis.lines) == 3
    opacity = [line.get_alpha() for line in axis.lines]
    assert opacity == sorted(opacity, reverse=True)
    assert len(set(opacity)) == 3


def test_bands_hold_95_percent_of_permuted_groups(synthetic_log):
    log = synthetic_log(n_permutations=40, steps=(0, 1))
    figure = figures.trajectories(log, summary="stable_rank", groups=["HC"])
    (band,) = figure.axes[0].collections
    heights = band.get_paths()[0].vertices[:, 1]
    table = log.permutations.query("group == 'HC' and step == 0")["stable_rank"]
    for quantile in table.quantile([0.025, 0.975]):
        assert np.isclose(heights, quantile).any()
    assert legend_texts(figure)[-1] == "95 % of permuted groups"


def test_many_groups_share_one_band(synthetic_log):
    log = synthetic_log(EIGHT, n_permutations=19)
    figure = drawn(figures.trajectories(log))
    assert len(figure.axes[0].collections) == 1
    assert legend_texts(figure) == [*"ABCDEFGH", "95 % of permuted groups of all these sizes"]


def test_no_permutations_no_band(synthetic_log):
    figure = figures.trajectories(synthetic_log())
    assert not figure.axes[0].collections
    assert legend_texts(figure) == ["HC", "SZ"]


def test_a_single_step_is_drawn_as_one_dot_per_group(synthetic_log):
    figure = drawn(figures.trajectories(synthetic_log(n_permutations=19, steps=[7])))
    (axis,) = figure.axes
    assert [text.get_text() for text in axis.get_xticklabels()] == ["HC", "SZ"]
    assert axis.get_xlabel() == "group, at step 7"
    assert [line.get_xdata().tolist() for line in means(axis).values()] == [[0], [1]]
    assert len(axis.patches) == 2


def test_a_thousand_steps_are_thinned_and_say_so(synthetic_log):
    figure = drawn(figures.trajectories(synthetic_log(steps=range(1000))))
    assert len(means(figure.axes[0])["HC"].get_xdata()) == 120
    note = " ".join(figure.legends[0].get_title().get_text().split())
    assert "each point: mean of about 8 recorded steps" in note


def test_logarithmic_steps_get_a_logarithmic_axis(synthetic_log):
    axis = figures.trajectories(synthetic_log(steps=(0, 1, 2, 5, 10, 30, 100, 300))).axes[0]
    assert axis.get_xscale() == "symlog"
    assert figures.trajectories(synthetic_log(steps=range(8))).axes[0].get_xscale() == "linear"


def test_a_wide_range_gets_a_logarithmic_axis_with_plain_numbers(synthetic_log):
    figure = drawn(figures.trajectories(synthetic_log(steps=range(0, 400, 40)), groups="SZ"))
    (axis,) = figure.axes
    assert axis.get_yscale() == "log"
    assert {"0.1", "0.01"} & {text.get_text() for text in axis.get_yticklabels()}


def test_rounding_is_drawn_as_the_flat_line_it_is(synthetic_log):
    log = synthetic_log()
    noise = np.random.default_rng(0).normal(scale=1e-7, size=(len(log), 1))
    log = SpectralLog(log.rows.assign(frobenius_norm=1.0), 1 + noise)
    axis = drawn(figures.trajectories(log, size_corrected=False)).axes[0]
    assert np.ptp(axis.get_ylim()) == pytest.approx(0.2, rel=0.01)
    assert not axis.yaxis.get_offset_text().get_text()


def test_a_deep_model_shows_twelve_weights_and_says_so(synthetic_log):
    log = synthetic_log(layers=[f"conv_{j}" for j in range(20)], steps=(0, 1))
    figure = figures.trajectories(log)
    titles = [axis.get_title(loc="left") for axis in figure.axes]
    assert len(titles) == 12
    assert titles[0] == "conv_0"
    assert titles[-1] == "conv_19"
    assert "12 of 20 weights shown" in figure.legends[0].get_title().get_text()
    assert len(figures.trajectories(log, layers=["conv_1", "conv_3"]).axes) == 2


def test_long_names_stay_distinct_and_inside_their_panel(synthetic_log):
    layers = [
        f"encoder/block_{j}/attention/{word}_dense" for j in range(4) for word in ("query", "key")
    ]
    figure = drawn(figures.trajectories(synthetic_log(layers=layers, steps=(0, 1))))
    titles = [axis.get_title(loc="left") for axis in figure.axes]
    assert len(set(titles)) == len(layers)
    for axis in figure.axes:
        assert axis._left_title.get_window_extent().x1 <= figure.bbox.x1


def test_names_leave_out_a_shared_path_only_if_long():
    assert series_names([("a/x", "kernel"), ("a/y", "kernel")]) == ["a/x", "a/y"]
    long = [("encoder/block/query_dense", "kernel"), ("encoder/block/key_dense", "kernel")]
    assert series_names(long) == ["…/query_dense", "…/key_dense"]


def test_names_are_the_end_of_a_path_that_no_other_has():
    paths = ["text_encoder/block_1/query", "text_encoder/block_2/query", "output"]
    names = series_names([(path, "kernel") for path in paths])
    assert names == ["…/block_1/query", "…/block_2/query", "output"]


def test_the_cell_of_a_recurrent_layer_is_called_by_the_layer():
    weights = ("kernel", "recurrent_kernel")
    names = series_names([("bilstm/forward_lstm/lstm_cell", weight) for weight in weights])
    assert names == ["…/forward_lstm · kernel", "…/forward_lstm · recurrent_kernel"]
    with_both = [("a_layer_that_has_a_long_name/lstm_cell", w) for w in weights]
    assert series_names([*with_both, ("output", "kernel")])[0].startswith("a_layer_that")


def test_vectors_are_left_out_of_figures_of_ranks(synthetic_log):
    log = synthetic_log(layers=("conv", "normal"), steps=(0, 1))
    sigma = log.sigma.copy()
    sigma[(log.rows["layer"] == "normal").to_numpy(), 1:] = np.nan
    log = SpectralLog(log.rows, sigma)

    def titles(**options):
        return [a.get_title(loc="left") for a in figures.trajectories(log, **options).axes]

    assert titles(summary="effective_rank") == ["conv"]
    assert titles(summary="effective_rank", layers="normal") == ["normal"]
    assert titles(summary="frobenius_norm") == ["conv", "normal"]


def test_no_legend_is_wider_than_its_figure(synthetic_log):
    sizes = {f"a_rather_long_name_of_a_column={k}": 5 for k in "abcdef"}
    figure = drawn(figures.trajectories(synthetic_log(sizes, n_permutations=3)))
    box = figure.legends[0].get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.x1


def test_scale_and_title_of_a_map_with_long_names_are_not_cut_off(synthetic_log):
    groups = {"a_rather_long_name_of_a_column=first": 9, "a_rather_long_name_of_a_column=b": 9}
    figure = drawn(figures.z_map(synthetic_log(groups, n_permutations=9), *groups))
    for text in (figure.axes[1].yaxis.label, figure._suptitle):
        assert text.get_window_extent().x1 <= figure.bbox.x1


def test_no_value_at_all_is_said_in_words(synthetic_log):
    log = synthetic_log()
    short = SpectralLog(log.rows.assign(truncated=True), log.sigma[:, :1])
    figure = drawn(figures.trajectories(short, summary="effective_rank"))
    assert "truncated" in figure.texts[0].get_text()


@pytest.mark.parametrize(
    ("keys", "error", "message"),
    [
        ({"groups": "BP"}, LogError, "must be groups of the log"),
        ({"layers": "nowhere"}, LogError, "`layer` must occur"),
        ({"quantity": "weight"}, LogError, "`quantity` must occur"),
        ({"summary": "rank"}, ComparisonError, "must be among"),
    ],
)
def test_what_is_not_there_cannot_be_drawn(synthetic_log, keys, error, message):
    with pytest.raises(error, match=message):
        figures.trajectories(synthetic_log(), **keys)


def test_spectra_show_first_middle_and_last_step(synthetic_log):
    log = synthetic_log(layers=("dense", "logits"), steps=range(9))
    figure = drawn(figures.spectra(log))
    assert len(figure.axes) == 2 * 3
    assert [axis.get_title(loc="right") for axis in figure.axes[:3]] == [
        "step 0",
        "step 4",
        "step 8",
    ]
    line = means(figure.axes[1])["HC"]
    expected = log.singular_values("dense", group="HC", step=4)
    factor = size_correction(["gradient"], [20], [34], [20])
    np.testing.assert_allclose(line.get_ydata(), expected * factor)
    np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3, 4])
    assert figure.axes[0].get_yscale() == "log"


def test_spectra_of_chosen_steps(synthetic_log):
    figure = drawn(figures.spectra(synthetic_log(), steps=1, groups=["all", "SZ"]))
    assert len(figure.axes) == 1
    assert means(figure.axes[0])["all"].get_color() == "#000000"


def test_spectra_of_zeros_are_drawn_without_warnings(synthetic_log):
    log = synthetic_log()
    zero = SpectralLog(log.rows.assign(frobenius_norm=0.0), log.sigma * 0)
    figure = drawn(figures.spectra(zero))
    assert figure.axes[0].texts[0].get_text() == "nothing above zero"
    drawn(figures.trajectories(zero))


def test_spectra_of_an_unrecorded_step_raise(synthetic_log):
    with pytest.raises(LogError, match=r"must be recorded steps.*Try some of \[0, 1, 2\]"):
        figures.spectra(synthetic_log(), steps=[0, 99])


def test_the_map_has_a_row_per_weight_and_quantity(synthetic_log):
    quantities = ("activation", "gradient")
    log = synthetic_log(n_permutations=19, layers=("x", "y"), quantities=quantities, effect=4.0)
    figure = drawn(figures.z_map(log, "HC", "SZ", "frobenius_norm"))
    axis = figure.axes[0]
    (image,) = axis.images
    assert image.get_array().shape == (4, 3)
    labels = [text.get_text() for text in axis.get_yticklabels()]
    assert labels == ["x · activation", "x · gradient", "y · activation", "y · gradient"]
    marked = np.abs(image.get_array()) > 1.96
    assert len(axis.lines[0].get_xdata()) == marked.sum() > 0
    low, high = image.get_clim()
    assert low == -high
    assert figure.axes[1].get_ylabel() == "z above 0:\nhigher in HC"


def test_the_map_of_many_steps_is_not_marked(synthetic_log):
    log = synthetic_log(n_permutations=3, steps=range(70))
    figure = drawn(figures.z_map(log, "HC", "SZ"))
    assert not figure.axes[0].lines
    assert not figure.legends


def test_the_map_says_what_grey_is(synthetic_log):
    figure = drawn(figures.z_map(synthetic_log(n_permutations=9), "HC", "SZ"))
    assert "no spread, or not recorded" not in legend_texts(figure)
    log = synthetic_log(n_permutations=9)
    table = log.permutations
    table.loc[table["step"] == 1, "effective_rank"] = 2.0
    figure = drawn(figures.z_map(log, "HC", "SZ"))
    assert figure.axes[0].images[0].get_array().mask.tolist() == [[False, True, False]]
    assert "no spread, or not recorded" in legend_texts(figure)


def test_the_map_without_permutations_says_so(synthetic_log):
    figure = drawn(figures.z_map(synthetic_log(), "HC", "SZ"))
    assert not figure.axes
    assert "no permutations were recorded" in figure.texts[0].get_text()


def test_eight_groups_differ_in_colour_dash_and_marker():
    chosen = styles([*EIGHT, "all"])
    for attribute in ("colour", "dash", "marker"):
        assert len({getattr(style, attribute) for style in chosen.values()}) == 9, attribute


def test_every_colour_stands_out_from_white():
    def luminance(colour):
        channels = [
            c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)
        ]
        return np.dot([0.2126, 0.7152, 0.0722], channels)

    assert all(1.05 / (luminance(colour) + 0.05) > 2 for colour in COLOURS)


def test_a_group_keeps_its_look_when_drawn_alone(synthetic_log):
    log = synthetic_log(EIGHT)
    together = means(figures.trajectories(log).axes[0])["F"]
    alone = means(figures.trajectories(log, groups="F").axes[0])["F"]
    assert together.get_color() == alone.get_color()


def test_figures_are_plain_objects_and_change_no_global_setting(synthetic_log):
    before = dict(mpl.rcParams)
    log = synthetic_log(n_permutations=19)
    drawings = [figures.trajectories(log), figures.spectra(log), figures.z_map(log, "HC", "SZ")]
    assert all(type(figure) is Figure for figure in map(drawn, drawings))
    assert dict(mpl.rcParams) == before
