import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.prediction_ids import PredictionIds
from stream_trainer import history
from stream_trainer import lineage as lineages
from stream_trainer.errors import NoVersion, StoreDamaged, UsageError
from stream_trainer.history import Stretch
from stream_trainer.offsets import Loss, Ranges
from stream_trainer.predictions import partition_of, time_of
from stream_trainer.store import Version
from stream_trainer.store.manifest import Manifest, encode
from tests.core.test_microbatch import PIPELINE, World, fill
from tests.core.worlds import TOPIC

OTHER_ID = "99999999-2222-3333-4444-555555555555"


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    world = World(tmp_path_factory.mktemp("models"))
    fill(world)
    world.learn()
    return world.store.read(1).manifest


def versions(manifest: Manifest, *fields: dict[str, object]) -> list[Version]:
    """A chain of made-up versions."""
    return [
        Version(msgspec.structs.replace(manifest, version=i, **f), f"{i:064x}") for i, f in enumerate(fields, start=1)
    ]


def cut(*ranges: tuple[int, int]) -> Ranges:
    return {TOPIC: dict(enumerate(ranges))}


def brief(stretches: list[Stretch]) -> list[tuple[int, int, int | None]]:
    return [(s.partition, s.start, s.next) for s in stretches]


def test_touching_ranges_are_joined_and_what_is_not_in_the_weights_stands_apart(manifest: Manifest) -> None:
    topic_id = manifest.topic_ids[TOPIC]
    bad = cut((4, 6), (3, 3))
    loss = Loss(topic=TOPIC, topic_id=topic_id, partition=1, start=5, next=9, reason="retention")
    chain = versions(
        manifest,
        {"cuts": [cut((0, 2), (0, 3)), cut((2, 4), (3, 3))]},
        {"cuts": [bad, cut((6, 9), (3, 5))], "quarantined": [bad]},
        {"cuts": [cut((9, 10), (9, 12))], "lost": [loss]},
    )
    found = history.learned(chain)
    assert brief(found.learned) == [(0, 0, 4), (0, 6, 10), (1, 0, 5), (1, 9, 12)]
    assert brief(found.quarantined) == [(0, 4, 6)]
    assert brief(found.lost) == [(1, 5, 9)]
    traced = history.trace(chain)
    assert (traced.version, traced.parents, traced.trained) == (3, [2, 1], 3 * manifest.rows.trained)
    assert brief(traced.last_step.learned) == [(0, 9, 10), (1, 9, 12)]


def test_offsets_of_a_topic_that_was_made_again_are_others(manifest: Manifest) -> None:
    loss = Loss(topic=TOPIC, topic_id="old", partition=0, start=5, next=None, reason="recreated")
    chain = versions(
        manifest, {"cuts": [cut((0, 5))]}, {"cuts": [cut((0, 5))], "topic_ids": {TOPIC: OTHER_ID}, "lost": [loss]}
    )
    found = history.learned(chain)
    assert [(s.topic_id, s.start, s.next) for s in found.learned] == [
        (manifest.topic_ids[TOPIC], 0, 5),
        (OTHER_ID, 0, 5),
    ]
    assert brief(found.lost) == [(0, 5, None)]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=20))
def test_however_a_partition_is_cut_it_is_covered_in_one_stretch(manifest: Manifest, sizes: list[int]) -> None:
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    cuts = [cut((end - size, end)) for size, end in zip(sizes, ends, strict=True)]
    found = history.learned(versions(manifest, {"cuts": cuts}))
    assert brief(found.learned) == ([(0, 0, ends[-1])] if ends[-1] else [])


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    for n in range(3):
        fill(made, 40 * n)
        made.learn()
    return made


def test_the_chain_follows_the_parents(world: World) -> None:
    assert [v.number for v in history.ancestors(world.store, 3)] == [1, 2, 3]
    assert [v.number for v in history.ancestors(world.store, 3, since=2)] == [2, 3]
    world.lineage = lineages.load(PIPELINE, world.store, world.store.verify(3), world.store.verify(1))
    fill(world, 120)
    world.learn()
    assert [v.number for v in history.ancestors(world.store, 4)] == [1, 4]


def test_a_chain_that_is_broken_is_a_damaged_store(world: World) -> None:
    with pytest.raises(NoVersion):
        history.ancestors(world.store, 4)
    path = f"flights/versions/{2:020d}/manifest.json"
    original = world.store.storage.get(path)
    world.store.storage.put(path, encode(msgspec.structs.replace(world.store.read(2).manifest, seed=1)))
    with pytest.raises(StoreDamaged, match=r"version 2 .* is not the one that version 3 was committed on"):
        history.ancestors(world.store, 3)
    world.store.storage.put(path, b"{}")
    with pytest.raises(StoreDamaged, match="version 3 was learned on top of version 2, but"):
        history.ancestors(world.store, 3)
    with pytest.raises(StoreDamaged, match="is not a manifest"):
        history.ancestors(world.store, 2)
    world.store.storage.put(path, original.replace(b'"parent":1', b'"parent":2'))
    with pytest.raises(StoreDamaged, match="says that its parent is 2"):
        history.ancestors(world.store, 2)


def test_an_id_tells_its_time() -> None:
    at = datetime(2026, 1, 1, 12, 0, 0, 123_000, tzinfo=UTC)
    (made,) = PredictionIds(lambda: at).take(1)
    assert time_of(made) == time_of(made.upper()) == at


@pytest.mark.parametrize("text", ["", "7", "not-one", str(uuid.UUID(int=3)), "9b2f1c4e-7a30-4b7e-9d0a-2f8f5f8b1c11"])
def test_what_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not a prediction id"):
        time_of(text)


def test_keys_spread_over_all_partitions() -> None:
    def ids() -> Iterator[str]:
        for n in range(10):
            yield from PredictionIds(lambda n=n: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=n)).take(10)  # type: ignore[misc]

    assert {partition_of(i, 3) for i in ids()} == {0, 1, 2}


def test_the_stretches_of_a_version_are_those_of_its_manifest(world: World) -> None:
    traced = history.trace(history.ancestors(world.store, 3))
    assert brief(traced.last_step.learned) == [(0, 40, 60), (1, 40, 60)]
    assert brief(traced.since_start.learned) == [(0, 0, 60), (1, 0, 60)]
    assert traced.rows == world.store.read(3).manifest.rows
    assert replace(PIPELINE).contract.fingerprint == traced.contract


def test_of_two_like_cuts_one_is_quarantined(manifest: Manifest) -> None:
    cut = {"p.examples": {0: (0, 0)}}
    found = msgspec.structs.replace(manifest, cuts=[cut, cut], quarantined=[cut])
    assert list(history.judged_cuts(found)) == [(cut, True), (cut, False)]
