"""`lineage --version`: what a person reads of a version, without Kafka."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from stream_trainer import cli, history
from stream_trainer.commands.lineage import _compact, _record, _text
from stream_trainer.errors import NoVersion
from stream_trainer.offsets import Loss
from stream_trainer.store.manifest import encode
from tests.core.test_microbatch import PIPELINE, Suspicious, World, fill
from tests.core.worlds import NOW, TOPIC

ADDRESS = "tests.core.test_microbatch:PIPELINE"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Three versions: the second failed its gate, the third has lost records before it."""
    monkeypatch.setenv("STREAM_TRAINER_STORE__URL", str(tmp_path))
    gate = Suspicious()
    made = World(tmp_path, replace(PIPELINE, gates=(gate,)))
    for n in range(3):
        gate.closed = n == 1
        fill(made, 40 * n)
        made.learn()
    topic_id = made.store.read(3).manifest.topic_ids[TOPIC]
    loss = Loss(topic=TOPIC, topic_id=topic_id, partition=1, start=38, next=40, reason="retention")
    changed = msgspec.structs.replace(made.store.read(3).manifest, lost=[loss])
    made.store.storage.put(f"flights/versions/{3:020d}/manifest.json", encode(changed))
    return made


def lines(*arguments: str) -> list[list[str]]:
    found = CliRunner().invoke(cli.app, ["lineage", ADDRESS, *arguments])
    assert found.exit_code == 0, found.output
    return [line.split() for line in found.stdout.splitlines()]


def test_offsets_stand_apart_by_what_became_of_them(world: World) -> None:
    shown = lines("--version", "3")
    assert ["version", "3", "of", "flights"] in shown
    assert ["parents", "2", "to", "1"] in shown
    assert ["since", "the", "start", "72", "rows", "trained,", "in", "3", "versions"] in shown
    for line in (
        "flights.examples[0] learned 40 to 59 0 to 19, 40 to 59",
        "flights.examples[1] quarantined - 20 to 39",
        "flights.examples[1] lost 38 to 39 38 to 39",
    ):
        assert line.split() in shown, line
    assert ["version", "2", "of", "flights", "(failed", "a", "gate)"] in lines("--version", "2")


def test_as_json_it_is_the_trace(world: World) -> None:
    found = CliRunner().invoke(cli.app, ["lineage", ADDRESS, "--version", "3", "--json"])
    told = json.loads(found.stdout)
    assert told["prediction"] is None
    expected = history.trace(history.ancestors(world.store, 3))
    assert msgspec.convert(told["version"], history.Trace) == expected


def test_a_version_that_is_not_there(world: World) -> None:
    found = CliRunner().invoke(cli.app, ["lineage", ADDRESS, "--version", "9"])
    assert isinstance(found.exception, NoVersion)


@pytest.mark.parametrize(
    ("numbers", "text"), [([], ""), ([3], "3"), ([3, 2, 1], "3 to 1"), ([9, 5, 4, 1], "9, 5 to 4, 1")]
)
def test_runs_of_versions_are_written_as_their_ends(numbers: list[int], text: str) -> None:
    assert _compact(numbers) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b'{"a": [1]}', '{"a": [1]}'),
        (b'{"a": "\\u001b[31m"}', '{"a": "\\u001b[31m"}'),
        (b"\x1b[31mred", "\\x1b[31mred"),
        (b"\xff\x00", "\\ufffd\\x00"),
        (b"null", "null"),
        (b"[" * 100_000, "[" * 1000),
        (None, "no value"),
    ],
)
def test_whatever_a_record_holds_the_terminal_gets_plain_text(value: bytes | None, text: str) -> None:
    record: dict[str, Any] = {"topic": TOPIC, "partition": 0, "offset": 3, "timestamp": NOW, "value": value}
    assert _text(_record(record, [], quarantined=False)) == text
