"""Which method finds each spectrum, and on which device. It is chosen only here.

The choice depends on the shapes of the matrices, the expected group sizes, and the settings. It
decides how long an exact spectrum takes, never what it is.
"""

from collections import defaultdict
from dataclasses import dataclass
from typing import NamedTuple

from keras_spectral.matrices.factors import FACTORS
from keras_spectral.spectra import feature_gram, row_gram, subspace, svd
from keras_spectral.spectra.feature_gram import FeatureGram, FeatureGramByExample, GramOfEach
from keras_spectral.spectra.host import cut
from keras_spectral.spectra.method import Sizes
from keras_spectral.spectra.row_gram import RowGram
from keras_spectral.spectra.subspace import OVERSAMPLING, Subspace
from keras_spectral.spectra.svd import Svd


class Choice(NamedTuple):
    """How one spectrum is found.

    Attributes:
        weight: `(layer path, weight name)`.
        quantity: One of `QUANTITIES`.
        method: `"row_gram"`, `"feature_gram"`, `"gram_of_each"`, `"subspace"` or `"svd"`.
        cost: Expected time, in multiplications of a float64 matrix product.
        reason: Why this method.
        where: The device on which products are computed.
    """

    weight: tuple
    quantity: str
    method: str
    cost: float
    reason: str
    where: str


class Series(NamedTuple):
    """One weight and quantity, and the sizes that it has in every record of a plan.

    Attributes:
        weight: `(layer path, weight name)`.
        quantity: One of `QUANTITIES`.
        width: Largest number of singular values that the features allow.
        positions: Rows of each example.
        bounded_by_rows: Whether the rank is at most the number of rows.
    """

    weight: tuple
    quantity: str
    width: int
    positions: int
    bounded_by_rows: bool


@dataclass(frozen=True)
class Plan:
    """How the spectra of records of one shape are found.

    Attributes:
        choices: Tuple of `Choice`, in the order of the log.
        series: Tuple of `Series`, likewise.
        methods: Tuple of methods, which together find every spectrum once.
        top_k: Largest number of singular values recorded per spectrum, or `None`.
    """

    choices: tuple
    series: tuple
    methods: tuple
    top_k: int | None

    @property
    def cost(self):
        """Expected time of all spectra, in multiplications of a float64 matrix product."""
        return sum(choice.cost for choice in self.choices)

    @property
    def is_exact(self):
        """Whether all spectra are exact: none is found in a subspace."""
        return not any(isinstance(method, Subspace) for method in self.methods)


def plan_for(weights, settings, examples):
    """Choose how the spectra of some weights are found.

    Args:
        weights: Dictionary `(layer path, weight name) -> WeightMatrices`, in the order of the
            model. Only shapes and types are used.
        settings: `Spectra`, for its quantities, `top_k` and `method`.
        examples: Tuple of the expected examples of the whole batch and of each group.

    Returns:
        `Plan`.
    """
    columns = settings.top_k + OVERSAMPLING if settings.method == "subspace" else 0
    choices = tuple(
        _choice(weight, matrices, quantity, settings.method, columns, examples)
        for weight, matrices in weights.items()
        for quantity in settings.quantities
        if quantity in matrices.recorded
    )
    series = tuple(
        Series(
            choice.weight,
            choice.quantity,
            weights[choice.weight].width(choice.quantity),
            weights[choice.weight].positions(choice.quantity),
            choice.quantity != "gradient" or weights[choice.weight].bounded_by_rows,
        )
        for choice in choices
    )
    methods = _methods(weights, choices, columns, examples)
    methods = tuple(sorted(methods, key=lambda method: -method.cost))
    return Plan(choices, series, methods, settings.top_k)


def sizes_of(matrices, quantity, examples):
    """Return the `Sizes` of one matrix.

    Args:
        matrices: `WeightMatrices`.
        quantity: One of `QUANTITIES`.
        examples: As in `plan_for`.
    """
    s, additive = matrices.positions(quantity), matrices.adds_up(quantity)
    if quantity == "gradient":
        return Sizes(examples, s, *matrices.gradient_shape, additive)
    return Sizes(examples, s, matrices.width(quantity), 0, additive)


def _choice(weight, matrices, quantity, method, columns, examples):
    sizes, where = sizes_of(matrices, quantity, examples), matrices.device
    if _is_known(matrices, quantity):
        cost = float(sizes.rows[0])
        return Choice(weight, quantity, "svd", cost, "its singular values are known: counts", where)
    if method == "svd":
        return Choice(weight, quantity, "svd", svd.cost(sizes), 'method="svd" was asked for', where)
    if method == "auto" and matrices.is_float64:
        reason = "float64 data, of whose digits a Gram matrix keeps half"
        return Choice(weight, quantity, "svd", svd.cost(sizes), reason, where)
    costs = {"feature_gram": feature_gram.cost(sizes)}
    if quantity != "gradient":
        costs["row_gram"] = row_gram.cost(sizes)
        costs["gram_of_each"] = feature_gram.cost_of_each(sizes)
    elif _gradient_by_rows(matrices, examples):
        costs["row_gram"] = row_gram.cost_of_gradient(sizes)
    if columns and _has_subspace(matrices, quantity):
        costs["subspace"] = subspace.cost(sizes, columns)
    chosen = min(costs, key=lambda name: (costs[name], name != "row_gram"))
    return Choice(weight, quantity, chosen, costs[chosen], _reason(chosen, costs, sizes), where)


def _reason(chosen, costs, sizes):
    others = [name for name in costs if name != chosen]
    if not others:
        return "its rows cannot be paired"
    next_best = min(others, key=costs.get)
    times = costs[next_best] / costs[chosen]
    shape = f"{sizes.i} x {sizes.o}" if sizes.o else f"{sizes.rows[0]:.0f} x {sizes.i}"
    return f"{shape}: {next_best} would take {times:.1f} times as long"


def _is_known(matrices, quantity):
    return quantity != "gradient" and hasattr(matrices.of(quantity), "singular_values")


def _gradient_by_rows(matrices, examples):
    """Return whether a gradient may be found by Gram matrices of rows: those of both factors."""
    if not matrices.is_product or _is_known(matrices, "activation"):
        return False
    sizes = [sizes_of(matrices, name, examples) for name in FACTORS]
    return all(row_gram.cost(own) <= feature_gram.cost(own) for own in sizes)


def _has_subspace(matrices, quantity):
    return quantity == "gradient" or matrices.of(quantity).n_blocks == 1


def _methods(weights, choices, columns, examples):
    """Yield the methods: matrices that can be solved together share one."""
    by_method = defaultdict(list)
    for choice in choices:
        by_method[choice.method].append((choice.weight, choice.quantity))
    costs = {(choice.weight, choice.quantity): choice.cost for choice in choices}
    yield from _by_rows(weights, by_method["row_gram"], costs, examples)
    yield from _by_features(weights, by_method["feature_gram"], costs, examples)
    yield from (GramOfEach((name,), costs[name]) for name in by_method["gram_of_each"])
    yield from (Svd((name,), costs[name]) for name in by_method["svd"])
    if by_method["subspace"]:
        names = tuple(by_method["subspace"])
        yield Subspace(names, sum(costs[name] for name in names), columns)


def _by_rows(weights, wanted, costs, examples):
    """Yield a `RowGram` for each number of positions."""
    factors, by_positions = defaultdict(dict), defaultdict(list)
    for weight, quantity in wanted:
        s = weights[weight].positions(quantity)
        by_positions[s].append((weight, quantity))
        for name in FACTORS if quantity == "gradient" else (quantity,):
            sizes = sizes_of(weights[weight], name, examples)
            factors[s][weight, name] = sizes.i if row_gram.is_thin(sizes) else 0
    for s, names in by_positions.items():
        cost = sum(costs[name] for name in names)
        yield RowGram(tuple(names), cost, tuple(factors[s]), s, tuple(factors[s].values()))


def _by_features(weights, wanted, costs, examples):
    """Yield a method for all matrices of equal width, or one per matrix if by example.

    A method that would take long is divided, since methods run in parallel.
    """
    by_width = defaultdict(list)
    for weight, quantity in wanted:
        name, matrices = (weight, quantity), weights[weight]
        if sizes_of(matrices, quantity, examples).by_example:
            yield FeatureGramByExample((name,), costs[name])
        else:
            by_width[matrices.width(quantity)].append(name)
    for names in by_width.values():
        total = sum(costs[name] for name in names)
        for part in cut(len(names), total):
            yield FeatureGram(tuple(names[part]), sum(costs[name] for name in names[part]))
