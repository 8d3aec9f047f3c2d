"""What the demo concludes from what it has seen."""

from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

from infra import demo_view
from infra.demo_facts import Facts, scores
from infra.demo_view import ENOUGH, judge, line, panel, summary
from stream_trainer.store import Rows, Span, Version
from tests.core.test_microbatch import World, fill

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Version:
    world = World(tmp_path_factory.mktemp("models"))
    fill(world)
    world.learn()
    return world.store.read(1)


def version(real: Version, number: int, trained: int, at: datetime = NOW, **fields: Any) -> Version:
    changed = msgspec.structs.replace(
        real.manifest, version=number, total=Rows(seen=trained, trained=trained), created_at=at, **fields
    )
    return Version(changed, "0" * 64)


def scored(real: Version, model: float, majority: float) -> dict[str, Any]:
    """Since the start; over the newest rows it is as it was."""
    metrics = real.manifest.metrics
    since = metrics["since_start"]
    since = {**since, "log_loss": model, "majority": {**since["majority"], "log_loss": majority}}
    return {**metrics, "since_start": since}


def facts(head: Version | None, **fields: Any) -> Facts:
    served = {1: NOW, 2: NOW}
    joined = {"labels": 5, "examples": 4, "read_until": None}
    return Facts(**({"answered": 10, "head": head, "versions": 2, "first_served": served} | joined | fields))


def shown(renderable: object) -> str:
    out = StringIO()
    Console(file=out, width=120).print(renderable)
    return out.getvalue()


def test_before_enough_examples_it_is_too_early_to_compare(real: Version) -> None:
    head = version(real, 2, ENOUGH - 1, metrics=scored(real, 0.9, 0.1))
    verdict = judge(facts(head))
    assert verdict.passed
    assert "too early: 19,999 of 20,000" in verdict.lines[3][1]


@pytest.mark.parametrize(("model", "majority", "passed"), [(0.4, 0.5, True), (0.5, 0.5, False), (0.6, 0.5, False)])
def test_with_enough_examples_the_model_has_to_beat_the_majority(
    real: Version, model: float, majority: float, passed: bool
) -> None:
    verdict = judge(facts(version(real, 2, ENOUGH, metrics=scored(real, model, majority))))
    assert verdict.passed is passed


@pytest.mark.parametrize(
    "fields",
    [{"early_labels": {"a": 0}}, {"first_served": {}}, {"first_served": {1: NOW}}, {"examples": 0}, {"examples": 6}],
    ids=["failed", "none", "only one", "nothing joined", "joined twice"],
)
def test_a_failed_prediction_an_unchanged_server_or_a_joiner_that_errs_fails(
    real: Version, fields: dict[str, Any]
) -> None:
    assert not judge(facts(version(real, 2, 10), **fields)).passed


def test_nothing_at_all_fails_and_can_be_shown() -> None:
    nothing = Facts()
    assert not judge(nothing).passed
    assert scores(nothing) is None
    assert "none yet" in shown(panel(nothing, "http://here", "starting", 1.0))
    assert "version 0" in line(nothing, 1.0)
    assert "NO" in shown(summary(nothing, "http://here", None))


def test_the_summary_says_yes_when_all_is_well(real: Version) -> None:
    head = version(real, 2, ENOUGH, metrics=scored(real, 0.4, 0.5))
    text = shown(summary(facts(head), "http://here", 12.5))
    assert "NO " not in text
    assert "12.50 s after the start" in text
    assert "http://here/docs" in shown(panel(facts(head), "http://here", "", 3.0))


def test_a_label_without_a_prediction_is_a_failed_one_unless_it_was_read_a_moment_ago() -> None:
    found = Facts()
    found.add_asked("a")
    for flight, at in (("a", 1_000), ("b", 2_000), ("c", 3_000)):
        found.add_label(flight, at)
    assert (found.failed, found.labels) == (0, 3)
    found.add_label("d", 12_500)
    assert found.failed == 1
    found.add_asked("b")
    assert found.failed == 0
    found.read_until = None
    assert (found.failed, found.unlabelled) == (2, set())


def test_the_match_rate_is_the_joined_share_of_the_landed_flights(real: Version) -> None:
    assert Facts().match_rate is None
    seen = facts(version(real, 2, 1))
    assert seen.match_rate == pytest.approx(0.8)
    assert "joined 4 of 5 (80.0%)" in line(seen, 1.0)
    assert "80.0%" in shown(panel(seen, "http://x", "", 1.0))


def test_rows_a_second_are_those_between_commits(real: Version) -> None:
    found = Facts()
    assert found.rows_per_second == 0.0
    found.add_version(version(real, 1, 100))
    assert found.rows_per_second == 0.0
    found.add_version(version(real, 2, 300, NOW + timedelta(seconds=2)))
    assert found.rows_per_second == pytest.approx(100.0)
    for i in range(3, 30):
        found.add_version(version(real, i, 300 + i, NOW + timedelta(seconds=i)))
    assert found.rows_per_second == pytest.approx(1.0)
    assert len(found.rates) < 13
    assert (found.versions, found.learned) == (29, 329)


def test_freshness_is_from_the_middle_of_the_append_times(real: Version) -> None:
    found = Facts()
    span = Span(min=NOW, max=NOW + timedelta(seconds=2))
    found.add_served(version(real, 1, 1, append_time=span), NOW + timedelta(seconds=3))
    assert found.fresh == [2.0]
    assert found.freshness(0.5) == 2.0
    found.add_served(version(real, 2, 1, append_time=None), NOW)
    found.add_served(version(real, 3, 1, append_time=span), NOW)
    assert found.fresh == [2.0, 0.0]
    found.fresh = [float(i) for i in range(101)]
    assert found.freshness(0.5) == pytest.approx(50.0)
    assert found.freshness(0.99) == pytest.approx(99.0)
    assert Facts().freshness(0.5) is None


def test_the_view_reads_nothing_but_facts() -> None:
    text = Path(demo_view.__file__).read_text()
    assert "open(" not in text
    assert "kafka" not in text
