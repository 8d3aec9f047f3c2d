"""Words that are chosen from the data, and words that nobody has seen: the stated rate holds from the first window on."""

from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
import pytest
import torch
from scipy.stats import poisson

from monitors.baseline import Baseline, Frozen
from monitors.content import Content
from monitors.findings import Finding
from monitors.judging import Judge
from monitors.performance.step import PerformanceState
from monitors.questions import Compared
from monitors.scales import Blocks
from monitors.usual import Usual
from monitors.windows import Closed
from stream_trainer.contract import BinaryLabel, Categorical, Contract
from stream_trainer.lineage import Seen
from stream_trainer.monitoring import Monitoring
from stream_trainer.pipeline import Pipeline
from stream_trainer.reference import coded, pack
from stream_trainer.reference.counting import Cells
from stream_trainer.schema import TIMESTAMP

from .worlds import START, WINDOW

CONTRACT = Contract(features=[Categorical("word", buckets=9)], label=BinaryLabel("y"), key="k", event_time="t")
PIPELINE = Pipeline(name="p", contract=CONTRACT)
OFTEN = Monitoring(window=WINDOW, lateness=0 * WINDOW, false_alarm_every=50 * WINDOW)
SELDOM = Monitoring(window=WINDOW, lateness=0 * WINDOW)
WINDOWS = 40
Draw = Callable[[np.random.Generator, int], np.ndarray]


def zipf(words: int, power: float) -> Draw:
    shares = 1 / np.arange(1, words + 1) ** power
    return lambda rng, rows: rng.choice(words, rows, p=shares / shares.sum())


VOCABULARIES: dict[str, Draw] = {
    "100 words alike": lambda rng, rows: rng.integers(0, 100, rows),
    "1,000 words alike": lambda rng, rows: rng.integers(0, 1_000, rows),
    "300 words, Zipf": zipf(300, 1.0),
    "5,000 words, Zipf": zipf(5_000, 1.1),
    "unbounded": lambda rng, rows: rng.integers(0, 10**9, rows),
}


def learned(words: np.ndarray, first_offset: int = 0, seen: Seen | None = None) -> Seen:
    """What a trainer knows after these rows."""
    rows = len(words)
    table = pa.table(
        {
            "word": pa.array([f"w{word}" for word in words]),
            "t": pa.array([START] * rows, TIMESTAMP),
            "y": pa.array(np.zeros(rows)),
            "_output": pa.array([[0.5]] * rows, pa.list_(pa.float64())),
            "_append_time": pa.array([START] * rows, TIMESTAMP),
            "_partition": pa.array([0] * rows),
            "_offset": pa.array(range(first_offset, first_offset + rows)),
            "_row": pa.array([0] * rows),
        }
    )
    return (seen or Seen()).add(PIPELINE, table, torch.full((rows,), 0.5))


def compared_with(seen: Seen) -> Compared:
    assert seen.reference is not None
    frozen = Frozen("bins", seen.reference)
    return Compared(frozen=frozen, served=Baseline(1, frozen, seen.learned.total(seen.reference)))


def counted(compared: Compared, words: np.ndarray, windows: int) -> Cells:
    assert compared.frozen is not None
    columns = {"word": pa.array([f"w{word}" for word in words])}
    groups = np.arange(len(words)) * windows // len(words)
    return coded(CONTRACT, compared.frozen.reference, columns).count(groups, windows)


def drifted(compared: Compared, cells: Cells, rows: int, monitoring: Monitoring) -> Iterator[list[Finding]]:
    """What is called drift, window by window, at any scale."""
    judge, blocks, known, usual = (
        Judge(pipeline="p", monitoring=monitoring),
        Blocks[Content](),
        PerformanceState(),
        Usual(),
    )
    for i, row in enumerate(cells):
        content = Content(rows=rows, versions={1: rows}, digest="bins", counts=pack(row))
        start = START + i * WINDOW
        closed = Closed(number=i, start=start, end=start + WINDOW, content=content)
        found = judge.predictions(closed, compared, blocks, known, usual)
        blocks, known, usual = found.blocks, found.performance, found.usual
        yield [finding for told in found.rounds for finding in told.findings if finding.state == "drift"]


@pytest.mark.parametrize("later", [0, 20_000], ids=["just frozen", "well learned"])
@pytest.mark.parametrize("rows", [200, 2_000])
@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_quiet_words_cry_wolf_no_more_often_than_stated(vocabulary: str, rows: int, later: int) -> None:
    draw, rng = VOCABULARIES[vocabulary], np.random.default_rng([rows, later])
    compared = compared_with(learned(draw(rng, PIPELINE.reference_rows + later)))
    cells = counted(compared, draw(rng, WINDOWS * rows), WINDOWS)
    alarms = sum(bool(found) for found in drifted(compared, cells, rows, OFTEN))
    assert alarms <= poisson.ppf(0.999, WINDOWS * OFTEN.false_alarms_per_window)


@pytest.mark.parametrize("later", [0, 20_000], ids=["just frozen", "well learned"])
def test_another_mix_of_a_hundred_words_is_found_against_both_references(later: int) -> None:
    rng = np.random.default_rng(later)
    compared = compared_with(learned(rng.integers(0, 100, PIPELINE.reference_rows + later)))
    moved = np.where(rng.random(4 * 2_000) < 0.4, rng.integers(0, 20, 4 * 2_000), rng.integers(0, 100, 4 * 2_000))
    found = [finding for one in drifted(compared, counted(compared, moved, 4), 2_000, SELDOM) for finding in one]
    assert {(f.kind, f.against) for f in found} >= {("drift", "learned"), ("drift", "baseline")}


def test_words_that_nobody_has_seen_are_found_in_the_first_window_that_has_some() -> None:
    rng = np.random.default_rng(0)
    compared = compared_with(learned(rng.integers(0, 100, PIPELINE.reference_rows)))
    words = np.where(rng.random(2_000) < 0.05, 10**6, rng.integers(0, 100, 2_000))
    [found] = drifted(compared, counted(compared, words, 1), 2_000, SELDOM)
    assert {(f.kind, f.against) for f in found} >= {("quality", "learned"), ("quality", "baseline")}
