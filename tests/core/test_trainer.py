"""The trainer of production over a scripted log: what it does about losses, damage, long versions, gates."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from stream_trainer import offsets
from stream_trainer.errors import BrokerUnavailable, InputLost, StoreDamaged, UsageError
from stream_trainer.offsets import Loss
from stream_trainer.settings import TrainerSettings
from stream_trainer.start import Start
from stream_trainer.store import Rows
from stream_trainer.store.store import TRAINER, WEIGHTS, Intent
from stream_trainer.testing import (
    Abort,
    Aborted,
    Crash,
    FakeClock,
    Gap,
    MemoryOutbox,
    Pause,
    Poison,
    ScriptedLog,
    crash_at,
    train,
)
from stream_trainer.testing.log import Item
from tests.core.scripts import PIPELINE, flights, manifests, of_batches, paused, store
from tests.core.worlds import TOPIC, bits

LOSE = Start(accept_data_loss=True)


def test_what_one_run_learns_in_three_goes_is_what_it_learns_in_one(tmp_path: Path) -> None:
    script: list[Item] = [*flights(20), Pause(), *flights(20, 20), Poison(b"{"), Pause(), *flights(20, 40)]
    whole = train(PIPELINE, ScriptedLog(PIPELINE, script), tmp_path / "whole")
    log = ScriptedLog(PIPELINE)
    for piece in (script[:21], script[21:43], script[43:]):
        log.append(*piece)
        lineage = train(PIPELINE, log, tmp_path / "pieces")
    assert bits(lineage) == bits(whole)
    assert whole.total == Rows(seen=61, trained=60, rejected=1)
    assert [m.version for m in manifests(tmp_path / "whole")] == [1, 2, 3]


def test_an_abort_repeats_nothing(tmp_path: Path) -> None:
    log = ScriptedLog(PIPELINE, [*flights(30), Pause(), *flights(10, 30), Abort(), *flights(10, 40), Gap(3)])
    with pytest.raises(Aborted):
        train(PIPELINE, log, tmp_path)
    assert [m.version for m in manifests(tmp_path)] == [1]
    assert train(PIPELINE, log, tmp_path).total.trained == 50
    calm = ScriptedLog(PIPELINE, [*flights(30), Pause(), *flights(20, 30), Gap(3)])
    assert bits(train(PIPELINE, calm, tmp_path / "calm")) == bits(train(PIPELINE, log, tmp_path))


# Losses


@pytest.fixture
def expired(tmp_path: Path) -> ScriptedLog:
    """Thirty records are learned, thirty more arrive, and some of those expire before they are learned."""
    log = ScriptedLog(PIPELINE, flights(30))
    train(PIPELINE, log, tmp_path)
    log.append(*flights(30, 30))
    log.expire(1, before=log.ends(TOPIC, [1])[1] - 3)
    return log


def test_records_that_retention_took_stop_the_trainer_and_nothing_changes(expired: ScriptedLog, tmp_path: Path) -> None:
    before = sorted(store(tmp_path).storage.walk("flights"))
    with pytest.raises(InputLost, match=r"flights\.examples\[1\]: offsets \d+ to \d+ are gone.*--accept-data-loss"):
        train(PIPELINE, expired, tmp_path)
    assert sorted(store(tmp_path).storage.walk("flights")) == before


def test_a_declared_loss_is_a_version_and_every_offset_is_accounted_for(expired: ScriptedLog, tmp_path: Path) -> None:
    stood = manifests(tmp_path)[-1].next_offsets
    end = expired.ends(TOPIC, [0, 1, 2])
    lineage = train(PIPELINE, expired, tmp_path, start=LOSE)
    first, declared, after = manifests(tmp_path)
    start = stood[TOPIC][1]
    assert declared.lost == [
        Loss(topic=TOPIC, topic_id=expired.topic_id, partition=1, start=start, next=end[1] - 3, reason="retention")
    ]
    assert (declared.cuts, declared.rows) == ([], Rows())
    assert declared.files[WEIGHTS] == first.files[WEIGHTS]
    assert declared.next_offsets == {TOPIC: {**stood[TOPIC], 1: end[1] - 3}}
    assert offsets.starts(after.ranges) == declared.next_offsets
    assert after.next_offsets == {TOPIC: end}
    gone = end[1] - 3 - start
    assert lineage.total.trained == 60 - gone
    assert train(PIPELINE, expired, tmp_path).number == lineage.number


def test_the_permission_holds_for_one_start_only(expired: ScriptedLog, tmp_path: Path) -> None:
    train(PIPELINE, expired, tmp_path, start=LOSE)
    expired.append(*flights(30, 60))
    expired.expire(0, before=expired.ends(TOPIC, [0])[0])
    with pytest.raises(InputLost):
        train(PIPELINE, expired, tmp_path)


def test_an_intent_over_lost_records_ends_with_the_loss(expired: ScriptedLog, tmp_path: Path) -> None:
    there = store(tmp_path)
    at = manifests(tmp_path)[-1].next_offsets[TOPIC]
    cut = {TOPIC: {p: (o, o + 2) for p, o in at.items()}}
    there.fix_cut(Intent(version=2, cut=0, ranges=cut, strategy="local", seed=0, run_id="crashed"))
    with pytest.raises(InputLost):
        train(PIPELINE, expired, tmp_path)
    train(PIPELINE, expired, tmp_path, start=LOSE)
    _, declared, after = manifests(tmp_path)
    assert declared.lost
    assert after.next_offsets == {TOPIC: expired.ends(TOPIC, [0, 1, 2])}


def test_a_loss_before_the_first_version_is_told_by_the_first_version(tmp_path: Path) -> None:
    log = ScriptedLog(PIPELINE, [*flights(10), Abort(), *flights(20, 10)])
    with pytest.raises(Aborted):
        train(PIPELINE, log, tmp_path)
    assert store(tmp_path).intents(1)
    log.expire(0, before=4)
    with pytest.raises(InputLost):
        train(PIPELINE, log, tmp_path)
    train(PIPELINE, log, tmp_path, start=LOSE)
    (only,) = manifests(tmp_path)
    assert [(x.start, x.next) for x in only.lost] == [(0, 4)]
    assert only.ranges[TOPIC][0][0] == 4
    assert only.next_offsets == {TOPIC: log.ends(TOPIC, [0, 1, 2])}
    assert [intent.cut for intent in store(tmp_path).intents(1)] == [0, 1]


def test_a_topic_made_again_with_more_records_is_noticed_and_may_be_declared_lost(tmp_path: Path) -> None:
    log = ScriptedLog(PIPELINE, flights(12))
    train(PIPELINE, log, tmp_path)
    before = manifests(tmp_path)[0]
    log.recreate()
    log.append(*flights(90, 12))
    with pytest.raises(InputLost, match="re-created"):
        train(PIPELINE, log, tmp_path)
    lineage = train(PIPELINE, log, tmp_path, start=LOSE)
    declared, after = manifests(tmp_path)[1:]
    assert [(x.partition, x.start, x.next, x.reason) for x in declared.lost] == [
        (p, before.next_offsets[TOPIC][p], None, "recreated") for p in range(3)
    ]
    assert {x.topic_id for x in declared.lost} == set(before.topic_ids.values())
    assert declared.next_offsets == {TOPIC: {0: 0, 1: 0, 2: 0}}
    assert set(after.topic_ids.values()) == {log.topic_id} != set(before.topic_ids.values())
    assert lineage.total.trained == 102


def test_a_partition_that_vanished_is_noticed_and_may_be_declared_lost(tmp_path: Path) -> None:
    log = ScriptedLog(PIPELINE, flights(12), partitions=3)
    train(PIPELINE, log, tmp_path)
    fewer = ScriptedLog(PIPELINE, flights(30), partitions=2)
    with pytest.raises(InputLost, match=r"\[2\] has vanished"):
        train(PIPELINE, fewer, tmp_path)
    train(PIPELINE, fewer, tmp_path, start=LOSE)
    declared = manifests(tmp_path)[1]
    assert [(x.partition, x.reason) for x in declared.lost] == [(2, "vanished")]
    assert sorted(declared.next_offsets[TOPIC]) == [0, 1]


def test_f19_new_partitions_join_from_their_start(tmp_path: Path) -> None:
    log = ScriptedLog(PIPELINE, flights(12), partitions=2)
    train(PIPELINE, log, tmp_path)
    added = log.add_partition()
    log.append(*flights(5, 12), partition=added)
    lineage = train(PIPELINE, log, tmp_path)
    assert manifests(tmp_path)[-1].ranges[TOPIC][added] == (0, 5)
    assert lineage.total.trained == 17


def test_a_log_that_became_shorter_stops_the_trainer(tmp_path: Path) -> None:
    log = ScriptedLog(PIPELINE, flights(30))
    train(PIPELINE, log, tmp_path)
    end = log.ends(TOPIC, [1])[1]
    log.truncate(1, end - 4)
    with pytest.raises(InputLost, match=rf"\[1\] became shorter.*ends at offset {end - 4}.*up to {end}"):
        train(PIPELINE, log, tmp_path)
    train(PIPELINE, log, tmp_path, start=LOSE)
    log.append(*flights(30, 30))
    assert train(PIPELINE, log, tmp_path).total.trained == 60
    declared = manifests(tmp_path)[1]
    assert [(x.start, x.next, x.reason) for x in declared.lost] == [(end - 4, end, "truncated")]


def test_records_that_only_a_plan_knows_may_be_lost_too(tmp_path: Path) -> None:
    log = ScriptedLog(PIPELINE, flights(12), partitions=2)
    train(PIPELINE, log, tmp_path)
    added = log.add_partition()
    log.append(*flights(9, 12), partition=added)
    with pytest.raises(Crash), crash_at("microbatch.cut_fixed"):
        train(PIPELINE, log, tmp_path)
    log.expire(added, before=4)
    with pytest.raises(InputLost, match=r"\[2\]: offsets 0 to 3 are gone"):
        train(PIPELINE, log, tmp_path)
    assert train(PIPELINE, log, tmp_path, start=LOSE).total.trained == 17


class Hiccup(MemoryOutbox):
    """Kafka is away when the first micro-batch wants to reject."""

    def reject(self, rows: pa.Table) -> None:
        if not self.calls:
            self.calls.append("hiccup")
            raise BrokerUnavailable("away")
        super().reject(rows)


def test_a_retry_before_the_first_commit_keeps_where_it_was_told_to_begin(tmp_path: Path) -> None:
    log = ScriptedLog(PIPELINE, paused(3, 12))
    train(PIPELINE, log, tmp_path)
    log.append(*flights(6, 36))
    again = TrainerSettings(max_restarts=1)
    train(PIPELINE, log, tmp_path, outbox=Hiccup(), settings=again, start=Start(origin="1"))
    assert manifests(tmp_path)[-1].parent == 1


@pytest.mark.parametrize("origin", ["1", "7"])
def test_a_damaged_or_missing_version_to_start_from_is_a_usage_error(tmp_path: Path, origin: str) -> None:
    log = ScriptedLog(PIPELINE, paused(2, 12))
    train(PIPELINE, log, tmp_path)
    damage(tmp_path, 1)
    with pytest.raises(UsageError, match=f"--from {origin}"):
        train(PIPELINE, log, tmp_path, start=Start(origin=origin))


# Damage


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("name", [WEIGHTS, TRAINER, "golden.arrow", "learned.arrow", "manifest.json"])
@pytest.mark.parametrize("how", [flip, lambda p: p.write_bytes(b""), Path.unlink], ids=["bit", "empty", "gone"])
def test_f10_a_damaged_version_is_learned_again_bit_for_bit(
    tmp_path: Path, name: str, how: Callable[[Path], None]
) -> None:
    log = ScriptedLog(PIPELINE, [*flights(20), Pause(), *flights(20, 20), Pause(), *flights(20, 40)])
    calm = train(PIPELINE, log, tmp_path)
    (newest,) = (tmp_path / "flights" / "versions" / f"{3:020d}").rglob(name)
    how(newest)
    outbox = MemoryOutbox()
    again = train(PIPELINE, log, tmp_path, outbox=outbox)
    assert bits(again) == bits(calm)
    made = store(tmp_path).read(store(tmp_path).highest()).manifest
    gone = name == "manifest.json" and how is Path.unlink  # then nothing says that there was a version 3
    assert (made.version, made.parent, len(made.cuts)) == ((3, 2, 1) if gone else (4, 2, 1))
    assert [(a.alert_key, a.status) for a in outbox.alerts] == (
        [] if gone else [("store/version-3", "opened"), ("store/version-3", "resolved")]
    )


def test_several_damaged_versions_are_one_version_of_all_their_cuts(tmp_path: Path) -> None:
    script = paused(4, 12)
    log = ScriptedLog(PIPELINE, script)
    calm = train(PIPELINE, log, tmp_path)
    for number in (3, 4):
        (weights,) = (tmp_path / "flights" / "versions" / f"{number:020d}").rglob(WEIGHTS)
        flip(weights)
    assert bits(train(PIPELINE, log, tmp_path)) == bits(calm)
    made = store(tmp_path).read(5).manifest
    assert (made.parent, len(made.cuts), made.rows.trained) == (2, 2, 24)


def test_a_crash_while_damage_is_being_mended_changes_nothing(tmp_path: Path) -> None:
    script = paused(4, 12)
    log = ScriptedLog(PIPELINE, script)
    calm = train(PIPELINE, log, tmp_path)
    for number in (3, 4):
        (weights,) = (tmp_path / "flights" / "versions" / f"{number:020d}").rglob(WEIGHTS)
        flip(weights)
    for nth in (1, 2):
        with pytest.raises(Crash), crash_at("microbatch.learned", nth):
            train(PIPELINE, log, tmp_path)
    log.append(*flights(12, 48))
    lineage = train(PIPELINE, log, tmp_path)
    made = store(tmp_path).read(5).manifest
    assert (made.parent, len(made.cuts), made.rows.trained) == (2, 2, 24)
    assert lineage.total.trained == 60
    assert lineage.total.trained > calm.total.trained


def test_an_intent_that_cannot_be_read_says_what_to_do(tmp_path: Path) -> None:
    log = ScriptedLog(PIPELINE, flights(12))
    train(PIPELINE, log, tmp_path)
    store(tmp_path).storage.put(f"flights/intents/{2:020d}/0.json", b"{")
    with pytest.raises(StoreDamaged, match="delete the file"):
        train(PIPELINE, log, tmp_path)


def damage(folder: Path, number: int) -> None:
    (weights,) = (folder / "flights" / "versions" / f"{number:020d}").rglob(WEIGHTS)
    flip(weights)


def test_damage_after_the_next_cut_was_planned_is_learned_before_that_cut(tmp_path: Path) -> None:
    log = ScriptedLog(PIPELINE, paused(3, 12))
    calm = train(PIPELINE, log, tmp_path / "calm")
    with pytest.raises(Crash), crash_at("microbatch.cut_fixed", 3):
        train(PIPELINE, log, tmp_path)
    damage(tmp_path, 2)
    for nth in (1, 2):
        with pytest.raises(Crash), crash_at("microbatch.learned", nth):
            train(PIPELINE, log, tmp_path)
    assert bits(train(PIPELINE, log, tmp_path)) == bits(calm)
    assert [(m.version, len(m.cuts)) for m in (store(tmp_path).read(1).manifest, store(tmp_path).read(3).manifest)] == [
        (1, 1),
        (3, 2),
    ]


def test_what_healed_a_version_may_be_damaged_too(tmp_path: Path) -> None:
    log = ScriptedLog(PIPELINE, paused(2, 12))
    calm = train(PIPELINE, log, tmp_path)
    for number in (2, 3, 4):
        damage(tmp_path, number)
        assert bits(train(PIPELINE, log, tmp_path)) == bits(calm)
    assert store(tmp_path).highest() == 5


def test_a_damaged_version_may_come_back_after_its_healing_was_planned(tmp_path: Path) -> None:
    log = ScriptedLog(PIPELINE, paused(2, 12))
    calm = train(PIPELINE, log, tmp_path)
    damage(tmp_path, 2)
    with pytest.raises(Crash), crash_at("microbatch.cut_fixed"):
        train(PIPELINE, log, tmp_path)
    damage(tmp_path, 2)  # the same bit again: it is whole
    assert bits(train(PIPELINE, log, tmp_path)) == bits(calm)
    log.append(*flights(12, 24))
    assert train(PIPELINE, log, tmp_path).total.trained == 36


# Versions of many micro-batches


def test_a_version_may_be_made_of_many_micro_batches(tmp_path: Path) -> None:
    log = ScriptedLog(PIPELINE, flights(60))
    every = train(PIPELINE, log, tmp_path / "each", settings=of_batches(6))
    some = train(PIPELINE, log, tmp_path / "some", settings=of_batches(6, commit_every_rows=20))
    assert bits(some) == bits(every)
    assert [len(m.cuts) for m in manifests(tmp_path / "some")] == [4, 4, 2]
    assert len(manifests(tmp_path / "each")) == 10


def test_a_version_is_due_after_so_many_seconds(tmp_path: Path) -> None:
    script = paused(6, 6, 4.0)
    settings = of_batches(100, commit_every_rows=1_000, commit_every_seconds=10.0)
    train(PIPELINE, ScriptedLog(PIPELINE, script), tmp_path, clock=FakeClock(), settings=settings)
    assert [len(m.cuts) for m in manifests(tmp_path)] == [3, 3]


def test_the_clock_on_the_wall_decides_nothing(tmp_path: Path) -> None:
    clock = FakeClock()
    log = ScriptedLog(PIPELINE)
    settings = of_batches(100, commit_every_rows=1_000, commit_every_seconds=10.0)
    for i, jump in enumerate((0, -86_400, 2 * 86_400)):
        clock.jump(jump)
        log.append(*flights(6, 6 * i))
        lineage = train(PIPELINE, log, tmp_path, clock=clock, settings=settings)
    assert [m.version for m in manifests(tmp_path)] == [1, 2, 3]
    assert lineage.head is not None
    assert lineage.head.number == 3


def test_the_uncommitted_tail_is_learned_again_after_a_crash(tmp_path: Path) -> None:
    log = ScriptedLog(PIPELINE, flights(60))
    settings = of_batches(6, commit_every_rows=20)
    calm = train(PIPELINE, log, tmp_path / "calm", settings=settings)
    with pytest.raises(Crash), crash_at("microbatch.learned", 7):
        train(PIPELINE, log, tmp_path / "crashed", settings=settings)
    assert len(store(tmp_path / "crashed").intents(2)) == 3
    again = train(PIPELINE, log, tmp_path / "crashed", settings=settings)
    assert bits(again) == bits(calm)
    assert [c for m in manifests(tmp_path / "crashed") for c in m.cuts] == [
        c for m in manifests(tmp_path / "calm") for c in m.cuts
    ]
