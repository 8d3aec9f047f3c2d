"""Micro-batches from records to published alerts, with a real store and without Spark."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from monitors.alerts import Alert
from monitors.baseline import Baselines
from monitors.batch import Monitor, Policies
from monitors.reports import Job, Outcome, Reports
from monitors.state import StateFiles
from monitors.status import Metrics
from monitors.summary import Summarise, Summary
from stream_trainer.errors import BrokerUnavailable, StoreUnavailable
from stream_trainer.settings import MonitorSettings
from stream_trainer.store import open_store
from stream_trainer.store.storage import LocalStorage

from .worlds import commit_version, features, frozen, pipeline, records, settings, store_with_reference

WINDOW = MonitorSettings(window_rows=500)


class NoReports(Reports):
    """Keeps what was asked for; `outcome` is what the next look finds."""

    def __init__(self) -> None:
        super().__init__()
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

    def start(self) -> Monitor:
        of = settings(self.folder, monitor=WINDOW)
        newest = {alert.alert_key: alert for alert in self.published}
        self.metrics = Metrics()
        return Monitor(
            pipeline("flights"),
            Policies.of(of.monitor),
            baselines=Baselines(open_store(of, "flights")),
            states=StateFiles(LocalStorage(self.folder / "checkpoint")),
            publish=self._publish,
            reports=self.reports,
            report_folder=self.folder / "reports",
            metrics=self.metrics,
            open_alerts={key: alert for key, alert in newest.items() if alert.status != "resolved"},
        )

    def batch(self, rows: int, *, shift: float = 0.0) -> Callable[[Summarise], list[Summary]]:
        values = records(features(self.rng, rows, shift=shift), self.rows)
        self.rows += rows
        return lambda worker: [worker.of(values)]

    def statuses(self) -> list[tuple[str, str]]:
        return [(alert.alert_key, alert.status) for alert in self.published]

    def _publish(self, alerts: Sequence[Alert]) -> None:
        if self.broker_is_down:
            raise BrokerUnavailable("down")
        self.published += alerts


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    store_with_reference(settings(tmp_path), "flights", made.rng)
    return made


def test_a_shifted_feature_opens_one_alert_that_ends_when_it_is_back(world: World) -> None:
    monitor = world.start()
    for number, shift in enumerate([0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0]):
        monitor.run(number, world.batch(500, shift=shift))

    assert world.statuses() == [("drift/distance", "opened"), ("drift/distance", "resolved")]
    assert world.metrics.value("windows_total", closing="full") == 7
    assert world.metrics.value("rows_total") == 3_500
    assert world.metrics.value("open_alerts") == 0
    assert len(world.reports.asked) == 1


def test_a_report_that_was_written_is_added_to_the_open_alert(world: World) -> None:
    monitor = world.start()
    for number in range(2):
        monitor.run(number, world.batch(500, shift=1.0))
    [job] = world.reports.asked
    world.reports.outcome = Outcome(job, True, "")
    monitor.run(2, world.batch(10))

    assert world.statuses() == [("drift/distance", "opened"), ("drift/distance", "updated")]
    assert world.published[-1].report == str(job.out)
    assert job.out.name.startswith("drift-distance-")


def test_a_failed_report_disturbs_nothing(world: World) -> None:
    monitor = world.start()
    for number in range(2):
        monitor.run(number, world.batch(500, shift=1.0))
    world.reports.outcome = Outcome(world.reports.asked[0], False, "exit -14")
    monitor.run(2, world.batch(500, shift=1.0))

    assert world.statuses() == [("drift/distance", "opened")]
    assert world.metrics.value("reports_total", outcome="failed") == 1


def test_an_open_window_survives_a_restart(world: World) -> None:
    world.start().run(0, world.batch(300))
    restarted = world.start()
    restarted.run(1, world.batch(200))

    assert world.metrics.value("windows_total", closing="full") == 1


def test_a_batch_that_comes_back_is_counted_once_and_publishes_no_second_opening(world: World) -> None:
    monitor = world.start()
    batches = [world.batch(500, shift=1.0) for _ in range(3)]
    for number, batch in enumerate(batches[:2]):
        monitor.run(number, batch)
    restarted = world.start()
    restarted.run(1, batches[1])
    restarted.run(2, batches[2])

    assert world.statuses() == [("drift/distance", "opened")]


def test_a_batch_that_could_not_publish_publishes_when_it_comes_back(world: World) -> None:
    monitor = world.start()
    monitor.run(0, world.batch(500, shift=1.0))
    batch, world.broker_is_down = world.batch(500, shift=1.0), True
    with pytest.raises(BrokerUnavailable):
        monitor.run(1, batch)
    world.broker_is_down = False
    world.start().run(1, batch)

    assert world.statuses() == [("drift/distance", "opened")]


def test_without_a_reference_rows_are_only_counted_until_one_is_frozen(tmp_path: Path) -> None:
    world = World(tmp_path)
    monitor = world.start()
    monitor.run(0, world.batch(600))
    store = open_store(settings(tmp_path), "flights")
    commit_version(store, 1, None, None)
    monitor.run(1, world.batch(600))
    assert world.metrics.value("windows_total", closing="full") == 0
    commit_version(store, 2, *frozen(world.rng))
    monitor.run(2, world.batch(600))

    assert world.metrics.value("rows_total") == 1_800
    # Version 1, which they name, had no bins: the newest one stands in for it.
    assert world.metrics.value("windows_total", closing="full") == 1


def test_a_damaged_version_is_passed_over_for_the_newest(world: World) -> None:
    store = open_store(settings(world.folder), "flights")
    reference, learned = frozen(np.random.default_rng(5))
    commit_version(store, 2, reference, learned)
    for path in (world.folder / "models").rglob("versions/*1/*/learned.arrow"):
        path.write_bytes(b"torn")
    monitor = world.start()
    monitor.run(0, world.batch(500))
    monitor.run(1, world.batch(500))

    assert world.metrics.value("verdicts_total", verdict="drift") == 0
    assert world.metrics.value("windows_total", closing="full") == 2


def test_a_window_waits_for_a_store_that_does_not_answer(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monitor = world.start()
    monitor.run(0, world.batch(100))

    def silent(*_: object) -> None:
        raise StoreUnavailable("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(Baselines, "of", silent)
        monitor.run(1, world.batch(500))
    assert world.metrics.value("windows_total", closing="full") == 0
    monitor.run(2, world.batch(1))

    assert world.metrics.value("windows_total", closing="full") == 1


def test_unreadable_state_costs_a_window_and_nothing_else(world: World) -> None:
    world.start().run(0, world.batch(300))
    for path in (world.folder / "checkpoint").rglob("*.msgpack"):
        path.write_bytes(b"torn")
    world.start().run(1, world.batch(300))

    assert world.metrics.value("windows_total", closing="full") == 0


def test_only_the_last_two_states_are_kept(world: World) -> None:
    monitor = world.start()
    for number in range(5):
        monitor.run(number, world.batch(10))

    assert len(list((world.folder / "checkpoint").rglob("*.msgpack"))) == 2
