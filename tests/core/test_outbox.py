from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from stream_trainer.decode import decode
from stream_trainer.errors import BrokerUnavailable
from stream_trainer.outbox import KafkaOutbox
from stream_trainer.store import Version
from stream_trainer.store.aliases import Alias
from stream_trainer.store.manifest import Rows, Verdict
from stream_trainer.topics import Topics
from tests.core.test_microbatch import World, fill
from tests.core.worlds import CONTRACT, NOW, kafka_batch


class Producer:
    """Keeps what it was sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, list[tuple[str, Any]]]] = []

    def send(self, topic: str, records: Any) -> None:
        self.sent.append((topic, list(records)))


class Admin:
    """Does not answer."""

    def show_progress(self, group: str, positions: Any) -> None:
        raise BrokerUnavailable(f"{group}: no answer")


def outbox(producer: Producer, folder: Path) -> KafkaOutbox:
    return KafkaOutbox(Topics("flights"), producer, Admin(), World(folder).store)  # type: ignore[arg-type]


def version(folder: Path, **fields: Any) -> Version:
    world = World(folder)
    fill(world)
    world.learn()
    found = world.store.read(1)
    return Version(msgspec.structs.replace(found.manifest, **fields), found.sha256)


def announced(folder: Path, newest: Version) -> dict[str, tuple[int, int, datetime]]:
    """By key: version, alias number and covered_at of what is announced after a commit."""
    producer = Producer()
    outbox(producer, folder).announce(newest, NOW)
    ((topic, records),) = producer.sent
    assert topic == "flights.models"
    return {key: (value["version"], value["alias"], value["covered_at"]) for key, value in records}


def test_each_rejected_row_has_a_key_of_its_own_place(tmp_path: Path) -> None:
    producer = Producer()
    rows = pa.Table.from_batches([decode(CONTRACT, kafka_batch([b"x"] * 1200, first=5, partition=2))])
    outbox(producer, tmp_path).reject(rows)
    keys = [key for _, records in producer.sent for key, _ in records]
    assert keys == [f"flights.examples-2-{5 + i}-0" for i in range(1200)]
    assert {topic for topic, _ in producer.sent} == {"flights.rejected"}


def test_no_rejected_rows_send_nothing(tmp_path: Path) -> None:
    producer = Producer()
    outbox(producer, tmp_path).reject(pa.Table.from_batches([decode(CONTRACT, kafka_batch([]))]))
    assert producer.sent == []


def test_a_version_that_passed_is_head_and_champion_another_only_head(tmp_path: Path) -> None:
    failed = Verdict(gate="finite", passed=False, detail="nan")
    for gates, expected in (([], ["head", "champion"]), ([failed], ["head"])):
        folder = tmp_path / str(len(gates))
        found = announced(folder, version(folder, gates=gates, rows=Rows(seen=1, quarantined=1)))
        assert found == dict.fromkeys(expected, (1, 0, NOW))


@pytest.mark.parametrize(
    ("entry", "champion"),
    [
        ({"version": 1, "hold": True}, 1),
        ({"version": 1, "hold": False}, 2),
        ({"version": 1, "promotion": "manual"}, 1),
        ({"version": 2, "promotion": "gated"}, 2),
        ({"version": None, "promotion": "manual"}, None),
        ({"version": 7, "hold": True}, None),
    ],
)
def test_the_champion_is_never_another_than_the_alias_says(
    tmp_path: Path, entry: dict[str, Any], champion: int | None
) -> None:
    world = World(tmp_path)
    for n in range(2):
        fill(world, 40 * n)
        world.learn()
    assert world.store.set_alias("champion", Alias(reason="", by="me", at=NOW, **entry), 0) == 1
    first, second = (world.store.read(n) for n in (1, 2))
    found = announced(tmp_path, second)
    alias = 0 if entry["version"] == 7 else 1  # what is held is not there: nobody is named
    assert found.pop("head") == (2, alias, NOW)
    assert found == ({} if champion is None else {"champion": (champion, 1, NOW)})
    assert first.manifest.covered_at == NOW


def test_a_held_version_is_not_called_fresh_by_what_newer_ones_have_learned(tmp_path: Path) -> None:
    world = World(tmp_path)
    for n in range(2):
        fill(world, 40 * n)
        world.learn()
    world.store.set_alias("champion", Alias(version=1, reason="", by="me", at=NOW, hold=True), 0)
    producer = Producer()
    later = NOW + timedelta(hours=1)
    outbox(producer, tmp_path).announce(world.store.read(2), later)
    assert [value["covered_at"] for _, value in producer.sent[0][1]] == [later, NOW]


def test_progress_that_cannot_be_shown_does_not_stop_the_trainer(tmp_path: Path, caplog: Any) -> None:
    caplog.set_level("INFO", "stream_trainer.outbox")
    outbox(Producer(), tmp_path / "other").show_progress(version(tmp_path))
    assert "flights.trainer: no answer" in caplog.text


def test_a_word_of_freshness_that_a_commit_has_overtaken_is_not_sent(tmp_path: Path) -> None:
    producer = Producer()
    sender = outbox(producer, tmp_path)
    first = version(tmp_path)
    second = Version(msgspec.structs.replace(first.manifest, version=2), first.sha256)
    sender.announce(second, NOW)
    sender.announce(first, NOW)
    sender.announce(second, NOW)
    assert [{value["version"] for _, value in records} for _, records in producer.sent] == [{2}, {2}]
