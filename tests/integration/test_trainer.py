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
from typer.testing import CliRunner

from stream_trainer import offsets
from stream_trainer.decode import ARROW_CONTENT_TYPE
from stream_trainer.store.store import Intent
from tests.integration.world import World, until


def without(record: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key != name}


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
