"""The pure core over many windows: how often it cries wolf, how soon it finds a change of known size, and what it names."""

from collections.abc import Iterator

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import poisson

from monitors import life
from monitors.alerts import Alert
from monitors.baseline import Baseline, Frozen
from monitors.content import MIXED, Content
from monitors.findings import Finding
from monitors.history import Curve, WindowRecord
from monitors.judging import FEATURES, Judge, joined
from monitors.life import Life, LifePolicy
from monitors.performance.step import PerformanceState
from monitors.questions import Compared, asked_of_examples, asked_of_predictions, outputs
from monitors.scales import Blocks
from monitors.usual import Usual
from monitors.windows import Closed
from stream_trainer.contract import BinaryLabel, Categorical, Contract, Numeric
from stream_trainer.monitoring import Monitoring
from stream_trainer.reference import LABEL, OUTPUT, Reference, coded, freeze, pack
from stream_trainer.reference.counting import Cells

from .worlds import START, WINDOW

CONTRACT = Contract(
    features=[Numeric("x", optional=True), Categorical("word", buckets=9)],
    label=BinaryLabel("y"),
    key="k",
    event_time="t",
)
WORDS = np.array(list("abcdef"))
OFTEN = Monitoring(window=WINDOW, lateness=0 * WINDOW, false_alarm_every=50 * WINDOW)
SELDOM = Monitoring(window=WINDOW, lateness=0 * WINDOW)
ROWS = 200


def columns(rng: np.random.Generator, rows: int, shift: float = 0.0) -> dict[str, pa.Array]:
    return {
        "x": pa.array(rng.normal(shift, 1.0, rows)),
        "word": pa.array(rng.choice(WORDS, rows, p=[0.5, 0.2, 0.1, 0.1, 0.05, 0.05])),
        OUTPUT: pa.array(rng.uniform(size=(rows, 1)).tolist(), pa.list_(pa.float64())),
        LABEL: pa.array(rng.integers(0, 2, rows).astype(float)),
    }


def counted(reference: Reference, given: dict[str, pa.Array], windows: int = 1) -> Cells:
    rows = len(given["x"])
    features = [bins.feature for bins in reference.bins if bins.feature != LABEL]
    return coded(CONTRACT, reference, given, features).count(np.arange(rows) * windows // rows, windows)


@pytest.fixture(scope="module")
def compared() -> Compared:
    rng = np.random.default_rng(3)
    frozen = Frozen("bins", freeze(CONTRACT, columns(rng, 2_000)))
    learned = counted(frozen.reference, columns(rng, 40_000))[0]
    return Compared(frozen=frozen, served=Baseline(1, frozen, learned))


def content(cells: Cells, rows: int = ROWS) -> Content:
    return Content(rows=rows, versions={1: rows}, digest="bins", counts=pack(cells))


def opened(compared: Compared, cells: Cells, monitoring: Monitoring, rows: int = ROWS) -> Iterator[tuple[int, Alert]]:
    """The alerts that open, and the window each opens with."""
    judge, blocks, known, usual, alerts = (
        Judge(pipeline="p", monitoring=monitoring),
        Blocks[Content](),
        PerformanceState(),
        Usual(),
        Life(),
    )
    policy = LifePolicy(cooldown=0 * WINDOW, resolve_after=1)
    for i, row in enumerate(cells):
        start = START + i * WINDOW
        closed = Closed(number=i, start=start, end=start + WINDOW, content=content(row, rows))
        found = judge.predictions(closed, compared, blocks, known, usual)
        blocks, known, usual = found.blocks, found.performance, found.usual
        for told in found.rounds:
            alerts, events = life.step(alerts, told.findings, told.seen, policy)
            yield from ((i, event) for event in events if event.status == "opened")


def test_f37_a_thousand_quiet_windows_cry_wolf_no_more_often_than_stated(compared: Compared) -> None:
    assert compared.frozen is not None
    windows = 1_000
    cells = counted(compared.frozen.reference, columns(np.random.default_rng(11), windows * 50), windows)
    alarms = {i for i, _ in opened(compared, cells, OFTEN, rows=50)}
    assert len(alarms) <= windows * OFTEN.false_alarms_per_window * FEATURES + 1
    assert len(alarms) <= poisson.ppf(0.999, windows * OFTEN.false_alarms_per_window)


@pytest.mark.parametrize(("shift", "within"), [(1.0, 1), (0.5, 4), (0.25, 16)])
def test_f37_a_shift_is_found_soon_and_by_name(compared: Compared, shift: float, within: int) -> None:
    assert compared.frozen is not None
    rng, quiet = np.random.default_rng(5), 4
    reference = compared.frozen.reference
    cells = np.vstack(
        [
            counted(reference, columns(rng, quiet * ROWS), quiet),
            counted(reference, columns(rng, 2 * within * ROWS, shift), 2 * within),
        ]
    )
    i, alert = next(opened(compared, cells, SELDOM))
    assert quiet <= i < quiet + 2 * within
    assert (alert.kind, alert.feature, alert.segment) == ("drift", "x", "")
    assert alert.alert_key == "drift/learned/x"


def test_one_absurd_value_changes_no_decision(compared: Compared) -> None:
    assert compared.frozen is not None
    given = columns(np.random.default_rng(2), ROWS)
    absurd = given | {"x": pa.array([1e6, *given["x"].to_pylist()[1:]])}
    states = []
    for one in (given, absurd):
        cells = counted(compared.frozen.reference, one)
        judge = Judge(pipeline="p", monitoring=SELDOM)
        closed = Closed(number=0, start=START, end=START + WINDOW, content=content(cells[0]))
        found = judge.predictions(closed, compared, Blocks(), PerformanceState(), Usual())
        states.append([(f.feature, f.kind, f.against, f.state) for f in found.findings])
    assert states[0] == states[1]


@pytest.mark.parametrize(
    ("held", "served", "why"),
    [
        (Content(rows=9), True, "no bins"),
        (Content(rows=9, digest=MIXED), True, "different bins"),
        (Content(rows=9, digest="older"), True, "other bins"),
        (None, False, "no version"),
    ],
)
def test_f39_what_cannot_be_compared_says_why(compared: Compared, held: Content | None, served: bool, why: str) -> None:
    assert compared.frozen is not None
    given = held or content(counted(compared.frozen.reference, columns(np.random.default_rng(1), 300))[0], 300)
    known = Compared(frozen=compared.frozen, served=compared.served if served else None)
    questions = [q for q in asked_of_predictions(given, known) if q.against == "learned"]
    assert questions
    assert all(why in q.unanswerable for q in questions)
    found = Judge(pipeline="p", monitoring=SELDOM).predictions(
        Closed(number=0, start=START, end=START + WINDOW, content=given), known, Blocks(), PerformanceState(), Usual()
    )
    assert {f.state for f in found.findings if f.against == "learned"} == {"not enough data"}
    assert Compared(frozen=None, served=None).unanswerable(given, "baseline") == "no bins are frozen yet"


def test_answers_have_no_baseline_and_labels_are_asked_of_examples_alone(compared: Compared) -> None:
    assert compared.frozen is not None
    given = content(counted(compared.frozen.reference, columns(np.random.default_rng(1), 300))[0], 300)
    asked = {(q.feature, q.against) for q in asked_of_predictions(given, compared)}
    assert asked == {
        ("x", "learned"),
        ("x", "baseline"),
        ("word", "learned"),
        ("word", "baseline"),
        (OUTPUT, "learned"),
    }
    assert {q.kind for q in asked_of_examples(given, compared)} == {"label"}
    assert sum(outputs(given, compared)) == 300
    assert len(outputs(given, compared)) == 100


def test_the_record_of_a_window_is_the_same_whichever_topic_closed_it_first() -> None:
    def record(feature: str, rows: int) -> WindowRecord:
        curve = Curve(feature=feature, bins=["a"], window=[rows], baseline=[1], learned=[1])
        scores = {feature: float(rows)}
        return WindowRecord(
            start=START, end=START + WINDOW, rows=rows, curves=[curve], versions=(rows, rows), scores=scores
        )

    asked, labelled = record("x", 7), record(LABEL, 0)
    first = joined(joined(None, asked, labels=False), labelled, labels=True)
    second = joined(joined(None, labelled, labels=True), asked, labels=False)
    assert (first.rows, first.versions, first.scores) == (second.rows, second.versions, second.scores)
    assert {curve.feature for curve in first.curves} == {curve.feature for curve in second.curves} == {"x", LABEL}
    assert joined(first, asked, labels=False).scores == first.scores


def test_a_window_of_mixed_bins_forgets_nothing_that_is_usual(compared: Compared) -> None:
    judge = Judge(pipeline="flights", monitoring=SELDOM)
    usual = Usual(key="bins", windows=9)
    for content, windows in ((Content(rows=9, digest=MIXED), 9), (Content(rows=9), 9)):
        closed = Closed(number=0, start=START, end=START + WINDOW, content=content)
        found = judge.predictions(closed, compared, Blocks(), PerformanceState(), usual)
        assert (found.usual.key, found.usual.windows) == ("bins", windows)


def test_judging_a_window_of_labels_again_repeats_no_finding() -> None:
    found = [
        Finding(kind="label", feature=LABEL, against="learned", state="quiet"),
        Finding(kind="quality", feature=LABEL, against="learned", state="quiet"),
        Finding(kind="loss", feature="", against="learned", state="quiet"),
    ]
    asked = WindowRecord(
        start=START, end=START + WINDOW, rows=1, findings=[msgspec.structs.replace(found[1], feature="x")]
    )
    labelled = WindowRecord(start=START, end=START + WINDOW, rows=0, findings=found)
    once = joined(asked, labelled, labels=True)
    assert joined(once, labelled, labels=True) == once
    assert len(joined(once, asked, labels=False).findings) == 4
