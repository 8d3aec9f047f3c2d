"""Faults of the trainer itself on real Spark and the real broker: checkpoints, two trainers, uncommitted tails.

Every test is named after its entry in the catalogue of faults. Those of the input are in `test_spark_input.py`.
"""

import json
import signal
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from infra.broker import BrokerInfo
from stream_trainer import offsets
from stream_trainer.errors import Fenced
from stream_trainer.store.store import Intent
from tests.faults.spark_child import Fault
from tests.faults.spark_scene import Scene, log_ends, make_scene, whole
from tests.integration.world import World, make_world, until


@pytest.fixture
def world(spark: SparkSession, broker: BrokerInfo, tmp_path: Path) -> World:
    return make_world(spark, broker.bootstrap_servers, tmp_path)


@pytest.fixture
def scene(broker: BrokerInfo, tmp_path: Path) -> Scene:
    return make_scene(broker.bootstrap_servers, tmp_path)


def deleted(checkpoint: Path) -> None:
    for entry in [p for p in checkpoint.rglob("*") if p.is_file()]:
        entry.unlink(missing_ok=True)


def torn(checkpoint: Path) -> None:
    for entry in [p for p in checkpoint.rglob("*") if p.is_file()]:
        with suppress(FileNotFoundError), entry.open("r+b") as file:  # the query renames its temporary files meanwhile
            file.truncate(7)


def foreign(checkpoint: Path) -> None:
    """Another run got further: entries for batches that this one has yet to plan."""
    folder = checkpoint / "offsets"
    newest = max(int(p.name) for p in folder.iterdir() if p.name.isdigit())
    lines = (folder / str(newest)).read_text().splitlines()
    ahead = {t: {p: o + 7 for p, o in ps.items()} for t, ps in json.loads(lines[2]).items()}
    for number in range(newest + 1, newest + 4):
        (folder / str(number)).write_text("\n".join([*lines[:2], json.dumps(ahead)]))


@pytest.mark.parametrize("damage", [deleted, torn, foreign])
def test_f05_a_checkpoint_damaged_under_a_running_query_changes_nothing(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: "object"
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert callable(damage)
    with world.training() as trainer:
        world.send_good(40)
        until(lambda: trainer.lineage and trainer.lineage.total.trained == 40, "40 rows to be learned")
        (checkpoint,) = tmp_path.glob("stream-trainer-checkpoint-*")
        damage(checkpoint)
        world.send_good(40)
        until(lambda: trainer.lineage and trainer.lineage.total.trained == 80, "80 rows to be learned")
    assert whole(world.store, log_ends(world)).total.trained == 80


def test_f05_a_checkpoint_that_another_run_left_is_not_looked_at(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left = tmp_path / "stream-trainer-checkpoint-left" / "offsets"
    left.mkdir(parents=True)
    entry = 'v1\n{"batchWatermarkMs":0,"batchTimestampMs":1,"conf":{}}\n' + json.dumps({world.topic: {"0": 9_999}})
    for _ in range(2):
        world.send_good(20)
        (left / "0").write_text(entry)
        world.train()
    assert whole(world.store, log_ends(world)).total.trained == 40
    assert [p.name for p in tmp_path.glob("stream-trainer-checkpoint-*")] == ["stream-trainer-checkpoint-left"]


def test_f06_of_two_trainers_the_one_that_plans_second_is_fenced(world: World) -> None:
    world.send_good(30)
    world.train()
    with pytest.raises(Fenced):
        _be_overtaken(world)


def _be_overtaken(world: World) -> None:
    with world.training() as loser:
        world.send_good(5)
        until(lambda: loser.lineage is not None and loser.lineage.total.trained == 35, "the loser to follow the stream")
        number = world.store.highest() + 1
        position = world.store.read(number - 1).manifest.next_offsets
        other = {world.topic: {p: (o, o + 1) for p, o in position[world.topic].items()}}
        world.store.fix_cut(Intent(version=number, cut=0, ranges=other, strategy="local", seed=0, run_id="winner"))
        world.send_good(30)
        until(lambda: not loser.running, "the loser to end")
    assert world.store.highest() == number - 1


@pytest.mark.parametrize(
    ("point", "published"),
    [
        ("microbatch.files_written", 1),  # its next step would be the manifest
        ("microbatch.committed", 2),  # its next step would be to announce
        pytest.param("microbatch.cut_fixed", 1, marks=pytest.mark.slow),
    ],
)
def test_f06_a_zombie_wakes_up_fenced_and_has_published_nothing(
    scene: Scene, spark: SparkSession, point: str, published: int
) -> None:
    scene.send(3 * 20)
    world = scene.world
    zombie = scene.child("one", Fault(what="stop", point=point, nth=2), "--from", "earliest")
    try:
        zombie.go()
        until(lambda: zombie.stopped, "the zombie to stop in the middle of a micro-batch")
        world.spark, world.settings = spark, scene.settings("one")
        world.train()
        scene.send(20)
        world.train()
        newest = world.store.highest()
        runs = [world.store.read(number).manifest.run_id for number in world.store.numbers()]
        zombie.send(signal.SIGCONT)
        assert zombie.wait() == Fenced.exit_code, zombie.said()
    finally:
        zombie.end()
    assert "another trainer" in zombie.said().splitlines()[-1]
    assert runs[:published] == [runs[0]] * published
    assert runs[0] not in runs[published:]
    assert [world.store.read(number).manifest.run_id for number in world.store.numbers()] == runs
    said = [m.value["version"] for m in world.announcements() if m.key == "champion"]
    assert said[-1] == newest
    assert whole(world.store, log_ends(world)).total.trained == scene.log.good


def test_an_uncommitted_tail_is_learned_again_after_a_kill_and_committed_at_a_sigterm(
    broker: BrokerInfo, tmp_path: Path
) -> None:
    scene = make_scene(broker.bootstrap_servers, tmp_path, commit_every_rows=50)
    scene.send(20 * 4)
    store = scene.store("one")
    killed = scene.child("one", Fault(what="kill", point="microbatch.learned", nth=5))
    follower = scene.child("one", None, "--from", "earliest")
    try:
        assert killed.run() == -signal.SIGKILL
        planned = [intent.ranges for intent in store.intents(store.highest() + 1)]
        before = store.highest()
        assert planned, "the kill left no tail"
        scene.send(40)
        follower.go()
        until(lambda: store.highest() > before, "the tail of the killed run")
        assert store.read(before + 1).manifest.cuts[: len(planned)] == planned
        scene.send(5)
        ends = log_ends(scene.world)
        until(lambda: _planned(scene) == ends, "the rest to be planned")
        follower.send(signal.SIGTERM)
        assert follower.wait() == 0, follower.said()
    finally:
        killed.end()
        follower.end()
    newest = whole(store, ends)
    assert newest.total.trained == scene.log.good
    assert newest.rows.seen < 50


def _planned(scene: Scene) -> offsets.Offsets | None:
    """How far the cuts of the version to come go."""
    store = scene.store("one")
    intents = store.intents(store.highest() + 1)
    return offsets.ends(intents[-1].ranges) if intents else None
