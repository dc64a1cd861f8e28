"""The texts of a report, as plain data for its template."""

from keras_spectral.analysis.labels import counted, listed
from keras_spectral.analysis.nulls import retrained_labels, target_labels, target_text
from keras_spectral.analysis.provenance import declared
from keras_spectral.analysis.report_tables import relative_difference, short_table, shown
from keras_spectral.groups import ALL

TOP_ROWS = 10
LEVEL = 0.05
GROUP_GRADIENT = (
    "A group's gradient here is the part of the real training gradient that flows through the "
    "examples of that group. It is not the gradient of a batch made of that group alone: with "
    "batch normalisation, for one, every example depends on all others in its batch."
)
ACTIVATIONS = (
    "A layer's activation here is what it multiplies by its weight: its input. The activation of "
    "the first layer is the data itself: a difference there existed before any training."
)
SIZES = (
    "Larger groups have larger singular values and higher ranks by chance alone. Norms are shown "
    "size-corrected, which repairs this on average; ranks cannot be corrected. Never compare "
    "ranks of groups of different sizes by eye: the permutation test does it fairly."
)
RUNS = (
    "Steps of one run follow each other, and runs (folds, seeds) share most of their examples. "
    "They are not independent observations: no test here counts them as such, and agreement "
    "between runs shows that training is stable, not that groups differ."
)
NULL = (
    "Differences are set against permutations: group labels shuffled over subjects before "
    "training, group sizes kept, and the shuffled groups recorded in the same batches as the real "
    "ones. The note under each table gives their number, and the smallest p they allow."
)
AGAIN = (
    "The groups that the network is trained to tell apart are set against trainings in which the "
    "target was permuted over subjects and everything else was repeated. Permuting them alone "
    "would only say that they are not random groups."
)
PAIRS = "p is adjusted within the table of each pair of groups, not over all pairs."
TESTS = (
    "p is for one row taken alone. The adjusted p accounts for all rows of its table: where it is "
    "at most 0.05, the chance of any false finding in that table is at most 5 %. A large p is not "
    "evidence that groups are alike. A small one says that the groups differ in how they take part "
    "in training, not why."
)
NO_TEST = (
    "No permutations were recorded, so nothing here says whether a difference is more than chance. "
    "Record some by training with groups=ks.permutations(labels, n=99)."
)


def story(log):
    """Return the first paragraph: what was recorded.

    Args:
        log: A `SpectralLog`.

    Returns:
        Text.
    """
    groups = [group for group in log.groups if group != ALL]
    whose = f"for {listed(groups)} and for all examples together" if groups else "for all examples"
    columns = next(iter(declared(log.provenance, "group_columns")), None)
    if groups and columns:
        whose = f"for groups by {listed(columns)} ({listed(groups)}) and for all examples together"
    return (
        f"While a network trained, the singular values of its {listed(log.quantities)} matrices "
        f"were recorded {whose}, at {counted(len(log.steps), 'step')} (from {log.steps[0]} to "
        f"{log.steps[-1]}), in {counted(len(log.runs), 'run')}."
    )


def cards(log):
    """Return the numbers at the top of the page.

    Args:
        log: A `SpectralLog`.

    Returns:
        List of `(number, noun)`.
    """
    weights = len(log.rows[["layer", "weight"]].drop_duplicates())
    table = log.permutations
    numbers = [
        (len([group for group in log.groups if group != ALL]), "group"),
        (len(log.runs), "run"),
        (len(log.steps), "recorded step"),
        (weights, "recorded weight"),
        (len(log), "spectrum" if len(log) == 1 else "spectra"),
        (table["permutation"].nunique() if len(table) else 0, "permutation"),
    ]
    return [(f"{n:,}", noun if n == 1 or noun == "spectra" else f"{noun}s") for n, noun in numbers]


def simulated(log):
    """Return how the data were simulated, according to the log; empty if they are real."""
    found = [entry for entry in declared(log.provenance, "simulated") if entry]
    text = next((entry for entry in found if isinstance(entry, str)), "")
    return f"Simulated data. {text}".strip() if found else ""


def cautions(log, pairs):
    """Return the notes on what may and may not be concluded.

    Args:
        log: A `SpectralLog`.
        pairs: A `Pairs`.

    Returns:
        List of `(heading, text)`.
    """
    notes = [
        ("What a group's gradient is", GROUP_GRADIENT),
        ("What an activation is", ACTIVATIONS),
        ("Sizes", SIZES),
        ("Runs", RUNS),
    ]
    if not any(table["p"].notna().any() for table in pairs.tables):
        return [*notes, ("No test", NO_TEST)]
    null = f"{NULL} {AGAIN}" if retrained_labels(log) else NULL
    notes += [("Which null", null), ("p-values", TESTS)]
    return [*notes, ("Several pairs", PAIRS)] if len(pairs.tables) > 1 else notes


def target_caution(log):
    """Return the caution for groups that are classes of the target, empty if none is."""
    target = target_labels(log, *(group for group in log.groups if group != ALL))
    return f"{target_text(target)}." if target else ""


def findings(table, of_target=False):
    """Return the most notable rows of a comparison, and a sentence that summarises it.

    Args:
        table: Result of `compare_groups` for one pair.
        of_target: Whether the groups are classes of the target, so that p is no test.

    Returns:
        Dictionary with `sentence`, `columns`, `rows` and `notable` (which rows to highlight).
    """
    p = table["p_adjusted"]
    if p.notna().any():
        order = table.assign(size=-table["z"].abs()).sort_values(["p_adjusted", "p", "size"])
        top = order[order["p"].notna()].head(TOP_ROWS)
    else:
        top = table.loc[
            relative_difference(table).dropna().sort_values(ascending=False).index[:TOP_ROWS]
        ]
    notable = ((top["p_adjusted"] <= LEVEL) & (not of_target)).tolist()
    return {
        "sentence": _sentence(table, of_target),
        "notable": notable,
        **shown(short_table(top).dropna(axis=1, how="all")),
    }


def _sentence(table, of_target):
    p = table["p_adjusted"].dropna()
    if not len(p):
        return "No p-values: the rows below are the largest relative differences, not findings."
    few, tests = int((p <= LEVEL).sum()), counted(len(p), "row" if of_target else "test")
    adjusted = f"at or below {LEVEL} after adjustment for all of them"
    if of_target:
        return (
            f"The adjusted p of {few} of {tests} is at most {LEVEL}: so far are these groups from "
            "random ones. Training has used their labels, so none of it is a finding."
        )
    if few:
        return f"{few} of {tests} {'stays' if few == 1 else 'stay'} {adjusted}."
    return (
        f"None of {tests} stays {adjusted}; the smallest adjusted p is {p.min():.2g}. "
        "That is not evidence that the groups are alike."
    )
