"""Arithmetic of recording a large Transformer on several GPUs, from constants measured on a CPU.

Nothing here is measured but the `Constants` that `plan` is given. What is not known of the GPUs is
a parameter of `Assumed`.
"""

from collections import Counter
from dataclasses import dataclass, replace

from benchmarks.counting import work_of
from benchmarks.page import table
from keras_spectral.spectra.subspace import OVERSAMPLING

BUDGET = 0.02
"""Part of the training time that recording may take."""

TOP_K = 16
"""Singular values that a subspace would find."""

FLOAT64, FLOAT32, FLOAT16 = 8, 4, 2
"""Bytes of a number."""


@dataclass(frozen=True)
class Transformer:
    """A network that is trained data parallel, and the number of groups, which divide every batch.

    Attributes:
        layers: Number of blocks, of four projections of attention and two dense layers.
        width: Features of a token.
        feed_forward: Features between the two dense layers.
        tokens: Tokens of a sequence, rows of an example.
        sequences: Sequences of a batch, for each replica.
        replicas: GPUs.
        groups: Groups of sequences.
    """

    layers: int = 24
    width: int = 2048
    feed_forward: int = 8192
    tokens: int = 2048
    sequences: int = 8
    replicas: int = 8
    groups: int = 2

    @property
    def block(self):
        """Inputs and outputs of each weight of a block."""
        d, f = self.width, self.feed_forward
        return [(d, d)] * 4 + [(d, f), (f, d)]

    @property
    def parameters(self):
        """Weights of all blocks."""
        return self.layers * sum(i * o for i, o in self.block)

    @property
    def rows(self):
        """Rows of a matrix on one replica."""
        return self.tokens * self.sequences

    @property
    def step(self):
        """Multiplications of a plain step on one replica: weights, and attention."""
        weights = 3 * self.parameters * self.rows
        return weights + 6 * self.layers * self.tokens * self.width * self.rows

    @property
    def matrices(self):
        """Pairs of a name and the matrices of a block: `(inputs, outputs, is a gradient)`."""
        d, f = self.width, self.feed_forward
        factors = [(w, w, False) for pair in self.block for w in pair]
        return {
            "gradients": [(i, o, True) for i, o in self.block],
            f"activations and adjoints of width {d}": [each for each in factors if each[0] == d],
            f"those of width {f}": [each for each in factors if each[0] == f],
        }


@dataclass(frozen=True)
class Assumed:
    """Assumptions that nobody measured, to be replaced by measurements on the machine.

    Attributes:
        step_seconds: Time of a plain step.
        slower: How many times longer a float64 product takes than one of training.
        reducing: Part of a plain step that waits for its gradients to be added up over replicas.
        cores: Cores of the host that training leaves idle.
    """

    step_seconds: float = 1.0
    slower: float = 16.0
    reducing: float = 0.1
    cores: int = 64


@dataclass(frozen=True)
class Cost:
    """Overhead of a recorded step.

    Attributes:
        share: Multiplications on each GPU, as a part of those of a plain step.
        reduced: Bytes that are added up over replicas.
        host: `Counter` of the sizes of eigenvalue problems.
        kept: Bytes of the Gram matrices that reach the host.
    """

    share: float
    reduced: float
    host: Counter
    kept: float

    def __add__(self, other):
        return Cost(
            self.share + other.share,
            self.reduced + other.reduced,
            self.host + other.host,
            self.kept + other.kept,
        )


def cost_of(net, matrices):
    """Return the `Cost` of some matrices of every block, on the side of the features.

    Each replica multiplies its own rows; one of them, in turn, gets the sums of a layer.

    Args:
        net: `Transformer`.
        matrices: List of `(inputs, outputs, is a gradient)`.
    """
    blocks = 1 + net.groups
    multiplications = reduced = kept = 0.0
    host = Counter()
    for i, o, is_gradient in matrices:
        d = min(i, o)
        multiplications += net.rows * i * o
        if is_gradient:
            multiplications += blocks * d * d * max(i, o) / net.replicas
        reduced += net.groups * i * o * (FLOAT32 if is_gradient else FLOAT64)
        kept += blocks * d * d * FLOAT64
        host[d] += blocks * net.layers
    scale = net.layers
    return Cost(scale * multiplications / net.step, scale * reduced, host, scale * kept)


def every(net, cost, constants, assumed, cores=None):
    """Return how many steps there have to be for each recorded one.

    Args:
        net: `Transformer`.
        cost: `Cost`.
        constants: `Constants`, whose eigenvalue problems stand for those of the host.
        assumed: `Assumed`.
        cores: Cores that solve, all idle ones by default.
    """
    training = net.parameters * FLOAT32
    waited = assumed.slower * cost.share + assumed.reducing * cost.reduced / training / 2
    solved = host_seconds(cost, constants) / (cores or assumed.cores)
    return max(waited / BUDGET, solved / assumed.step_seconds)


def host_seconds(cost, constants):
    """Return the seconds of one core that the eigenvalue problems of a recorded step take.

    Args:
        cost: `Cost`.
        constants: `Constants`.
    """
    return sum(constants.eigen_seconds(d) * number for d, number in cost.host.items())


HEAD = [
    "exact spectra of",
    "multiplications on a GPU, part of a plain step",
    "added up over replicas, GB",
    "eigenvalue problems",
    "seconds of one core",
    "Gram matrices on the host, GB",
]

TURN_HEAD = ["exact spectra of", "`n` at `ρ` = 1", "`n` at `ρ` = {slower:g}", "`n`, one core"]

TEXT = """\
## Arithmetic: a Transformer of {billions:.1f} billion parameters on {replicas} GPUs

Nothing in this section was measured, but the constants above, which are those of this CPU.
Measurements on a GPU are in [benchmarks-gpu.md](benchmarks-gpu.md) alone. Assumptions are called
so, and are to be replaced by measurements on the machine.

The network: {layers} blocks of width {width}, with {feed_forward} between the two dense layers,
{sequences} sequences of {tokens} tokens for each GPU, data parallel; embeddings and normalisation
left out. {groups} groups of sequences divide the batch. A weight has {rows} rows on each GPU and
{all_rows} on all, so every spectrum is one of features (here the library chooses: {chosen}). A
plain step has {step:.2g} multiplications on each GPU, `3 r i o` of each weight and those of
attention: if it takes {step_seconds:g} s, {rate:.0f} TFLOP/s on each.

### A recorded step

{costs}

Bytes that are added up: `g i o` in float32 for gradients, `g w²` in float64 for Gram matrices.
Training adds up `P` numbers of its own, {training:.1f} GB in float32.

The {wide} matrices of width {feed_forward} are {wide_share:.0f} % of the multiplications and
{wide_host:.0f} % of the time of the eigenvalues. Leave them out, or record them a few times in a
training: gradients of the same layers are exact without, as the smaller side of every gradient is
{width}. Or take the {top_k} largest singular values alone (`method="subspace"`): a step follows
{columns} columns for each of {blocks} matrices, `2 r w` multiplications a column, which makes
{followed:.1f} % of a plain step for all of width {feed_forward}, and problems of size {columns}.
One problem of size {width} took {one_small:.2f} s of a core here{by_cube}; one of {feed_forward},
by its cube, {one_large:.0f} s.

{calibration}

Exact without an eigenvalue problem: Frobenius norms of A and Δ (`r w` multiplications) and of
`G_g`; from a Gram matrix `K` also the participation ratio, `(tr K)² / ‖K‖²`. Query, key and value
multiply the same A, which is recorded three times today: noticing it would save {shared:.0f} % of
all multiplications.

### A schedule within {budget:.0f} %

Let a recorded step have `F` times the multiplications of a plain one, in float64, of which one
takes `ρ` times as long as one of training. Let `B` be the bytes added up, as a part of those of
training, which wait for a part `c` of a step of `T` seconds. Half of `B` counts, as each sum is
needed in one place. One step of `n` may be recorded if

- `n ≥ (ρ F + c B / 2) / {share:g}`, for the GPUs, and
- `n ≥ core-seconds / (cores · T)`, for the host to keep pace.

Assumed: `c` = {reducing:g}, `T` = {step_seconds:g} s, {cores} idle cores of all hosts together.

{turns}

*One core* is a host on which one is idle, at `ρ` = 1. Recording one block in turn divides what a
recorded step needs, and its bytes, by {layers}, and each block is recorded as often as before:
instead of all of width {width} every {in_turns:.0f} steps, one block every {one_block:.0f}.

### float64 and float32

A Gram matrix halves the digits: of a float32 one, singular values below {lost:.0e} of the largest
(the root of its rounding) are noise, of a float64 one those below {left:.0e}
([method](method.md#why-it-is-cheap)). So `AᵀA`, `ΔᵀΔ` and `G_gᵀG_g` have to be float64, or to have
its digits by several products in less. `AᵀΔ` itself may be formed and added up in float32, though
not in TensorFloat-32: its error is then that of training's own gradients in float32. For the
gradients {gram_share:.1f} % of a plain step's multiplications would have to be float64, instead of
{gradient_share:.0f} %. Today the library makes exact spectra in float64.

Eigenvalue problems stay on the host: `tf.linalg.svd`, the one alternative that was measured on a
GPU, was many times slower than Gram matrices solved there
([measured](benchmarks-gpu.md#overhead)).

### Memory

- On each GPU, in a recorded step, every Δ is there at once, {adjoints:.0f} GB in 16 bits, beside
  every A, which recomputed activations would have saved. Rows are in float64 a few examples at a
  time: one example of the widest matrix takes {copy:.2f} GB.
- `1 + g` gradients of the largest weight in float64: {largest:.2f} GB.
- On the hosts, the Gram matrices of everything have {everything:.0f} GB, of all of width {width}
  {narrow:.0f} GB, of one such block {one_kept:.1f} GB. Activations and adjoints of two steps may be
  on their way to the solving thread if they are that large (`solver.py`).
- The log grows by {log:.1f} MB for each recorded step, in a file.

### What would have to be built

`require_one_replica` in `recorder.py` refuses more than one replica today. In its place:

1. *Sums over replicas*, in `spectra/feature_gram.py`. Gram matrices of features and `G_g` are sums
   over rows, so over replicas: `all_reduce` them, or better `reduce_scatter`, the layers divided
   among replicas. `G_g` has to be added up before its Gram matrix is made: a sum of those is not
   the one of the sum. The whole batch is the sum of groups that divide it. Adjoints have to be
   those of the loss of all replicas.
2. *Rows of all replicas*, for small batches only. `K_A` has a block for every pair of replicas, so
   A and Δ would have to be gathered, `r (i + o)` numbers of each weight. Here, where that side is
   never chosen, it would be {gathered:.0f} GB.
3. *Sizes*: `spectra/plan.py` has to choose by the examples of all replicas.
4. *A solver on each host*, of its layers, with as many threads as there are idle cores. Today there
   are eight at most (`spectra/host.py`).
5. *Schedules by layer*: `Spectra.every` is one for all layers.
6. *Triangles*: Gram matrices are symmetric; half of their bytes would do.
"""


def plan(constants, overhead_by_counted, net=None, assumed=None):
    """Return the section on a large Transformer, in Markdown.

    Args:
        constants: `Constants`.
        overhead_by_counted: Numbers, the measured overhead as a part of the counted one.
        net: `Transformer`.
        assumed: `Assumed`.
    """
    net, assumed = net or Transformer(), assumed or Assumed()
    costs = {name: cost_of(net, matrices) for name, matrices in net.matrices.items()}
    gradients, narrow, wide = costs.values()
    sums = {
        "gradients": gradients,
        f"all of width {net.width}": gradients + narrow,
        "everything": gradients + narrow + wide,
    }
    everything = sums["everything"]
    as_fast = replace(assumed, slower=1.0)
    turns = [
        [
            name,
            *(f"{every(net, cost, constants, given):.0f}" for given in (as_fast, assumed)),
            f"{every(net, cost, constants, as_fast, cores=1):.0f}",
        ]
        for name, cost in sums.items()
    ]
    in_turns = every(net, sums[f"all of width {net.width}"], constants, assumed)
    turn_head = [name.format(slower=assumed.slower) for name in TURN_HEAD]
    i, o = max(net.block, key=lambda pair: pair[0] * pair[1])
    grams = 1 + net.groups
    of_grams = sum(grams * min(p) ** 2 * max(p) for p in net.block) * net.layers / net.replicas
    kept = sum(grams * min(i, o) for matrices in net.matrices.values() for i, o, _ in matrices)
    adjoints = net.layers * net.rows * sum(o for _, o in net.block)
    factors = net.layers * net.rows * net.replicas * sum(i + o for i, o in net.block)
    side = work_of([(net.tokens, *pair) for pair in net.block], net.sequences, net.groups).side
    largest_known = max(constants.eigen)
    columns = TOP_K + OVERSAMPLING
    followed = 2 * net.layers * 2 * net.rows * net.feed_forward * columns * grams
    return TEXT.format(
        billions=net.parameters / 1e9,
        replicas=net.replicas,
        layers=net.layers,
        width=net.width,
        feed_forward=net.feed_forward,
        sequences=net.sequences,
        tokens=net.tokens,
        groups=net.groups,
        rows=f"{net.rows:,}",
        all_rows=f"{net.rows * net.replicas:,}",
        chosen=side,
        step=net.step,
        step_seconds=assumed.step_seconds,
        rate=2 * net.step / assumed.step_seconds / 1e12,
        costs=table(HEAD, [_row(*each, constants) for each in costs.items()]),
        wide=2 * net.layers,
        top_k=TOP_K,
        columns=columns,
        blocks=grams,
        followed=100 * followed / net.step,
        wide_share=100 * wide.share / everything.share,
        wide_host=100 * host_seconds(wide, constants) / host_seconds(everything, constants),
        one_small=constants.eigen_seconds(net.width),
        by_cube="" if net.width <= largest_known else ", by its cube",
        one_large=constants.eigen_seconds(net.feed_forward),
        calibration=_calibration(overhead_by_counted),
        training=net.parameters * FLOAT32 / 1e9,
        shared=100 * 2 * net.layers * net.rows * net.width**2 / net.step / everything.share,
        budget=100 * BUDGET,
        share=BUDGET,
        reducing=assumed.reducing,
        cores=assumed.cores,
        turns=table(turn_head, turns),
        in_turns=in_turns,
        one_block=in_turns / net.layers,
        lost=2**-12,
        left=2**-26,
        gram_share=100 * of_grams / net.step,
        gradient_share=100 * gradients.share,
        adjoints=adjoints * FLOAT16 / 1e9,
        copy=net.tokens * net.feed_forward * FLOAT64 / 1e9,
        largest=grams * i * o * FLOAT64 / 1e9,
        everything=everything.kept / 1e9,
        narrow=(gradients + narrow).kept / 1e9,
        one_kept=(gradients + narrow).kept / 1e9 / net.layers,
        log=kept * net.layers * FLOAT64 / 1e6,
        gathered=factors * FLOAT32 / 1e9,
    )


def _row(name, cost, constants):
    problems = ", ".join(f"{number} of {d}" for d, number in sorted(cost.host.items()))
    return [
        name,
        f"{100 * cost.share:.0f} %",
        f"{cost.reduced / 1e9:.1f}",
        problems,
        f"{host_seconds(cost, constants):.0f}",
        f"{cost.kept / 1e9:.1f}",
    ]


def _calibration(overhead_by_counted):
    """Return a paragraph on how far counts are from measurements on the same side."""
    if not overhead_by_counted:
        return "No curve on the side of the features was measured, to hold the counts against."
    low, high = min(overhead_by_counted), max(overhead_by_counted)
    return (
        f"At the largest points above on the side of the features, the overhead was {low:.1f} to "
        f"{high:.1f}\ntimes what is counted; as much may be missing here."
    )
