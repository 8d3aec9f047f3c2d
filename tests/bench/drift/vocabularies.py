"""How often quiet words alarm where bins are chosen from the data, and most words have none: one window in twenty is stated."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from monitors.deciding import Question, Round, decide
from monitors.findings import Against
from stream_trainer.contract import BinaryLabel, Categorical, Contract
from stream_trainer.reference import Bins, freeze
from tests.bench.drift.calibration import BUDGET
from tests.bench.drift.deciding import Counts
from tests.bench.drift.worlds import VOCABULARIES, Floats
from tests.bench.options import Options
from tests.bench.section import Goal, Section

ROWS = (200, 2_000, 20_000)
WINDOWS = 1_000
FROZEN_ROWS, LATER = 2_000, 18_000
_CONTRACT = Contract(features=[Categorical("word", buckets=64)], label=BinaryLabel("hit"), key="id", event_time="at")


def measure(options: Options) -> Section:
    """`runs` is the number of windows of each cell."""
    windows = options.runs or WINDOWS
    found = {(name, rows): rate(name, rows, windows) for name in VOCABULARIES for rows in ROWS}
    allowed = BUDGET + 3 * (BUDGET * (1 - BUDGET) / windows) ** 0.5
    return Section(
        title="Drift: alarms of words while nothing changes",
        headings=["words", *(f"{rows:,} rows" for rows in ROWS)],
        rows=[[name, *(f"{found[name, rows]:.1%}" for rows in ROWS)] for name in VOCABULARIES],
        notes=[
            f"{windows:,} quiet windows a cell, the share in which words or unseen ones alarmed; stated: at most {BUDGET:.0%}.",
            (f"Bins are frozen for each window over {FROZEN_ROWS:,} rows, as the trainer does. Asked are the baseline, and what was "
             f"learned: its rows and {LATER:,} more."),
        ],
        goals=[Goal(what="largest rate", limit=100 * allowed, found=100 * max(found.values()), unit="%")],
    )  # fmt: skip


def rate(name: str, rows: int, windows: int) -> float:
    """The share of quiet windows with any alarm."""
    rng = np.random.default_rng([list(VOCABULARIES).index(name), rows])
    shares, alarmed = VOCABULARIES[name], 0
    for _ in range(windows):
        bins = _frozen(rng, shares)
        law = bin_shares(bins, shares)
        window, counts = rng.multinomial(rows, law), np.asarray(bins.counts)
        asked = _questions(bins, window, counts, counts + rng.multinomial(LATER, law))
        alarmed += any(found.state == "drift" for found in decide(list(asked), Round(budget=BUDGET)))
    return alarmed / windows


def bin_shares(bins: Bins, shares: Floats) -> Floats:
    """The probability of each bin."""
    own = shares[[int(word) for word in bins.words]]
    known = shares[[int(word) for word in bins.known]].sum()
    return np.concatenate([own, [known, max(0.0, 1.0 - own.sum() - known), 0.0]])


def _frozen(rng: np.random.Generator, shares: Floats) -> Bins:
    words = np.searchsorted(np.cumsum(shares), rng.random(FROZEN_ROWS)).clip(max=len(shares) - 1)
    column = pa.array(words).cast(pa.string())
    return freeze(_CONTRACT, {"word": column}, rng.random(FROZEN_ROWS) < 0.5).of("word")


def _questions(bins: Bins, window: Counts, baseline: Counts, learned: Counts) -> Iterator[Question]:
    references: list[tuple[Against, Counts]] = [("learned", learned), ("baseline", baseline)]
    for against, reference in references:
        yield Question(
            kind="drift",
            feature="word",
            against=against,
            window=window,
            reference=reference,
            names=bins.names,
            ordered=False,
            quality=[bins.place("unseen"), bins.place("missing")],
        )
