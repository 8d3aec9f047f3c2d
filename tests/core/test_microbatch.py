from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from stream_trainer import crashpoints, microbatch, offsets
from stream_trainer import lineage as lineages
from stream_trainer.errors import Fenced, InputLost, StoreUnavailable
from stream_trainer.gates import Evidence
from stream_trainer.learners import Sgd
from stream_trainer.learning import Cut
from stream_trainer.lineage import Lineage
from stream_trainer.opening import open_lineage
from stream_trainer.pipeline import Pipeline
from stream_trainer.store import ModelStore, Rows, Version
from stream_trainer.store.manifest import Manifest, Verdict
from stream_trainer.store.storage import LocalStorage, Storage
from stream_trainer.store.store import TRAINER, WEIGHTS
from stream_trainer.testing import LostAnswers, MemoryOutbox
from tests.core.worlds import (
    CONTRACT,
    NOW,
    TOPIC,
    FakeSource,
    MemoryLog,
    bits,
    context_of,
    flight,
)

PIPELINE = Pipeline(name="flights", contract=CONTRACT, learner=Sgd(), reference_rows=50)
BAD = b"not json"
START = {TOPIC: {0: 0, 1: 0}}


class World:
    """A log, a store, an outbox, and a trainer that goes through them cut by cut."""

    def __init__(self, storage: Path | Storage, pipeline: Pipeline = PIPELINE) -> None:
        self.pipeline = pipeline
        self.log = MemoryLog({0: [], 1: []})
        self.store = ModelStore(LocalStorage(storage) if isinstance(storage, Path) else storage, pipeline.name)
        self.source = FakeSource()
        self.outbox = MemoryOutbox()
        self.lineage = lineages.fresh(pipeline, START)

    def context(self, run_id: str = "run") -> microbatch.Context:
        return context_of(self.store, self.pipeline, source=self.source, outbox=self.outbox, run_id=run_id)

    def cut(self, end: dict[int, int] | None = None) -> Cut:
        wanted = self.log.ends() if end is None else {TOPIC: end}
        return Cut(ranges=offsets.ranges_between(self.lineage.position, wanted), covered_at=NOW)

    def learn(self, cut: Cut | None = None, *, backwards: bool = False, more: bool = False) -> Lineage:
        chosen = cut or self.cut()
        fetch = lambda: self.log.fetch(chosen, backwards=backwards)  # noqa: E731
        self.lineage = microbatch.run(self.context(), self.lineage, chosen, fetch, more=more)
        return self.lineage

    def restart(self, storage: Storage | None = None) -> None:
        """A new process: what the store holds, and first what its intents ask for."""
        self.store = ModelStore(storage or self.store.storage, self.pipeline.name)
        self.outbox = MemoryOutbox()
        self.source = FakeSource()
        opened = open_lineage(self.context(), "earliest", START, START)
        self.lineage = opened.lineage
        for left, cut in zip(range(len(opened.planned) - 1, -1, -1), opened.planned, strict=True):
            self.learn(cut, more=left > 0)


def fill(world: World, first: int = 0, n: int = 40) -> None:
    """Flights over both partitions, every tenth record unusable."""
    for i in range(first, first + n):
        world.log.append(i % 2, BAD if i % 10 == 9 else flight(i))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_versions_chain_and_their_ranges_tile_the_log(world: World) -> None:
    for n in range(4):
        fill(world, 40 * n)
        world.learn()
    manifests = [world.store.verify(n).manifest for n in world.store.numbers()]
    assert [m.version for m in manifests] == [1, 2, 3, 4]
    assert [(m.previous, m.parent) for m in manifests] == [(None, None), (1, 1), (2, 2), (3, 3)]
    assert [m.parent_sha256 for m in manifests[1:]] == [world.store.read(n).sha256 for n in (1, 2, 3)]
    position: offsets.Offsets = START
    for m in manifests:
        position = offsets.advance(position, m.ranges)
        assert position == m.next_offsets
        assert [m.ranges] == m.cuts
    assert position == world.log.ends()
    assert world.outbox.announced == [1, 2, 3, 4]


def test_every_row_is_accounted_for_once(world: World) -> None:
    for n in range(3):
        fill(world, 40 * n)
        world.learn()
    manifests = [world.store.read(n).manifest for n in (1, 2, 3)]
    assert [m.rows for m in manifests] == [Rows(seen=40, trained=36, rejected=4)] * 3
    assert manifests[-1].total == Rows(seen=120, trained=108, rejected=12)
    for m in manifests:
        assert m.rows.seen == m.rows.trained + m.rows.rejected + m.rows.skipped + m.rows.quarantined
        assert m.rows.seen == offsets.size(m.ranges)
    assert len(world.outbox.rejected) == 12
    assert manifests[0].metrics["rows"] == 36
    assert manifests[0].event_time is not None
    assert manifests[0].trained_through == manifests[0].event_time.max
    assert (manifests[0].partition_order, manifests[0].covered_at) == ([f"{TOPIC}-0", f"{TOPIC}-1"], NOW)


def test_the_first_forecasts_are_even_and_the_next_the_models(world: World) -> None:
    fill(world)
    assert world.learn().prequential.trained.rows[:, 6].tolist() == [0.5] * 36
    fill(world, 40)
    assert 0.5 not in world.learn().prequential.trained.rows[36:, 6]


def test_rejected_records_are_sent_before_the_manifest_and_the_word_after(world: World) -> None:
    calls = world.outbox.calls
    real = world.store.commit

    def commit(manifest: Manifest) -> Version:
        calls.append("commit")
        return real(manifest)

    world.store.commit = commit  # type: ignore[method-assign]
    fill(world)
    world.learn()
    assert calls == ["reject", "commit", "announce"]


def test_a_first_batch_of_rejects_commits_nothing_and_its_cut_belongs_to_version_1(world: World) -> None:
    world.log.append(0, BAD, BAD)
    world.log.append(1, BAD)
    world.learn()
    assert world.store.numbers() == []
    assert world.outbox.announced == []
    fill(world)
    world.learn()
    manifest = world.store.verify(1).manifest
    assert [offsets.size(cut) for cut in manifest.cuts] == [3, 40]
    assert manifest.ranges == {TOPIC: {0: (0, 22), 1: (0, 21)}}
    assert manifest.rows == Rows(seen=43, trained=36, rejected=7)
    assert [i.cut for i in world.store.intents(1)] == [0, 1]


def test_a_later_batch_of_rejects_is_a_version_of_the_same_weights(world: World) -> None:
    fill(world)
    before = bits(world.learn())
    world.log.append(0, BAD)
    world.learn()
    manifest = world.store.verify(2).manifest
    assert manifest.rows == Rows(seen=1, rejected=1)
    assert manifest.passed
    assert bits(world.lineage) == before
    assert world.store.read(2).manifest.files[WEIGHTS] == world.store.read(1).manifest.files[WEIGHTS]


def test_a_batch_without_rows_moves_on_without_a_version(world: World) -> None:
    fill(world)
    world.learn()
    end = {0: 25, 1: 20}
    empty = MemoryLog({0: [], 1: []})
    cut = world.cut(end)
    nothing = empty.fetch(Cut(ranges={TOPIC: {0: (0, 0)}}, covered_at=None))
    world.lineage = microbatch.run(world.context(), world.lineage, cut, lambda: nothing)
    assert world.store.numbers() == [1]
    assert world.lineage.position == {TOPIC: end}
    world.log.partitions[0] += [None] * 5
    world.log.append(0, flight(1000))
    world.learn()
    manifest = world.store.read(2).manifest
    assert len(manifest.cuts) == 2
    assert manifest.ranges == {TOPIC: {0: (20, 26), 1: (20, 20)}}
    assert manifest.rows == Rows(seen=1, trained=1)


class Suspicious:
    """A gate that stops the batches it is told to."""

    def __init__(self) -> None:
        self.closed = False

    def judge(self, evidence: Evidence) -> Verdict:
        return Verdict(gate="suspicious", passed=not self.closed, detail="told to" if self.closed else "")


def test_a_failed_gate_keeps_the_weights_quarantines_the_rows_and_moves_on(tmp_path: Path) -> None:
    gate = Suspicious()
    world = World(tmp_path, replace(PIPELINE, gates=(gate,)))
    fill(world)
    before = bits(world.learn())
    gate.closed = True
    fill(world, 40)
    world.learn()
    manifest = world.store.verify(2).manifest
    assert bits(world.lineage) == before
    assert manifest.rows == Rows(seen=40, rejected=4, quarantined=36)
    assert not manifest.passed
    assert manifest.gates[0].detail == "told to"
    assert manifest.next_offsets == world.log.ends()
    champion = world.store.champion()
    assert champion is not None
    assert champion.number == 1
    gate.closed = False
    fill(world, 80)
    world.learn()
    assert world.store.read(3).manifest.passed
    assert bits(world.lineage) != before


def test_a_failed_gate_before_the_first_version_commits_nothing(tmp_path: Path) -> None:
    gate = Suspicious()
    gate.closed = True
    world = World(tmp_path, replace(PIPELINE, gates=(gate,)))
    fill(world)
    world.learn()
    assert world.store.numbers() == []
    gate.closed = False
    fill(world, 40)
    world.learn()
    assert world.store.verify(1).manifest.rows == Rows(seen=80, trained=36, rejected=8, quarantined=36)


class Crash(Exception):
    """The process ends here."""


def dying(world: World, at: int) -> Callable[[], int]:
    """Make the `at`-th call to the outside raise before it does anything; odd halves: after it did. Counts calls."""
    count = 0

    def wrap(thing: Any, name: str) -> None:
        real = getattr(thing, name)

        def call(*args: Any) -> Any:
            nonlocal count
            count += 1
            if count * 2 - 1 == at:
                raise Crash
            found = real(*args)
            if count * 2 == at:
                raise Crash
            return found

        setattr(thing, name, call)

    for name in ("put_if_absent", "put"):
        wrap(world.store.storage, name)
    for name in ("reject", "announce"):
        wrap(world.outbox, name)
    wrap(world.source, "check")
    return lambda: count


def undisturbed(folder: Path) -> World:
    world = World(folder)
    for n in range(3):
        fill(world, 40 * n)
        world.learn()
    return world


def ends_as(world: World, expected: World, at: int) -> None:
    """The same three versions, and the same bits."""
    assert bits(world.lineage) == bits(expected.lineage), at
    assert world.store.numbers() == [1, 2, 3], at
    for n in (1, 2, 3):
        mine, calm = world.store.verify(n).manifest, expected.store.verify(n).manifest
        assert (mine.cuts, mine.rows, mine.total, mine.metrics) == (calm.cuts, calm.rows, calm.total, calm.metrics), at
        assert mine.files == calm.files, at


def test_a_crash_at_any_call_leads_to_the_bits_of_an_undisturbed_run(
    tmp_path: Path, place: Callable[[str], Storage]
) -> None:
    expected = undisturbed(tmp_path / "calm")
    probe = World(place("probe"))
    fill(probe)
    probe.learn()
    fill(probe, 40)
    calls = dying(probe, -1)
    probe.learn()
    assert calls() >= 10
    for at in range(1, 2 * calls() + 1):
        world = World(place(f"{at}"))
        fill(world)
        world.learn()
        fill(world, 40)
        dying(world, at)
        with pytest.raises(Crash):
            world.learn()
        fill(world, 80)  # more has arrived meanwhile: only the intent keeps the cut
        world.restart(place(f"{at}"))
        if world.lineage.position != world.log.ends():
            world.learn(world.cut({0: 40, 1: 40}) if world.lineage.number == 2 else None)
        if world.lineage.position != world.log.ends():
            world.learn()
        ends_as(world, expected, at)


def test_a_rejected_record_is_sent_at_least_once_whenever_it_crashes(place: Callable[[str], Storage]) -> None:
    for at in range(1, 25):
        world = World(place(f"{at}"))
        fill(world)
        first = world.outbox
        dying(world, at)
        try:
            world.learn()
        except Crash:
            world.restart(place(f"{at}"))
            if world.lineage.position != world.log.ends():
                world.learn()
        sent = {(r["_partition"], r["_offset"]) for r in [*first.rejected.values(), *world.outbox.rejected.values()]}
        assert sent == {(1, 4), (1, 9), (1, 14), (1, 19)}, at


class Unheard(LostAnswers):
    """Loses one answer, and remembers which puts have won their path."""

    def __init__(self, storage: Storage, nth: int) -> None:
        super().__init__(storage, nth)
        self.puts = 0
        self.won: list[str] = []

    def put(self, path: str, data: bytes) -> None:
        self.puts += 1
        super().put(path, data)

    def put_if_absent(self, path: str, data: bytes) -> bool:
        self.puts += 1
        self.won += [] if self._storage.exists(path) else [path]
        return super().put_if_absent(path, data)


def persevere(world: World) -> int:
    """A trainer of three versions that restarts whenever its store does not answer; how often it had to."""
    restarts = 0
    while (number := world.lineage.number) <= 3:
        try:
            world.learn(world.cut({0: 20 * number, 1: 20 * number}))
        except StoreUnavailable:
            restarts += 1
            world.restart()
    return restarts


def test_a_lost_answer_of_any_put_leads_to_the_bits_of_an_undisturbed_run(
    tmp_path: Path, place: Callable[[str], Storage]
) -> None:
    expected = undisturbed(tmp_path / "calm")
    for nth in count(1):
        storage = Unheard(place(f"{nth}"), nth)
        world = World(storage)
        fill(world, n=120)
        restarts = persevere(world)
        ends_as(world, expected, nth)
        manifests = [path for path in storage.won if path.endswith("/manifest.json")]
        assert len(manifests) == len(set(manifests)) == 3, nth
        if storage.puts < nth:
            assert restarts == 0
            break
        assert restarts == 1, nth
    assert nth > 3 * 7


def test_a_lost_answer_is_told_from_a_lost_race_at_any_put(place: Callable[[str], Storage]) -> None:
    for nth in count(1):
        other = World(place(f"{nth}"))
        fill(other)
        other.learn()
        first = other.store.read(1).sha256
        world = World(LostAnswers(place(f"{nth}"), nth))
        world.log = other.log
        with pytest.raises((StoreUnavailable, Fenced)) as raised:
            world.learn()
        assert world.outbox.announced == []
        if raised.type is Fenced:  # the answer of the manifest was heard: another one is there
            break
        world.restart()
        assert [(n, world.store.read(n).sha256) for n in world.store.numbers()] == [(1, first)], nth
        assert (world.lineage.number, bits(world.lineage)) == (2, bits(other.lineage)), nth
    assert nth > 6


def test_restarting_after_every_version_changes_no_bit(tmp_path: Path) -> None:
    expected = undisturbed(tmp_path / "calm")
    world = World(tmp_path / "restless")
    for n in range(3):
        fill(world, 40 * n)
        world.restart()
        world.learn()
    assert bits(world.lineage) == bits(expected.lineage)
    for n in (1, 2, 3):
        assert world.store.read(n).manifest.files == expected.store.read(n).manifest.files


def test_the_order_in_which_rows_are_fetched_does_not_matter(tmp_path: Path) -> None:
    expected = undisturbed(tmp_path / "calm")
    world = World(tmp_path / "backwards")
    for n in range(3):
        fill(world, 40 * n)
        world.learn(backwards=True)
    assert bits(world.lineage) == bits(expected.lineage)
    assert world.store.read(3).manifest.files[TRAINER] == expected.store.read(3).manifest.files[TRAINER]


def test_global_random_numbers_and_threads_do_not_matter(tmp_path: Path) -> None:
    expected = undisturbed(tmp_path / "calm")
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.manual_seed(123)
    world = undisturbed(tmp_path / "other")
    torch.set_num_threads(before)
    assert bits(world.lineage) == bits(expected.lineage)


def test_whoever_comes_second_is_fenced_and_changes_nothing(world: World) -> None:
    fill(world)
    other = World(Path(world.store.storage.url))
    other.log = world.log
    other.learn(other.cut({0: 10, 1: 10}))
    announced = list(world.outbox.announced)
    before = sorted(world.store.storage.walk("flights"))
    with pytest.raises(Fenced, match="planned by run run with other ranges"):
        world.learn()
    assert sorted(world.store.storage.walk("flights")) == before
    assert world.outbox.announced == announced
    assert world.outbox.calls == []


def test_the_same_cut_by_two_trainers_is_committed_once(world: World) -> None:
    fill(world)
    other = World(Path(world.store.storage.url))
    other.log = world.log
    other.learn()
    with pytest.raises(Fenced, match="committed by another trainer"):
        world.learn()
    assert world.store.numbers() == [1]
    assert world.outbox.announced == []


def test_lost_input_is_noticed_before_anything_is_learned(world: World) -> None:
    fill(world)
    world.source.failure = InputLost("gone")
    with pytest.raises(InputLost):
        world.learn()
    assert world.store.numbers() == []
    assert world.outbox.calls == []


def test_input_lost_while_learning_stops_the_commit(world: World) -> None:
    class LostLater(FakeSource):
        def check(self, needed: offsets.Offsets) -> dict[str, str]:
            if self.seen:
                raise InputLost("re-created")
            return super().check(needed)

    world.source = LostLater()
    fill(world)
    with pytest.raises(InputLost):
        world.learn()
    assert world.store.numbers() == []
    assert world.outbox.announced == []


def test_the_source_is_asked_after_the_fetch_and_right_before_the_manifest(world: World) -> None:
    world.log.append(0, BAD)
    world.learn()
    fill(world)
    world.source.seen.clear()
    world.learn()
    assert world.source.seen == [{TOPIC: {0: 1, 1: 0}}] * 2


def test_a_cut_that_skips_records_is_refused(world: World) -> None:
    fill(world)
    gap = Cut(ranges={TOPIC: {0: (2, 20), 1: (0, 20)}}, covered_at=None)
    with pytest.raises(ValueError, match="begins at 2"):
        world.learn(gap)
    assert world.store.numbers() == []


def test_a_store_that_does_not_answer_can_be_asked_again(world: World) -> None:
    fill(world)
    real = world.store.storage.put_if_absent

    def silent(path: str, data: bytes) -> bool:
        raise StoreUnavailable("no answer")

    world.store.storage.put_if_absent = silent  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailable):
        world.learn()
    world.store.storage.put_if_absent = real  # type: ignore[method-assign]
    assert world.learn().number == 2


def test_a_limited_batch_is_covered_up_to_the_least_advanced_partition(world: World) -> None:
    fill(world)
    cut = replace(world.cut(), covered_at=None)
    world.learn(cut)
    covered = world.store.read(1).manifest.covered_at
    newest = max(row.as_py() for row in world.log.fetch(cut).column("_append_time"))
    assert covered is not None
    assert covered == newest


def test_who_slept_after_its_commit_while_another_went_on_announces_nothing(world: World) -> None:
    fill(world)

    def overtake(point: str) -> None:
        if point == "microbatch.committed":
            crashpoints.watch(None)
            first = world.store.read(1).manifest
            world.store.commit(msgspec.structs.replace(first, version=2, previous=1, run_id="other"))

    crashpoints.watch(overtake)
    try:
        with pytest.raises(Fenced, match="another trainer has gone on to 2"):
            world.learn()
    finally:
        crashpoints.watch(None)
    assert "announce" not in world.outbox.calls
