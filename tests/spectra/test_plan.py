"""Plans: each spectrum is found once, by the method that costs least."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_spectral.matrices.factors import Factors, WeightMatrices
from keras_spectral.matrices.gates import Gates
from keras_spectral.matrices.one_hot import OneHot
from keras_spectral.matrices.patches import Patches
from keras_spectral.settings import QUANTITIES, Spectra
from keras_spectral.spectra import feature_gram, row_gram, subspace, svd
from keras_spectral.spectra.batching import Batching
from keras_spectral.spectra.feature_gram import FeatureGram, FeatureGramByExample, GramOfEach
from keras_spectral.spectra.method import Sizes
from keras_spectral.spectra.plan import plan_for, sizes_of
from keras_spectral.spectra.row_gram import RowGram
from keras_spectral.spectra.subspace import OVERSAMPLING, Subspace
from keras_spectral.spectra.svd import Svd
from tests.spectra.forcing import forced, step_of

TWO_GROUPS = (32, 16.0, 16.0)
MANY_GROUPS = (32, *[16.0] * 60)


def product(n=32, s=1, i=8, o=8, dtype="float32"):
    return Factors(tf.zeros([n, s, i], dtype), tf.zeros([n, s, o], dtype))


def planned(factors, examples=TWO_GROUPS, **how):
    named = {("layer", str(j)): WeightMatrices(each) for j, each in enumerate(factors)}
    return plan_for(named, Spectra(**how), examples)


def methods_of(factors, examples=TWO_GROUPS, **how):
    return [choice.method for choice in planned([factors], examples, **how).choices]


# --- each method where it is the cheapest ---


def test_few_rows_of_many_features_go_by_rows():
    assert methods_of(product(s=1, i=400, o=300)) == ["row_gram"] * 3


def test_many_rows_of_few_features_go_by_features():
    assert methods_of(product(n=32, s=500, i=100, o=90)) == ["feature_gram"] * 3


def test_groups_of_few_rows_of_a_large_matrix_take_the_side_of_each():
    examples = (512, *[16.0] * 32)
    chosen = methods_of(product(n=512, s=3, i=1000, o=1000), examples)
    assert chosen[:2] == ["gram_of_each", "gram_of_each"]


def test_a_subspace_is_followed_only_where_it_is_cheaper():
    how = {"method": "subspace", "top_k": 16}
    wide = planned([product(s=30, i=900, o=600)], **how)
    assert [type(method) for method in wide.methods] == [Subspace]
    assert wide.methods[0].columns == 16 + OVERSAMPLING
    assert wide.methods[0].wanted == tuple((("layer", "0"), q) for q in QUANTITIES)
    assert not wide.is_exact
    for others in (product(s=1, i=900, o=600), product(s=30, i=40, o=20)):
        assert "subspace" not in methods_of(others, **how)
        assert planned([others], **how).is_exact


@pytest.mark.parametrize("method", ["auto", "gram"])
def test_no_subspace_is_followed_unless_it_was_asked_for(method):
    assert "subspace" not in methods_of(product(s=30, i=900, o=600), method=method, top_k=16)


def test_products_with_all_bases_at_once_stay_small():
    for s, groups, follows in ((30, 99, True), (3000, 2, True), (3000, 99, False)):
        sizes = Sizes((32, *[16.0] * groups), s, 900)
        assert np.isfinite(subspace.cost(sizes, 24)) == follows


def test_float64_data_goes_by_svd_unless_grams_were_asked_for():
    for factors in (product(dtype="float64"), product(s=30, i=900, dtype="float64")):
        assert methods_of(factors) == ["svd"] * 3
        assert "svd" not in methods_of(factors, method="gram")


def test_svd_is_taken_where_it_was_asked_for():
    assert methods_of(product(), method="svd") == ["svd"] * 3


def test_one_hot_spectra_are_known():
    factors = Factors(OneHot(tf.zeros([32, 5], tf.int32), 1000), tf.zeros([32, 5, 16]))
    for method in ("auto", "gram", "svd"):
        chosen = planned([factors], method=method)
        assert chosen.choices[0].method == "svd"
        assert "known" in chosen.choices[0].reason
        assert chosen.choices[0].cost == 32 * 5
    assert methods_of(factors, quantities=("gradient",)) == ["feature_gram"]  # no row is paired


@settings(max_examples=100, deadline=None)
@given(
    s=st.sampled_from([1, 2, 30, 1000]),
    i=st.sampled_from([1, 10, 100, 2000]),
    o=st.sampled_from([1, 10, 100, 2000]),
    groups=st.sampled_from([0, 1, 2, 20, 100]),
    top_k=st.sampled_from([None, 1, 16]),
)
def test_nothing_cheaper_is_left_out(s, i, o, groups, top_k):
    examples = (32, *[10.0] * groups)
    how = {"method": "subspace" if top_k else "gram", "top_k": top_k}
    with pytest.MonkeyPatch.context() as patch:
        # Of shapes alone: nothing so large is made.
        a, d = (Shaped(32, s, width) for width in (i, o))
        patch.setattr(WeightMatrices, "activation", a)
        patch.setattr(WeightMatrices, "adjoint", d)
        patch.setattr(WeightMatrices, "gradient_shape", (i, o))
        choices = planned([product()], examples, **how).choices
    factors = [Sizes(examples, s, width) for width in (i, o)]
    for choice, sizes in zip(choices, [*factors, Sizes(examples, s, i, o)], strict=True):
        costs = {"feature_gram": feature_gram.cost(sizes)}
        if choice.quantity != "gradient":
            costs["row_gram"] = row_gram.cost(sizes)
            costs["gram_of_each"] = feature_gram.cost_of_each(sizes)
        elif all(row_gram.cost(own) <= feature_gram.cost(own) for own in factors):
            costs["row_gram"] = row_gram.cost_of_gradient(sizes)
        if top_k:
            costs["subspace"] = subspace.cost(sizes, top_k + OVERSAMPLING)
        assert choice.cost == costs[choice.method] == min(costs.values())
        assert svd.cost(sizes) > 0


class Shaped:
    """A matrix of which there are sizes only."""

    n_blocks, adds_up = 1, True

    def __init__(self, n, positions, width):
        self.n, self.positions, self.width = n, positions, width


def test_reasons_say_what_the_next_best_would_take():
    choice = planned([product(i=400, o=300)]).choices[0]
    assert choice.reason.startswith("32 x 400: ")
    assert "times as long" in choice.reason


# --- a plan finds every spectrum once ---

FORMS = {
    "product": product(s=3),
    "one row": product(),
    "wide": product(i=900, o=600),
    "other rows": product(s=40, i=900, o=600),
    "patches": Factors(
        Patches((tf.zeros([32, 9, 4]),), (3,), (1,), (1,), "same", 1), tf.zeros([32, 9, 5])
    ),
    "grouped patches": Factors(
        Patches((tf.zeros([32, 9, 4]),), (3,), (1,), (1,), "same", 2), tf.zeros([32, 9, 6])
    ),
    "embedding": Factors(OneHot(tf.zeros([32, 5], tf.int32), 10), tf.zeros([32, 5, 8])),
    "gates": Factors(Gates(tf.zeros([32, 5, 8]), (3, 3)), tf.zeros([32, 5, 6])),
    "by example": Factors(tf.zeros([32, 1, 4]), tf.zeros([32, 1, 4]), tf.zeros([32, 4, 4])),
    "vector": Factors(None, None, tf.zeros([32, 1, 7])),
    "float64": product(dtype="float64"),
}


@settings(max_examples=150, deadline=None)
@given(
    names=st.lists(st.sampled_from(list(FORMS)), min_size=1, max_size=6),
    quantities=st.sets(st.sampled_from(QUANTITIES), min_size=1),
    examples=st.sampled_from([(32,), TWO_GROUPS, MANY_GROUPS]),
    method=st.sampled_from(["auto", "gram", "svd", "subspace"]),
)
def test_every_spectrum_is_found_exactly_once(names, quantities, examples, method):
    factors = [FORMS[name] for name in names]
    found = planned(factors, examples, quantities=tuple(quantities), method=method, top_k=4)
    wanted = [
        (("layer", str(j)), quantity)
        for j, each in enumerate(factors)
        for quantity in QUANTITIES
        if quantity in quantities and quantity in each.recorded
    ]
    assert [(choice.weight, choice.quantity) for choice in found.choices] == wanted
    assert [(series.weight, series.quantity) for series in found.series] == wanted
    solved = [name for method in found.methods for name in method.wanted]
    assert sorted(solved) == sorted(wanted)
    kinds = {
        "row_gram": RowGram,
        "gram_of_each": GramOfEach,
        "svd": Svd,
        "subspace": Subspace,
        "feature_gram": (FeatureGram, FeatureGramByExample),
    }
    for choice in found.choices:
        (own,) = (m for m in found.methods if (choice.weight, choice.quantity) in m.wanted)
        assert isinstance(own, kinds[choice.method])
    costs = [method.cost for method in found.methods]
    assert costs == sorted(costs, reverse=True)
    total = sum(choice.cost for choice in found.choices)
    assert found.cost == total
    assert sum(costs) == pytest.approx(total)
    assert found.top_k == 4
    assert found.is_exact == (not any(c.method == "subspace" for c in found.choices))


@pytest.mark.parametrize("name", FORMS)
def test_series_say_what_bounds_each_rank(name):
    matrices = WeightMatrices(FORMS[name])
    for series in planned([FORMS[name]]).series:
        assert series.width == matrices.width(series.quantity)
        assert series.positions == matrices.positions(series.quantity)
        bounded = series.quantity != "gradient" or matrices.bounded_by_rows
        assert series.bounded_by_rows == bounded


def test_matrices_of_equal_positions_share_their_rows():
    with forced("row_gram, wide"):
        found = planned([product(), product(i=5), product(s=2)])
    assert sorted(method.positions for method in found.methods) == [1, 2]
    for method in found.methods:
        assert len(set(method.factors)) == len(method.factors)
        assert {name for name in method.wanted if name[1] != "gradient"} == set(method.factors)


def test_a_gradient_alone_takes_both_factors():
    (method,) = planned([product(i=400, o=300)], quantities=("gradient",)).methods
    assert isinstance(method, RowGram)
    assert method.wanted == ((("layer", "0"), "gradient"),)
    assert method.factors == ((("layer", "0"), "activation"), (("layer", "0"), "adjoint"))


def test_thin_factors_are_kept_as_they_are():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_gram, "cost", lambda sizes: 1.0)
        (method,) = planned([product(i=3, o=300)], quantities=("gradient",)).methods
    assert isinstance(method, RowGram)
    assert method.thin == (3, 0)


@pytest.mark.parametrize(("cores", "parts"), [(1, 1), (4, 15)])
def test_matrices_of_one_width_go_together_as_far_as_threads_go(cores, parts, threads):
    threads(cores)
    with forced("feature_gram"):
        found = planned([product(s=3, i=8, o=8)] * 5)
    assert len(found.methods) == parts
    assert sum(len(method.wanted) for method in found.methods) == 15


def test_groups_that_outnumber_examples_are_added_up_from_parts():
    with forced("feature_gram"):
        kinds = {type(method) for method in planned([product(s=3)], MANY_GROUPS).methods}
        assert kinds == {FeatureGramByExample}
        # Products of tokens are no sums: rows are left out.
        found = planned([FORMS["embedding"]], MANY_GROUPS, quantities=("gradient",))
    assert {type(method) for method in found.methods} == {FeatureGram}


def test_gates_and_blocks_are_not_paired_by_rows_nor_followed():
    for name in ("gates", "grouped patches", "by example", "embedding"):
        with forced("row_gram, wide"):
            choice = planned([FORMS[name]]).choices[-1]
        assert (choice.quantity, choice.method) == ("gradient", "feature_gram")
        assert choice.reason == "its rows cannot be paired"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subspace, "cost", lambda *_: 1.0)
        for name in ("gates", "grouped patches"):
            chosen = methods_of(FORMS[name], method="subspace", top_k=2)
            assert chosen[0] != "subspace"
            assert chosen[1:] == ["subspace"] * 2


# --- costs ---


def test_sizes_are_those_of_the_matrix():
    matrices = WeightMatrices(product(s=3, i=5, o=4))
    assert sizes_of(matrices, "activation", TWO_GROUPS) == Sizes(TWO_GROUPS, 3, 5)
    assert sizes_of(matrices, "adjoint", TWO_GROUPS) == Sizes(TWO_GROUPS, 3, 4)
    assert sizes_of(matrices, "gradient", TWO_GROUPS) == Sizes(TWO_GROUPS, 3, 5, 4)


@pytest.mark.parametrize(
    ("examples", "additive", "times"),
    [
        ((8,), True, 8),
        ((8, 4.0, 4.0), True, 8),  # the whole batch is their sum
        ((8, 4.0, 2.0), True, 14),
        ((8, 6.0, 6.0), True, 20),
        ((2, 1.0, 1.0, 1.0, 1.0), False, 6),
    ],
)
def test_rows_are_multiplied_once_for_each_group_they_are_in(examples, additive, times):
    assert Sizes(examples, 3, 5, additive=additive).products(7) == times * 3 * 7


def test_with_more_groups_than_examples_parts_are_multiplied_once_and_added():
    sizes = Sizes((2, 1.0, 1.0, 1.0, 1.0), 3, 5)
    assert sizes.by_example
    assert sizes.products(7) == 2 * (3 + 5) * 7


# --- plans are made once ---


def test_a_plan_is_made_anew_only_where_shapes_shares_or_types_are_new():
    batching, plans = Batching(Spectra()), []
    mask, other = np.eye(32, dtype=bool)[:, :2], np.ones((32, 2), bool)
    patches = FORMS["patches"]
    wider = Factors(Patches((tf.zeros([32, 9, 4]),), (5,), (1,), (1,), "same", 1), patches.adjoint)
    for number, (factors, own, shares) in enumerate(
        [
            (product(), mask, None),
            (product(), other, (1 / 32, 1 / 32)),
            (product(i=9), mask, None),
            (product(dtype="float64"), mask, None),
            (product(), mask, (0.5, 0.5)),
            (product(n=16), mask[:16], None),
            (patches, mask, None),
            (wider, mask, None),
        ]
    ):
        step = step_of(number, [factors], own, shares)
        weights = {name: WeightMatrices(each) for name, each in step.factors.items()}
        plans.append(batching.plan(weights, step))
        assert batching.plan(weights, step) is plans[-1]
    assert plans[0] is plans[1]
    assert len({id(each) for each in plans}) == len(plans) - 1
