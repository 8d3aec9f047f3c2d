"""The trainer over a scripted log: what its gates keep out, whom it alerts, and which version becomes champion."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from stream_trainer.gates import Evidence
from stream_trainer.lineage import Lineage
from stream_trainer.store import Rows
from stream_trainer.store.aliases import Alias
from stream_trainer.store.manifest import Verdict
from stream_trainer.store.store import WEIGHTS
from stream_trainer.testing import (
    Crash,
    MemoryOutbox,
    Pause,
    Poison,
    ScriptedLog,
    crash_at,
    train,
)
from tests.core.scripts import PIPELINE, flights, manifests, of_batches, paused, store


class Moody:
    """A gate that stops what it is told to."""

    def __init__(self, *bad: int) -> None:
        self.bad, self.calls = set(bad), 0

    def judge(self, evidence: Evidence) -> Verdict:
        self.calls += 1
        failed = self.calls in self.bad
        return Verdict(gate="moody", passed=not failed, detail="told to" if failed else "")


def quarantined(tmp_path: Path, bad: tuple[int, ...], **more: Any) -> tuple[Lineage, MemoryOutbox]:
    script = paused(5, 6)
    outbox = MemoryOutbox()
    pipeline = replace(PIPELINE, gates=(Moody(*bad),))
    lineage = train(pipeline, ScriptedLog(pipeline, script), tmp_path, outbox=outbox, settings=of_batches(100, **more))
    return lineage, outbox


def test_a_quarantined_micro_batch_is_named_alerted_and_passed(tmp_path: Path) -> None:
    lineage, outbox = quarantined(tmp_path, (2, 3))
    found = manifests(tmp_path)
    assert [len(m.quarantined) for m in found] == [0, 1, 1, 0, 0]
    assert found[1].quarantined == found[1].cuts
    assert found[2].files[WEIGHTS] == found[0].files[WEIGHTS]
    assert lineage.total == Rows(seen=30, trained=18, quarantined=12)
    assert [(a.alert_key, a.status, a.model_version) for a in outbox.alerts] == [
        ("gate/moody", "opened", 2),
        ("gate/moody", "updated", 3),
        ("gate/moody", "resolved", 4),
    ]
    assert {a.opened_at for a in outbox.alerts} == {found[1].created_at}
    assert outbox.alerts[0].ranges == found[1].quarantined


def test_a_version_of_many_micro_batches_may_be_partly_quarantined(tmp_path: Path) -> None:
    lineage, outbox = quarantined(tmp_path, (2,), commit_every_rows=15)
    first = manifests(tmp_path)[0]
    assert (first.rows.trained, first.rows.quarantined, len(first.cuts)) == (12, 6, 3)
    assert first.quarantined == [first.cuts[1]]
    assert first.passed
    assert not first.gates[0].passed
    assert lineage.total.trained == 24
    assert outbox.alerts[0].message.startswith("part of version 1 was quarantined")


def test_an_alert_that_a_crash_kept_back_is_sent_at_the_next_start(tmp_path: Path) -> None:
    script = paused(3, 6)
    pipeline = replace(PIPELINE, gates=(Moody(3),))
    log = ScriptedLog(pipeline, script)
    with pytest.raises(Crash), crash_at("microbatch.announced", 3):
        train(pipeline, log, tmp_path)
    outbox = MemoryOutbox()
    train(pipeline, log, tmp_path, outbox=outbox)
    assert [(a.status, a.model_version) for a in outbox.alerts] == [("opened", 3)]


def test_a_flood_of_unusable_records_is_quarantined_by_the_default_gates(tmp_path: Path) -> None:
    flood = [Poison(b"{") for _ in range(150)]
    log = ScriptedLog(PIPELINE, [*flights(60), Pause(), *flights(40, 60), *flood, Pause(), *flights(60, 100)])
    outbox = MemoryOutbox()
    lineage = train(PIPELINE, log, tmp_path, outbox=outbox)
    assert lineage.total == Rows(seen=310, trained=120, rejected=150, quarantined=40)
    assert len(outbox.rejected) == 150
    assert [(a.alert_key, a.status) for a in outbox.alerts] == [
        ("gate/rejected_rate", "opened"),
        ("gate/rejected_rate", "resolved"),
    ]


def test_gated_promotion_moves_the_champion_when_it_does_well_and_not_while_it_is_held(tmp_path: Path) -> None:
    log = ScriptedLog(PIPELINE, paused(8, 300))
    gated = of_batches(100, promotion="gated")
    train(PIPELINE, log, tmp_path, settings=gated)
    there = store(tmp_path)
    champion = there.champion()
    assert champion is not None
    assert champion.number >= 5
    entry = there.alias_entry("champion")
    assert entry.alias is not None
    assert (entry.alias.by, entry.alias.promotion) == ("trainer", "gated")
    held = Alias(version=2, reason="worse", by="me", at=datetime.now(UTC), hold=True, promotion="gated")
    assert there.set_alias("champion", held, entry.number) is not None
    log.append(*paused(8, 300))
    train(PIPELINE, log, tmp_path, settings=gated)
    kept = store(tmp_path).champion()
    assert kept is not None
    assert kept.number == 2


def test_manual_promotion_serves_nothing_until_a_person_promotes(tmp_path: Path) -> None:
    log = ScriptedLog(PIPELINE, paused(3, 12))
    train(PIPELINE, log, tmp_path, settings=of_batches(100, promotion="manual"))
    assert store(tmp_path).highest() == 3
    assert store(tmp_path).champion() is None
    train(PIPELINE, log, tmp_path, settings=of_batches(100, promotion="auto"))
    champion = store(tmp_path).champion()
    assert champion is None or champion.number == 3
    log.append(*flights(12, 36))
    train(PIPELINE, log, tmp_path, settings=of_batches(100, promotion="auto"))
    champion = store(tmp_path).champion()
    assert champion is not None
    assert champion.number == 4


def test_what_cannot_be_read_promotes_nobody_and_stops_no_training(tmp_path: Path) -> None:
    log = ScriptedLog(PIPELINE, paused(3, 60))
    gated = of_batches(100, promotion="gated")
    train(PIPELINE, log, tmp_path, settings=gated)
    (tmp_path / "flights" / "versions" / f"{2:020d}" / "manifest.json").write_bytes(b"{")
    log.append(*flights(60, 180))
    assert train(PIPELINE, log, tmp_path, settings=gated).total.trained == 240
    for entry in (tmp_path / "flights" / "aliases" / "champion").iterdir():
        entry.write_bytes(b"{")
    log.append(*flights(60, 240))
    for mode in ("gated", "auto"):
        assert train(PIPELINE, log, tmp_path, settings=of_batches(100, promotion=mode)).total.trained == 300
