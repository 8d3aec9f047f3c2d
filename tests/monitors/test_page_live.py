"""The page's real sources: the alerts' topic, the model store, and the ages of both."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitors.history import History
from monitors.page.live import KEPT_ALERTS, Ages, AlertTail, StoreVersions, live_sources
from monitors.page.sources import ShownAlert, is_report_name, ordered, shown_alert
from stream_trainer.errors import BrokerUnavailable
from stream_trainer.store import ModelStore
from stream_trainer.store.aliases import CHAMPION, Alias
from stream_trainer.store.challenges import Challenge
from stream_trainer.store.storage import LocalStorage
from tests.core.scripted_topic import ScriptedTopic
from tests.monitors.histories import START, WINDOW, Past
from tests.monitors.worlds import pipeline, settings
from tests.serving.fixtures import PIPELINE, commit_version, learned_state

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = [
    "status",
    "severity",
    "feature",
    "message",
    "window",
    "effect",
    "psi",
    "offsets",
    "ranges",
    "report",
    "plot",
    "ranking",
    "opened_at",
    "p_value",
]


def alert(status: str, **more: Any) -> dict[str, Any]:
    return {"kind": "drift", "status": status, "severity": "warning", "message": "m", "updated_at": START, **more}


def test_the_newest_record_under_a_key_counts_and_the_topic_is_followed() -> None:
    topic = ScriptedTopic()
    tail = AlertTail(topic.open)
    topic.write("drift/a", alert("opened"))
    topic.write("drift/b", alert("opened"))
    topic.write("drift/a", alert("resolved"))
    topic.write("drift/c", b"{broken")
    assert {one.alert_key: one.status for one in tail.newest()} == {"drift/b": "opened", "drift/a": "resolved"}
    topic.write("drift/b", None)
    topic.write(
        "gate/loss", {"kind": "gate", "status": "opened", "severity": "critical", "ranges": {"t": {"0": [1, 3]}}}
    )
    (resolved, gate) = tail.newest()
    assert (resolved.alert_key, gate.alert_key, gate.offsets) == ("drift/a", "gate/loss", {"t": {0: (1, 3)}})
    assert topic.opened == 1


def test_after_a_failure_the_topic_is_opened_and_read_again() -> None:
    topic = ScriptedTopic()
    tail = AlertTail(topic.open)
    topic.write("drift/a", alert("opened"))
    tail.newest()
    topic.broken = True
    with pytest.raises(BrokerUnavailable):
        tail.newest()
    topic.broken = False
    assert [one.alert_key for one in tail.newest()] == ["drift/a"]
    assert topic.opened == 2


def test_all_open_alerts_are_kept_and_the_newest_of_the_resolved() -> None:
    topic = ScriptedTopic()
    for number in range(KEPT_ALERTS + 50):
        topic.write(f"drift/{number}", alert("resolved", updated_at=START + number * WINDOW))
    topic.write("drift/open", alert("opened", updated_at=START - WINDOW))
    found = {one.alert_key for one in AlertTail(topic.open).newest()}
    assert len(found) == KEPT_ALERTS + 1
    assert {"drift/open", "drift/50"} <= found
    assert "drift/49" not in found


@given(st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=5), JSON, max_size=6))
def test_no_record_is_too_strange_to_be_shown(value: dict[str, Any]) -> None:
    shown = shown_alert("drift/a", value)
    assert msgspec.json.decode(msgspec.json.encode(shown), type=ShownAlert).alert_key == "drift/a"
    assert shown.report is None or is_report_name(shown.report)


@pytest.mark.parametrize(
    "name", ["", "..html", "../x.html", "a/b.html", "a\\b.html", ".x.html", "x.txt", "a..html", "x.html\n"]
)
def test_no_report_name_leads_anywhere_else(name: str) -> None:
    assert not is_report_name(name)


def test_of_a_report_the_name_is_shown_and_never_its_folder() -> None:
    assert shown_alert("k", {"features": ["a", "b"]}).features == ["a", "b"]
    assert shown_alert("k", {"features": [1]}).features == []
    assert shown_alert("k", {"report": "/var/data/reports/flights/drift-a-2026.html"}).report == "drift-a-2026.html"
    assert shown_alert("k", {"report": "https://monitor.example/reports/drift-a.html"}).report == "drift-a.html"


@pytest.mark.parametrize(
    ("plot", "shown"),
    [
        ("https://monitor.example/#cell?feature=a&start=x", "#cell?feature=a&start=x"),
        ("/#cell?feature=a%23cell%3F", "#cell?feature=a%23cell%3F"),
        ("javascript:alert(1)", None),
        ("x" * 10_000 + "#cell?feature=a", None),
    ],
)
def test_of_a_plot_the_cell_is_shown_on_this_page_wherever_it_leads(plot: str, shown: str | None) -> None:
    assert shown_alert("k", {"plot": plot}).plot == shown


def test_critical_and_new_ones_come_first_and_resolved_ones_last() -> None:
    found = [
        shown_alert(name, alert(status, severity=severity, updated_at=START + hours * WINDOW))
        for name, status, severity, hours in [
            ("old", "opened", "warning", 0),
            ("done", "resolved", "critical", 9),
            ("new", "updated", "warning", 3),
            ("bad", "opened", "critical", 1),
        ]
    ]
    assert [one.alert_key for one in ordered(found)] == ["bad", "new", "old", "done"]


def test_versions_and_decisions_of_a_store(tmp_path: Path) -> None:
    store = ModelStore(LocalStorage(tmp_path), PIPELINE.name)
    source = StoreVersions(store)
    assert (source.newest().versions, source.newest().champion) == ([], None)
    for seed in range(3):
        commit_version(store, PIPELINE, learned_state(PIPELINE, seed))
    store.aliases.append(CHAMPION, Alias(version=2, reason="better", by="ada", at=START, hold=True), 0)
    store.challenges.append(Challenge(version=3, reason="try", by="ada", at=START + WINDOW), 0)
    found = source.newest()
    assert [one.version for one in found.versions] == [1, 2, 3]
    assert (found.champion, found.challenger, found.highest) == (2, 3, 3)
    assert [(one.alias, one.version, one.hold) for one in found.promotions] == [
        ("champion", 2, True),
        ("challenger", 3, False),
    ]
    assert found.versions[0].trained > 0


def test_ages_know_when_a_window_came_and_which_version_is_too_old(tmp_path: Path) -> None:
    now = datetime(2026, 3, 1, tzinfo=UTC)
    store = ModelStore(LocalStorage(tmp_path / "models"), PIPELINE.name)
    versions, history = StoreVersions(store), History(LocalStorage(tmp_path / "monitor"))
    ages = Ages(history, versions, lambda: now, 3600.0)
    assert [(one.name, one.since, one.detail) for one in ages.newest()] == [
        ("Window closed", None, "none has closed yet"),
        ("Version made", None, "there is none yet"),
    ]
    commit_version(store, PIPELINE, learned_state(PIPELINE, 0))
    versions.newest()
    history.add(Past().record(0))
    found = {one.name: one for one in ages.newest()}
    assert (found["Window closed"].since, found["Window closed"].event) == (None, START + WINDOW)
    now += timedelta(minutes=5)
    history.add(Past().record(1))
    found = {one.name: one for one in ages.newest()}
    assert (found["Window closed"].since, found["Window closed"].event) == (now, START + 2 * WINDOW)
    assert found["Champion made"].limit_seconds == 3600.0
    assert found["Version made"].detail == "version 1"


def test_reports_come_from_the_pipelines_folder(tmp_path: Path) -> None:
    watched = pipeline("flights")
    found = live_sources(watched, settings(tmp_path), str(tmp_path / "state"))
    folder = tmp_path / "reports" / "flights"
    folder.mkdir(parents=True)
    (folder / "drift-a.html").write_text("<p>")
    assert found.report("drift-a.html") == b"<p>"
    assert found.report("drift-b.html") is None
    assert (list(found.history.starts()), found.versions().highest) == ([], 0)
