"""Micro-batches from records to published alerts, with a real store and without Spark."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from monitors.alerts import Alert
from monitors.baseline import Baselines
from monitors.batch import Monitor
from monitors.content import Content
from monitors.findings import of_examples
from monitors.history import History, WindowRecord
from monitors.performance.presence import Read
from monitors.questions import told_apart
from monitors.reports import Job, Outcome, Reports
from monitors.skipped import SUPPORT
from monitors.state import StateFiles
from monitors.status import Metrics
from monitors.summary import Summarise, Summary
from stream_trainer.contract import BinaryLabel, Categorical, ClassLabel, Numeric, Vector
from stream_trainer.errors import BrokerUnavailable, StoreUnavailable
from stream_trainer.pipeline import Pipeline
from stream_trainer.reference import Learned, Reference, coded
from stream_trainer.schema import TIMESTAMP
from stream_trainer.store import open_store
from stream_trainer.store.storage import LocalStorage

from .worlds import (
    CONTRACT,
    EXAMPLES,
    MONITORING,
    START,
    WINDOW,
    WINDOW_ROWS,
    columns,
    commit_version,
    example,
    features,
    frozen,
    kafka,
    pipeline,
    record,
    records,
    settings,
    store_with_reference,
)

KEY = "drift/learned/distance"


class NoReports(Reports):
    """Keeps what was asked for; `outcome` is what the next look finds."""

    def __init__(self) -> None:
        super().__init__(Path("nowhere"))
        self.asked: list[Job] = []
        self.outcome: Outcome | None = None

    def ask(self, job: Job) -> None:
        self.asked.append(job)

    def finished(self) -> Outcome | None:
        found, self.outcome = self.outcome, None
        return found


@dataclass
class World:
    """A monitor over a folder; `start` is a process start."""

    folder: Path
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(5))
    published: list[Alert] = field(default_factory=list)
    reports: NoReports = field(default_factory=NoReports)
    metrics: Metrics = field(default_factory=Metrics)
    broker_is_down: bool = False
    rows: int = 0

    def start(self, of: Pipeline | None = None, **changes: Any) -> Monitor:
        newest = {alert.alert_key: alert for alert in self.published}
        self.metrics = Metrics()
        storage = LocalStorage(self.folder / "checkpoint")
        of = of or pipeline("flights")
        return Monitor(
            of,
            baselines=Baselines(open_store(settings(self.folder), "flights"), of.contract.fingerprint),
            states=StateFiles(storage),
            history=History(storage),
            publish=self._publish,
            reports=self.reports,
            report_folder=self.folder / "reports",
            metrics=self.metrics,
            open_alerts={key: alert for key, alert in newest.items() if alert.status != "resolved"},
            **changes,
        )

    def values(self, rows: int, *, shift: float = 0.0, **changes: Any) -> list[bytes]:
        values = features(self.rng, rows, shift=shift)
        self.rows += rows
        return [record(self.rows - rows + i, value, **changes) for i, value in enumerate(values)]

    def batch(self, rows: int, *, shift: float = 0.0, **changes: Any) -> Callable[[Summarise], list[Summary]]:
        return read(kafka(self.values(rows, shift=shift, **changes), offset=self.rows))

    def statuses(self, key: str = KEY) -> list[str]:
        return [alert.status for alert in self.published if alert.alert_key == key]

    def history(self) -> Sequence[WindowRecord]:
        return History(LocalStorage(self.folder / "checkpoint")).newest(100)

    def closed(self, closing: str = "predictions") -> float:
        return self.metrics.value("windows_total", closing=closing)

    def _publish(self, alerts: Sequence[Alert]) -> None:
        if self.broker_is_down:
            raise BrokerUnavailable("down")
        self.published += alerts


def read(batch: pa.RecordBatch) -> Callable[[Summarise], list[Summary]]:
    return lambda worker: [worker.of(batch)]


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    store_with_reference(settings(tmp_path), "flights", made.rng)
    return made


def test_a_shifted_feature_opens_one_alert_that_ends_when_it_is_back(world: World) -> None:
    monitor = world.start()
    for number, shift in enumerate([0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0]):
        monitor.run(number, world.batch(WINDOW_ROWS, shift=shift))

    assert world.statuses() == ["opened", "resolved"]
    opened = next(alert for alert in world.published if alert.alert_key == KEY)
    assert (opened.feature, opened.severity, opened.model_version) == ("distance", "critical", 1)
    assert (opened.window.start, opened.window.rows) == (START + 2 * WINDOW, WINDOW_ROWS)
    assert opened.offsets["flights.predictions"][0][1] > 2 * WINDOW_ROWS
    assert {a.feature.partition("/")[0] for a in world.published} <= {"distance", "_projection"}
    assert world.closed() == 7
    assert world.metrics.value("rows_total") == world.rows
    assert len(world.reports.asked) == 1


def test_the_history_says_what_each_window_was_and_held(world: World) -> None:
    monitor = world.start()
    for number in range(2):
        monitor.run(number, world.batch(WINDOW_ROWS))
    monitor.run(2, world.batch(SUPPORT))

    first, second = world.history()
    assert (first.start, second.start, second.end) == (START, START + WINDOW, START + 2 * WINDOW)
    assert (first.rows, first.versions, first.late) == (WINDOW_ROWS, (1, 1), 0)
    assert {f.state for f in first.findings} <= {"quiet", "not enough data"}
    assert {(f.feature, f.against) for f in first.findings} >= {("distance", "learned"), ("distance", "baseline")}
    [distance] = [curve for curve in first.curves if curve.feature == "distance"]
    assert sum(distance.window) == WINDOW_ROWS
    assert sum(distance.baseline) == 2_000
    assert sum(distance.learned) == 4_000
    assert len(distance.bins) == len(distance.window) == 13


def two_versions(world: World) -> None:
    """Version 2 has learned from rows of longer distances, in the bins of version 1."""
    store = open_store(settings(world.folder), "flights")
    reference = Reference.from_bytes(store.reference(str(store.read(1).manifest.reference)))
    rows = features(world.rng, 4_000, shift=1.0)
    counted = coded(CONTRACT, reference, columns(rows, world.rng))
    commit_version(store, 2, reference, Learned().add(counted, pa.array([START] * len(rows), TIMESTAMP), 48))


def answered_by(world: World, monitor: Monitor, number: int, shifts: dict[int, float], *, in_turn: bool = True) -> None:
    """A window of rows of which each version answers as many, of these shifts; `in_turn`, or one after the other."""
    versions = list(shifts) * (WINDOW_ROWS // len(shifts))
    values = [
        record(number * WINDOW_ROWS + i, features(world.rng, 1, shift=shifts[version])[0], model_version=version)
        for i, version in enumerate(versions if in_turn else sorted(versions))
    ]
    monitor.run(number, read(kafka(values, offset=number * WINDOW_ROWS)))


@pytest.mark.parametrize(
    ("shifts", "states"),
    [({1: 0.0, 2: 1.0}, {1: "quiet", 2: "quiet"}), ({1: 1.0, 2: 1.0}, {1: "drift", 2: "quiet"}),
     ({1: 0.0, 2: 0.0}, {1: "quiet", 2: "drift"})],
)  # fmt: skip
def test_two_versions_in_a_window_are_each_compared_with_what_they_have_learned(
    world: World, shifts: dict[int, float], states: dict[int, str]
) -> None:
    two_versions(world)
    monitor = world.start()
    for number in range(2):
        answered_by(world, monitor, number, shifts)

    [window] = world.history()
    found = {f.segment: f for f in window.findings if f.feature == "distance" and f.kind == "drift" and f.segment}
    told = {v: found[f"_version={v}"] for v in shifts}
    assert {version: finding.state for version, finding in told.items()} == states
    assert {(f.rows, f.reference_rows, f.against) for f in told.values()} == {(WINDOW_ROWS // 2, 4_000, "learned")}
    assert window.versions == (1, 2)
    answers = {f.segment for f in window.findings if f.kind == "prediction"}
    assert {"_version=1", "_version=2"} <= answers


@pytest.mark.parametrize(
    ("rows", "state"), [(1, "drift"), (WINDOW_ROWS // 2 - 1, "drift"), (WINDOW_ROWS // 2, "quiet")]
)
def test_a_window_is_compared_with_what_the_version_of_most_rows_has_learned(
    world: World, rows: int, state: str
) -> None:
    two_versions(world)
    monitor = world.start()
    for number in range(2):
        versions = [2] * rows + [1] * (WINDOW_ROWS - rows)
        values = features(world.rng, WINDOW_ROWS, shift=1.0)
        told = [record(number * WINDOW_ROWS + i, v, model_version=versions[i]) for i, v in enumerate(values)]
        monitor.run(number, read(kafka(told, offset=number * WINDOW_ROWS)))
    found = {(f.feature, f.kind, f.against, f.segment): f.state for f in world.history()[0].findings}
    assert found["distance", "drift", "learned", ""] == state


def test_another_reference_is_in_use_only_once_its_version_answers_most_rows(world: World) -> None:
    commit_version(open_store(settings(world.folder), "flights"), 2, *frozen(np.random.default_rng(7)))
    monitor = world.start()
    monitor.run(0, world.batch(1, model_version=1))  # at the start the head's is in use, until a window says who serves
    for number in range(1, 12):
        versions = [2 if number % 2 else 1] + [1] * (WINDOW_ROWS - 1)
        values = features(world.rng, WINDOW_ROWS)
        told = [record(number * WINDOW_ROWS + i, v, model_version=versions[i]) for i, v in enumerate(values)]
        monitor.run(number, read(kafka(told, offset=number * WINDOW_ROWS)))
    bins = [curve.bins for window in world.history()[-6:] for curve in window.curves if curve.feature == "distance"]
    assert len(bins) == 6
    assert bins == [bins[0]] * 6


def test_where_one_version_answered_there_is_nothing_to_tell_apart(world: World) -> None:
    two_versions(world)
    monitor = world.start()
    for number in range(2):
        answered_by(world, monitor, number, {1: 0.0})
    assert not [f for f in world.history()[0].findings if f.segment.startswith("_version=")]


def test_versions_that_followed_each_other_are_not_told_apart(world: World) -> None:
    two_versions(world)
    monitor = world.start()
    for number in range(2):
        answered_by(world, monitor, number, {1: 0.0, 2: 1.0}, in_turn=False)
    assert world.history()[0].versions == (1, 2)
    assert not [f for f in world.history()[0].findings if f.segment.startswith("_version=")]


@pytest.mark.parametrize(
    ("parts", "beside"),
    [
        ({1: [50, 50, 50, 50], 2: [10, 40, 10, 30]}, [1, 2]),
        ({1: [50, 50, 50, 50], 2: [200, 3, 0, 0]}, []),  # a rollout in the first quarter, and its stragglers
        ({1: [300, 0, 2, 300], 2: [100, 0, 0, 100]}, [1, 2]),  # nobody asks at noon
        ({1: [90, 90, 0, 0], 2: [0, 0, 90, 90]}, []),
    ],
)
def test_versions_answer_side_by_side_when_each_has_its_share_of_all_parts_of_a_window(
    parts: dict[int, list[int]], beside: list[int]
) -> None:
    rows = {version: sum(each) for version, each in parts.items()}
    window = Content(rows=sum(rows.values()), versions=rows, parts=parts, by_version=dict.fromkeys(rows, b""))
    assert told_apart(window, 50) == beside


def test_the_history_says_how_many_different_values_there_were(world: World) -> None:
    monitor = world.start()
    for number in range(2):
        monitor.run(number, world.batch(WINDOW_ROWS))

    found = {f.feature: f.distinct for f in world.history()[0].findings if f.distinct and f.against == "learned"}
    assert set(found) == {"distance", "dep_hour", "carrier"}
    for name, values in (("distance", WINDOW_ROWS), ("dep_hour", 24), ("carrier", 4)):
        distinct = found[name]
        assert distinct is not None
        assert distinct.values == pytest.approx(values, rel=3 * distinct.error)
        assert distinct.error == pytest.approx(1.04 / 32)


def test_an_open_alert_about_what_is_no_longer_watched_ends_at_the_next_start(world: World) -> None:
    monitor = world.start()
    for number, shift in enumerate((0.0, 2.0, 2.0)):
        monitor.run(number, world.batch(WINDOW_ROWS, shift=shift))
    assert world.statuses() == ["opened"]

    watched = replace(pipeline("flights"), monitoring=replace(MONITORING, unwatched=("distance",)))
    world.start(watched).run(3, world.batch(10))
    assert world.statuses() == ["opened", "resolved"]
    assert "distance: it is no longer watched" in [alert.message for alert in world.published]
    assert world.metrics.value("open_alert", feature="distance") == 0


def test_columns_that_go_missing_in_the_same_rows_open_one_alert_by_all_their_names(world: World) -> None:
    monitor = world.start()
    for number, broken in enumerate(
        [(), (), ("distance", "dep_hour", "carrier"), ("distance", "dep_hour", "carrier"), ()]
    ):
        values = features(world.rng, WINDOW_ROWS)
        for i, name in ((i, name) for i in range(0, WINDOW_ROWS, 5) for name in broken):
            values[i][name] = None
        rows = [record(number * WINDOW_ROWS + i, value) for i, value in enumerate(values)]
        monitor.run(number, read(kafka(rows, offset=number * WINDOW_ROWS)))

    opened = [alert for alert in world.published if alert.kind == "quality" and not alert.segment]
    assert [(alert.alert_key, alert.status) for alert in opened] == [("quality/learned/distance", "opened")]
    assert opened[0].features == ("distance", "dep_hour", "carrier")
    assert opened[0].message.startswith("distance, dep_hour, carrier: these columns go missing in the same rows")


def broken_stream(world: World, broken: Sequence[int], *, again: int | None = None) -> None:
    """Batch after batch of a window each; of `broken[i]` records of batch i nothing can be read, besides one that always is."""
    monitor = world.start()
    offset = 0
    for number, rows in enumerate(broken):
        values = world.values(WINDOW_ROWS)
        bad = [b"{", *[value[: len(value) // 2] for value in values[:rows]]]
        batch = read(kafka([*values[: WINDOW_ROWS // 2], *bad, *values[WINDOW_ROWS // 2 :]], offset=offset))
        offset += WINDOW_ROWS + len(bad)
        monitor.run(number, batch)
        if number == again:
            monitor = world.start()
            monitor.run(number, batch)


@pytest.mark.parametrize("again", [None, 3])
def test_s18_a_producer_that_starts_to_send_broken_records_is_told_once_with_its_offsets(
    world: World, again: int | None
) -> None:
    broken_stream(world, [0, 0, 0, 60, 60, 0, 0, 0], again=again)

    events = [alert for alert in world.published if alert.kind == "schema"]
    assert [(event.alert_key, event.status) for event in events] == [
        ("schema/invalid_json", "opened"),
        ("schema/invalid_json", "resolved"),
    ]
    opened = events[0]
    first = 3 * (WINDOW_ROWS + 1) + WINDOW_ROWS // 2
    assert opened.offsets == {"flights.predictions": {0: (first, first + 61)}}
    assert (opened.window.start, opened.window.rows, opened.against) == (START + 3 * WINDOW, WINDOW_ROWS + 61, "limit")
    assert "0.20% -> 10.87% of all records" in opened.message
    assert f"flights.predictions/0 from offset {first}" in opened.message
    said = [[f.state for f in window.findings if f.kind == "schema"] for window in world.history()]
    assert said == [["not enough data"], ["quiet"], ["quiet"], ["drift"], ["drift"], ["quiet"], ["quiet"]]


def test_a_steady_share_of_broken_records_is_no_news(world: World) -> None:
    broken_stream(world, [40] * 6)
    assert not [alert for alert in world.published if alert.kind == "schema"]


def test_what_was_read_is_told_and_when_labels_came_outlives_a_restart(world: World) -> None:
    """Where nothing can be read any more, there is silence."""
    seen: list[Read] = []
    monitor = world.start(saw=seen.append)
    monitor.run(0, world.batch(10))
    values = [example(i, one, label=i % 2) for i, one in enumerate(features(world.rng, 3))]
    monitor.run(1, read(kafka([*values, b"{"], topic=EXAMPLES, after=86_500.0)))
    monitor = world.start(saw=seen.append)
    for number, after in enumerate((86_600.0, 86_700.0), start=2):
        monitor.run(number, read(kafka(world.values(9), offset=100 * number, after=after)))
    monitor.run(4, read(kafka([b"{"] * 9, offset=400, partition=1)))
    monitor.run(5, read(kafka([b"{"], topic=EXAMPLES, after=90_000.0)))
    assert [one.prediction is None for one in seen] == [False, True, False, False, True, True]
    assert [one.offsets for one in seen] == [{0: 20}, {}, {0: 209}, {0: 309}, {1: 409}, {}]
    assert [one.labelling.unlabelled.total_seconds() for one in seen] == [0, 0, 0, 100, 100, 100]
    assert seen[-1].labelling.label == START + timedelta(seconds=86_500)


def test_labels_are_compared_when_they_come_and_join_the_window_in_the_history(world: World) -> None:
    monitor = world.start()
    values = features(world.rng, 2 * WINDOW_ROWS + SUPPORT)
    labelled = [example(i, value, label=int(i % 10 == 0)) for i, value in enumerate(values)]
    monitor.run(0, world.batch(WINDOW_ROWS + SUPPORT))
    monitor.run(1, read(kafka(labelled, topic=EXAMPLES)))

    assert world.statuses("label/learned/_label") == ["opened"]
    first = world.history()[0]
    assert first.rows == WINDOW_ROWS
    assert {"drift", "label"} <= {finding.kind for finding in first.findings}
    assert set(first.offsets) == {"flights.predictions", EXAMPLES}
    assert "log_loss" in first.scores
    assert world.closed("labels") == 2


def test_labels_alone_neither_renew_nor_repeat_the_verdicts_of_predictions(world: World) -> None:
    monitor, now = world.start(), [1.0]
    world.metrics = monitor.metrics = Metrics(clock=lambda: now[0])
    monitor.run(0, world.batch(WINDOW_ROWS + SUPPORT))
    drift = {"kind": "drift", "feature": "distance", "against": "learned", "segment": ""}
    verdicts = world.metrics.value("verdicts_total")
    values = features(world.rng, 3 * WINDOW_ROWS + SUPPORT)
    labelled = [example(i, value, label=i % 2) for i, value in enumerate(values)]
    now[0] = 2.0
    monitor.run(1, read(kafka(labelled, topic=EXAMPLES)))

    assert (world.closed("predictions"), world.closed("labels")) == (1, 3)
    assert world.metrics.value("evaluated_timestamp_seconds", **drift) == 1.0
    assert world.metrics.value("evaluated_timestamp_seconds", **drift | {"kind": "label", "feature": "_label"}) == 2.0
    told = [finding for window in world.history() for finding in window.findings]
    of_labels = [f for f in told if of_examples(f.kind, f.feature)]
    assert world.metrics.value("verdicts_total") - verdicts == len(of_labels)


def test_f40_late_and_out_of_order_predictions_count_in_the_window_of_their_event(world: World) -> None:
    values = world.values(2 * WINDOW_ROWS + SUPPORT)
    shuffled = [values[i] for i in world.rng.permutation(len(values))]
    skewed = record(0, features(world.rng, 1)[0], event_time=None, requested_at=START + 2000 * WINDOW)
    monitor = world.start()
    monitor.run(0, read(kafka([*shuffled, skewed])))
    monitor.run(1, read(kafka(values[:7])))
    monitor.run(2, world.batch(WINDOW_ROWS))

    assert [(w.rows, w.late) for w in world.history()] == [(WINDOW_ROWS, 0), (WINDOW_ROWS, 0), (WINDOW_ROWS, 7)]
    assert world.metrics.value("late_rows_total") == 7


def test_f40_windows_do_not_depend_on_the_batches(tmp_path: Path) -> None:
    found = []
    for name, pieces in (("one", 1), ("many", 11)):
        world = World(tmp_path / name)
        store_with_reference(settings(world.folder), "flights", world.rng)
        values = world.values(3 * WINDOW_ROWS, shift=0.2)
        size = -(-len(values) // pieces)
        monitor = world.start()
        for number in range(pieces):
            monitor.run(number, read(kafka(values[number * size : (number + 1) * size], offset=number * size)))
        found.append((world.history(), world.published))
    assert found[0] == found[1]


def test_f38_a_kill_between_alert_and_state_sends_the_same_event_under_the_same_key(world: World) -> None:
    monitor = world.start()
    monitor.run(0, world.batch(WINDOW_ROWS, shift=1.0))
    batch = world.batch(SUPPORT, shift=1.0)

    class Killed(Exception):
        pass

    def killed(*_: object) -> None:
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StateFiles, "save", killed)
        with pytest.raises(Killed):
            monitor.run(1, batch)
    before = list(world.published)
    world.published = []
    world.start().run(1, batch)

    assert KEY in {alert.alert_key for alert in before}
    assert [msgspec.json.encode(a) for a in world.published] == [msgspec.json.encode(a) for a in before]


def test_f39_windows_of_versions_that_cannot_be_compared_are_not_enough_data(world: World) -> None:
    store = open_store(settings(world.folder), "flights")
    commit_version(store, 2, *frozen(np.random.default_rng(7)))
    for path in (world.folder / "models").rglob("versions/*1/*/learned.arrow"):
        path.write_bytes(b"torn")
    monitor = world.start()
    monitor.run(0, world.batch(WINDOW_ROWS, shift=2.0, model_version=1))
    monitor.run(1, world.batch(WINDOW_ROWS, shift=2.0, model_version=77))
    monitor.run(2, world.batch(SUPPORT))

    assert world.statuses() == []
    for window in world.history():
        assert {f.state for f in window.findings if f.against == "learned" and f.feature} == {"not enough data"}


def test_f39_columns_without_values_and_constant_ones_are_neither_drift_nor_a_crash(world: World) -> None:
    monitor = world.start()
    values = [{"distance": 1.0, "place": [0.0, 0.0]} for _ in range(40)]
    monitor.run(0, read(kafka(records(values))))
    world.rows = WINDOW_ROWS
    monitor.run(1, world.batch(SUPPORT))

    [window] = world.history()
    assert {f.state for f in window.findings if f.kind == "drift"} == {"not enough data"}


def test_a_report_that_was_written_is_added_to_the_open_alert(world: World) -> None:
    monitor = world.start()
    for number in range(2):
        monitor.run(number, world.batch(WINDOW_ROWS, shift=1.0))
    [job] = world.reports.asked
    world.reports.outcome = Outcome(job, True, "")
    monitor.run(2, world.batch(10))

    assert world.statuses() == ["opened", "updated"]
    assert world.published[-1].report == job.out.name


def test_a_failed_report_disturbs_nothing(world: World) -> None:
    monitor = world.start()
    for number in range(2):
        monitor.run(number, world.batch(WINDOW_ROWS, shift=1.0))
    world.reports.outcome = Outcome(world.reports.asked[0], False, "exit -14")
    monitor.run(2, world.batch(WINDOW_ROWS, shift=1.0))

    assert world.statuses() == ["opened"]
    assert world.metrics.value("reports_total", outcome="failed") == 1


def test_an_open_window_survives_a_restart(world: World) -> None:
    world.start().run(0, world.batch(300))
    world.start().run(1, world.batch(200 + SUPPORT))

    assert [window.rows for window in world.history()] == [WINDOW_ROWS]


def test_a_batch_that_comes_back_is_counted_once(world: World) -> None:
    monitor = world.start()
    batches = [world.batch(WINDOW_ROWS, shift=1.0) for _ in range(3)]
    for number, batch in enumerate(batches[:2]):
        monitor.run(number, batch)
    restarted = world.start()
    restarted.run(1, batches[1])
    restarted.run(2, batches[2])

    assert [window.rows for window in world.history()] == [WINDOW_ROWS] * 2
    keys = {alert.alert_key for alert in world.published}
    assert len({(a.alert_key, a.opened_at) for a in world.published}) == len(keys)


def test_a_batch_that_could_not_publish_publishes_when_it_comes_back(world: World) -> None:
    monitor = world.start()
    monitor.run(0, world.batch(WINDOW_ROWS, shift=1.0))
    batch, world.broker_is_down = world.batch(WINDOW_ROWS, shift=1.0), True
    with pytest.raises(BrokerUnavailable):
        monitor.run(1, batch)
    world.broker_is_down = False
    world.start().run(1, batch)

    assert world.statuses() == ["opened"]


def test_without_a_reference_rows_are_only_counted_until_one_is_frozen(tmp_path: Path) -> None:
    world = World(tmp_path)
    monitor = world.start()
    monitor.run(0, world.batch(WINDOW_ROWS))
    commit_version(open_store(settings(tmp_path), "flights"), 1, *frozen(world.rng))
    for number in range(1, 4):
        monitor.run(number, world.batch(WINDOW_ROWS))

    windows = world.history()
    assert [window.rows for window in windows] == [WINDOW_ROWS] * 3
    assert {f.state for f in windows[0].findings} <= {"not enough data"}
    assert "quiet" in {f.state for f in windows[2].findings}


OTHER_CONTRACTS: dict[str, dict[str, Any]] = {
    "feature added": {"features": [*CONTRACT.features, Numeric("wind", optional=True)]},
    "feature removed": {"features": [CONTRACT.features[0], *CONTRACT.features[2:]]},
    "vector grown": {"features": [*CONTRACT.features[:3], Vector("place", 3)]},
    "number to words": {"features": [Categorical("distance", buckets=5), *CONTRACT.features[1:]]},
    "segment removed": {"segments": ["carrier"]},
    "segment added": {"segments": ["origin", "carrier", "tier"]},
    "label renamed": {"label": BinaryLabel("delayed")},
    "label of classes": {"label": ClassLabel("late", ["a", "b", "c"])},
}


@pytest.mark.parametrize("change", OTHER_CONTRACTS)
def test_f39_nothing_is_compared_with_what_was_learned_under_another_contract(
    world: World, change: str, caplog: pytest.LogCaptureFixture
) -> None:
    world.start().run(0, world.batch(WINDOW_ROWS))
    changed = replace(pipeline("flights"), contract=replace(CONTRACT, **OTHER_CONTRACTS[change]))
    output = [0.2, 0.3, 0.5] if change == "label of classes" else 0.5
    asked: dict[str, dict[str, Any]] = {"vector grown": {"place": [0.0] * 3}, "number to words": {"distance": "x"}}
    monitor = world.start(changed)
    for number in range(1, 4):
        values = [value | asked.get(change, {}) for value in features(world.rng, WINDOW_ROWS)]
        told = [record(number * WINDOW_ROWS + i, value, output=output) for i, value in enumerate(values)]
        monitor.run(number, read(kafka(told, offset=number * WINDOW_ROWS)))

    assert [window.rows for window in world.history()] == [WINDOW_ROWS] * 3
    assert not [f for window in world.history() for f in window.findings if f.state != "not enough data"]
    assert world.published == []
    assert "learned under contract" in caplog.text


def test_windows_wait_for_a_store_that_does_not_answer(world: World) -> None:
    monitor = world.start()
    monitor.run(0, world.batch(100))

    def silent(*_: object) -> None:
        raise StoreUnavailable("no answer")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Baselines, "of", silent)
        monitor.run(1, world.batch(2 * WINDOW_ROWS))
    assert world.closed() == 0
    world.start().run(2, world.batch(1))

    assert [window.rows for window in world.history()] == [WINDOW_ROWS] * 2


def test_unreadable_state_costs_the_open_windows_and_nothing_else(world: World) -> None:
    world.start().run(0, world.batch(300))
    for path in (world.folder / "checkpoint/state").rglob("*.msgpack"):
        path.write_bytes(b"torn")
    world.start().run(1, world.batch(WINDOW_ROWS))

    assert [window.rows for window in world.history()] == [200]


def test_only_the_last_two_states_are_kept(world: World) -> None:
    monitor = world.start()
    for number in range(5):
        monitor.run(number, world.batch(10))

    assert len(list((world.folder / "checkpoint/state").rglob("*.msgpack"))) == 2


def test_what_explains_is_told_in_the_alerts(world: World) -> None:
    shares = {"dep_hour": 0.25, "distance": 0.5, **{f"other-{i:02d}": 0.01 for i in range(20)}}
    monitor = world.start(explain=lambda findings, window, compared: shares)
    for number in range(2):
        monitor.run(number, world.batch(WINDOW_ROWS, shift=1.0))
    [opened] = [alert for alert in world.published if alert.alert_key == KEY]
    assert opened.weight == 0.5
    assert opened.ranking[:3] == (("distance", 0.5), ("dep_hour", 0.25), ("other-00", 0.01))
    assert len(opened.ranking) == 10
    assert (opened.rows, opened.reference_rows) == (WINDOW_ROWS, 4_000)


@pytest.mark.parametrize(("windows", "times", "closed"), [(12, 4, 3), (3, 0.25, 11)])
def test_windows_of_another_length_begin_anew_and_keep_the_open_alerts(
    world: World, windows: int, times: float, closed: int
) -> None:
    monitor = world.start()
    for number in range(3):
        monitor.run(number, world.batch(WINDOW_ROWS, shift=1.0))
    assert world.statuses() == ["opened"]
    monitor = world.start(replace(pipeline("flights"), monitoring=replace(MONITORING, window=WINDOW * times)))
    for number in range(3, 3 + windows):
        monitor.run(number, world.batch(WINDOW_ROWS, shift=1.0))
    assert world.closed() == closed
    assert world.metrics.value("late_rows_total") == 0
    assert {record.start.year for record in world.history()} == {START.year}
    assert world.statuses() == ["opened"]
    for number in range(3 + windows, 3 + 3 * windows):
        monitor.run(number, world.batch(WINDOW_ROWS))
    assert world.statuses()[-1] == "resolved"
