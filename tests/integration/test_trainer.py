"""The trainer on real Kafka and real Spark."""

import io
import itertools
import json
from dataclasses import replace
from datetime import datetime
from typing import Any

import pyarrow as pa
import pytest
import torch
from confluent_kafka import Producer
from typer.testing import CliRunner

from stream_trainer import offsets
from stream_trainer.decode import ARROW_CONTENT_TYPE
from stream_trainer.errors import Fenced, InputLost
from stream_trainer.kafka import Admin, librdkafka_options, topic_plans
from stream_trainer.store.store import Intent
from tests.integration.world import World, until


def without(record: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key != name}


def test_bad_records_are_rejected_with_their_reason_and_the_rest_is_trained(world: World) -> None:
    good = world.example()
    poison: dict[str, bytes | None] = {
        "invalid_json": b"{not json",
        "null_value": None,
        "missing_field": json.dumps(without(good, "x")).encode(),
        "wrong_type": json.dumps({**good, "x": "1"}).encode(),
        "out_of_range": json.dumps({**good, "x": 101}).encode(),
        "null_field": json.dumps({**good, "x": None}).encode(),
        "bad_utf8": json.dumps({**good, "id": "@"}).encode().replace(b"@", b"\xff"),
        "too_large": b"x" * 10_000_000,
    }
    for value in poison.values():
        world.send_good(20)
        world.send([value])
    world.send([json.dumps(good).replace('"x": ', '"x": NaN, "_": ').encode()])

    trainer = world.train()

    assert trainer.lineage is not None
    total = trainer.lineage.total
    assert (total.trained, total.rejected, total.seen) == (160, 9, 169)
    reasons = sorted(value["reason"].split(":")[0] for value in world.rejected().values())
    assert reasons == sorted([*poison, "invalid_json"])


def test_rejected_records_are_listed_mended_and_sent_again_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.send_good(50)
    world.send([json.dumps(without(world.example(), "colour")).encode() for _ in range(3)])
    world.send([b"\x00"])
    world.train()
    mender = world.settings.data_dir / "mend.py"
    mender.write_text("def mend(record):\n    return {**record, 'colour': 'blue'}\n")
    pipeline_file = world.settings.data_dir / f"{world.pipeline.name.replace('-', '_')}.py"
    pipeline_file.write_text(
        "from stream_trainer import Pipeline\nfrom tests.integration.world import CONTRACT\n"
        f"pipeline = Pipeline(name={world.pipeline.name!r}, contract=CONTRACT, reference_rows=100)\n"
    )
    monkeypatch.chdir(world.settings.data_dir)
    monkeypatch.syspath_prepend(str(world.settings.data_dir))
    monkeypatch.setenv("STREAM_TRAINER_KAFKA__BOOTSTRAP_SERVERS", str(world.settings.kafka.bootstrap_servers))
    monkeypatch.setenv("STREAM_TRAINER_DATA_DIR", str(world.settings.data_dir))

    def command(*arguments: str) -> Any:
        from stream_trainer.cli import app

        result = CliRunner().invoke(app, ["rejected", *arguments, "--json"])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    address = f"{pipeline_file.stem}:pipeline"
    assert len(command("list", address)) == 4
    assert len(command("list", address, "--reason", "missing_field")) == 3
    assert command("redrive", address, "--mend", str(mender), "--dry-run")["sent"] == 3
    assert command("redrive", address, "--mend", str(mender))["sent"] == 3
    assert command("redrive", address, "--mend", str(mender))["sent"] == 0
    trainer = world.train()
    assert trainer.lineage is not None
    assert (trainer.lineage.total.trained, trainer.lineage.total.rejected) == (53, 4)


def test_versions_chain_and_their_offsets_and_rows_add_up(world: World) -> None:
    for _ in range(3):
        world.send_good(100)
        world.train()
    manifests = [world.store.verify(n).manifest for n in world.store.numbers()]
    assert len(manifests) >= 3
    assert [m.previous for m in manifests] == [None, *range(1, len(manifests))]
    for before, after in itertools.pairwise(manifests):
        assert offsets.starts(after.ranges) == before.next_offsets
        assert offsets.advance(before.next_offsets, after.ranges) == after.next_offsets
    assert sum(m.rows.trained for m in manifests) == manifests[-1].total.trained == 300
    assert offsets.size(manifests[-1].ranges) == manifests[-1].rows.seen
    assert manifests[-1].reference is not None


def test_a_restart_needs_no_spark_checkpoint_and_repeats_nothing(world: World) -> None:
    world.send_good(100)
    first = world.train()
    again = world.train()
    assert first.lineage is not None
    assert again.lineage is not None
    assert again.lineage.number == first.lineage.number
    world.send_good(10)
    third = world.train()
    assert third.lineage is not None
    assert third.lineage.total.trained == 110


def test_an_intent_left_behind_is_learned_exactly_before_the_stream(world: World) -> None:
    world.send_good(90)
    trainer = world.train()
    assert trainer.lineage is not None
    position = trainer.lineage.position
    world.send_good(60)
    cut = {world.topic: {p: (o, o + 5) for p, o in position[world.topic].items()}}
    number = trainer.lineage.number
    intent = Intent(version=number, cut=0, ranges=cut, strategy="local", seed=0, run_id="crashed")
    assert world.store.fix_cut(intent) == intent
    world.train()
    assert world.store.read(number).manifest.ranges == cut
    assert world.store.read(world.store.highest()).manifest.total.trained == 150


def test_a_first_version_that_never_came_is_begun_where_its_intent_says(world: World) -> None:
    world.send_good(30)
    first = world.train()
    assert first.lineage is not None
    reached = first.lineage.position
    other = replace(world, pipeline=world.pipeline)
    other.settings = world.settings.model_copy(update={"data_dir": world.settings.data_dir / "elsewhere"})
    world.send_good(30)
    cut = {world.topic: {p: (o, o + 1) for p, o in reached[world.topic].items()}}
    other.store.fix_cut(Intent(version=1, cut=0, ranges=cut, strategy="local", seed=0, run_id="crashed"))
    other.train()
    assert other.store.read(1).manifest.ranges == cut


def test_aborted_records_are_not_trained_and_their_offsets_are_passed(world: World) -> None:
    world.send_good(30)
    transactional = Producer(
        {
            **librdkafka_options(world.settings.kafka),
            "transactional.id": f"{world.topic}-t",
            "partitioner": "murmur2_random",
        }
    )
    transactional.init_transactions(30)
    for commit in (False, True):
        transactional.begin_transaction()
        for _ in range(10):
            transactional.produce(world.topic, json.dumps(world.example()).encode())
        transactional.flush(30)
        if commit:
            transactional.commit_transaction(30)
        else:
            transactional.abort_transaction(30)
    world.send_good(5)
    trainer = world.train()
    assert trainer.lineage is not None
    assert trainer.lineage.head is not None
    assert trainer.lineage.total.trained == 45
    covered = sum(trainer.lineage.head.manifest.next_offsets[world.topic].values())
    assert covered > 55


def test_an_arrow_message_counts_every_row(world: World) -> None:
    rows = [{**world.example(), "at": datetime.fromisoformat("2013-01-01T00:00:00+00:00")} for _ in range(50)]
    rows[7]["x"] = float("nan")
    table = pa.Table.from_pylist(rows)
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    world.send([sink.getvalue()], headers=[("content-type", ARROW_CONTENT_TYPE)])
    trainer = world.train()
    assert trainer.lineage is not None
    assert (trainer.lineage.total.trained, trainer.lineage.total.rejected) == (49, 1)
    assert [key.rsplit("-", 1)[1] for key in world.rejected()] == ["7"]


def test_announcements_name_versions_and_go_on_while_nothing_arrives(world: World) -> None:
    with world.training() as trainer:
        world.send_good(50)
        until(lambda: trainer.lineage and trainer.lineage.total.trained == 50, "50 rows to be learned")

        def idle() -> list[Any]:
            newest = world.store.highest()
            said = [m.value for m in world.announcements() if m.key == "champion" and m.value["version"] == newest]
            return said[1:]

        until(lambda: len(idle()) >= 2, "two words while idle")
        head = world.store.read(world.store.highest())
        first, second = idle()[:2]
        assert first["manifest_sha256"] == head.sha256
        assert first["covered_at"] < second["covered_at"]


def test_two_trainers_make_one_lineage_and_the_loser_is_fenced(world: World) -> None:
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


def test_a_topic_created_again_with_more_records_stops_the_trainer(world: World) -> None:
    world.send_good(10)
    world.train()
    with Admin(world.settings.kafka) as admin:
        admin.delete(world.topic)
        until(lambda: _create_again(admin, world), "the topic to be gone and created again")
    world.send_good(50)
    with pytest.raises(InputLost, match="re-created"):
        world.train()


def _create_again(admin: Admin, world: World) -> bool:
    return bool(admin.create_missing([topic_plans(world.pipeline.name, world.settings.kafka)["examples"]]))


def test_training_can_start_from_the_weights_of_an_older_version(world: World) -> None:
    for _ in range(2):
        world.send_good(50)
        world.train()
    world.send_good(10)
    world.train(origin="1")
    newest = world.store.read(world.store.highest()).manifest
    assert newest.parent == 1
    assert newest.rows.trained == 10


def test_threads_stay_at_one_so_that_bits_repeat(world: World) -> None:
    world.send_good(10)
    world.train()
    assert torch.get_num_threads() == 1
    assert world.store.read(1).manifest.threads == 1
