"""`docs/learning-benchmarks.md`: sections between markers, and the plots beside it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.bench import report
from tests.bench.learning import contestants, tables
from tests.bench.learning.contestants import OURS
from tests.bench.learning.intervals import LEAST_STRETCHES, LEVEL, REPLICATES
from tests.bench.learning.options import Options
from tests.bench.learning.panels import Syncs
from tests.bench.learning.results import LEAST_CHUNKS, Results
from tests.bench.learning.scores import CHUNK, CLIP
from tests.bench.learning.syncing import MICRO_BATCH

OVER_TIME, SYNCS = "images/learning-over-time.png", "images/learning-syncs.png"
PLOTTED = 256
HEAD = """# How well it learns

Written by `make bench-learning`; each section names its machine and its command. Figures stand as they came out, losses
included. All are compared at equal staleness: a block of M rows is forecast with the weights from before it, then it is
learned. `python -m tests.bench.learning --help` lists what can be chosen; what is measured is kept and not measured again.
"""
_ABOUT = f"""
* A forecast's probabilities are floored at {CLIP:g} and brought back to a sum of 1, the same for all; before anything was learned all forecast uniformly.
* River's and deep-river's learners take the rows of a block one by one (`learn_one`), so one pass serves all M; `predict_proba_one` before the block.
* All know the same of a stream beforehand: names, kinds, vocabularies, classes. Ours gets categories one-hot by its contract, linear learners and nets one 0/1 feature a word, trees the codes. A missing number is left out of River's rows; ours has a column that says so.
* Generators: a seed is another stream. Real streams: a seed is the learner's own randomness.
* M = 1 takes the first rows only; a stream shorter than two blocks is left out. Rows before the first learning count.
* Seconds are forecasts and learning. Ours include encoding; making River's dictionaries is not counted for River.
"""
_PAIRED = (
    f"\n\nOurs less theirs, a row; win or loss where the {LEVEL:.0%} interval excludes 0. Block bootstrap over stretches of "
    f"time of at least M and {LEAST_CHUNKS * CHUNK:,} rows, {REPLICATES:,} draws, widened for few stretches; below "
    f"{LEAST_STRETCHES} stretches no interval.\n"
)


def write(
    options: Options,
    results: Results,
    syncs: Syncs,
    versions: Mapping[str, Mapping[str, str]],
    failed: Sequence[str],
    drawn: Mapping[str, bool],
) -> None:
    """Every section."""
    assert options.report is not None
    _put(options, "setting", _setting(options, results, versions, failed))
    _put(options, "ranks", _ranks(results))
    for size in results.sizes:
        _put(options, f"quality-{size}", _quality(results, size))
    if drawn[OVER_TIME]:
        _put(options, "over-time", f"## Accuracy over time\n\n![Accuracy over time]({OVER_TIME})")
    _put(
        options, "speed", f"## Seconds and rows a second\n\nMedians over streams and seeds.\n\n{tables.speed(results)}"
    )
    if rare := tables.rare(results):
        _put(options, "rare", f"## Rare classes\n\nArea under the ROC curve of the whole stream.\n\n{rare}")
    if len(results.learners) > 1 and OURS in results.learners:
        for size in results.sizes:
            _put(options, f"differences-{size}", _differences(results, size))
    if syncs:
        _put(options, "syncs", _syncs(syncs, drawn=drawn[SYNCS]))


def _put(options: Options, name: str, text: str) -> None:
    assert options.report is not None
    report.put(options.report, name, text, options.command, head=HEAD)


def _setting(
    options: Options, results: Results, versions: Mapping[str, Mapping[str, str]], failed: Sequence[str]
) -> str:
    who = "\n".join(f"* **{c.name}**: {c.what}." for c in contestants.ALL if c.name in results.learners)
    installed = "\n".join(
        f"* {name}: {', '.join(f'{package} {at}' for package, at in found.items())}" for name, found in versions.items()
    )
    seeds = ", ".join(map(str, options.seeds))
    notes = f"* Seeds {seeds}; at most {options.limit:g} s for a learner's pass over a stream; {options.jobs} process(es) at a time.\n"
    if options.data is None:
        notes += "* Run without `--data`: the streams of a folder are absent.\n"
    notes += "".join(f"* Failed: {line.splitlines()[0]}\n" for line in failed)
    return f"## Setting\n\n{who}\n{_ABOUT}{notes}{installed}\n\n{tables.streams(results)}"


def _ranks(results: Results) -> str:
    text = "## Mean ranks\n\nAccuracy / log loss, 1 is best (numbers: MAE / RMSE); ties share, who did not finish is last.\n\n"
    text += tables.ranks(results)
    if OURS in results.learners and len(results.learners) > 1:
        text += f"\n\nWins / ties / losses of {OURS} over the streams that are long enough for an interval:\n\n{tables.verdicts(results)}"
    return text


def _quality(results: Results, size: int) -> str:
    text = f"## M = {size:,}\n\nAccuracy % / log loss, means over seeds ± standard deviation over seeds.\n\n"
    text += tables.quality(results, size, numeric=False)
    if any(results.heads[name].numeric for name in results.streams(size)):
        text += f"\n\nNumbers: MAE / RMSE.\n\n{tables.quality(results, size, numeric=True)}"
    return text


def _differences(results: Results, size: int) -> str:
    first, second = tables.differences(results, size, "first"), tables.differences(results, size, "second")
    return (
        f"## Paired differences, M = {size:,}{_PAIRED}\nAccuracy in points (numbers: absolute error):\n\n{first}\n\n"
        f"Log loss (numbers: squared error):\n\n{second}"
    )


def _syncs(syncs: Syncs, *, drawn: bool) -> str:
    plot = f"\n\n![Quality against the sync interval]({SYNCS})" if drawn else ""
    return (
        "## Quality against the sync interval\n\n"
        "Algorithm 1 of Monolith (arXiv 2209.07663) with our default learner: the first 5/7 of a stream are learned in one "
        f"pass of micro-batches of {MICRO_BATCH}, the rest is forecast shard by shard with the weights that were synced before "
        "it, and learned between syncs; frozen: the weights of the first 5/7 are never replaced. Means over seeds ± standard "
        f"deviation.\n\n{tables.syncs(syncs)}{plot}"
    )


def image(of: Path, name: str) -> Path:
    """Where a plot lies beside the report."""
    path = of.parent / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
