from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from stream_trainer.decode import decode
from stream_trainer.errors import BrokerUnavailable
from stream_trainer.outbox import KafkaOutbox
from stream_trainer.store import Version
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


def outbox(producer: Producer) -> KafkaOutbox:
    return KafkaOutbox(Topics("flights"), producer, Admin())  # type: ignore[arg-type]


def version(folder: Path, **fields: Any) -> Version:
    world = World(folder)
    fill(world)
    world.learn()
    found = world.store.read(1)
    return Version(msgspec.structs.replace(found.manifest, **fields), found.sha256)


def test_each_rejected_row_has_a_key_of_its_own_place() -> None:
    producer = Producer()
    rows = pa.Table.from_batches([decode(CONTRACT, kafka_batch([b"x"] * 1200, first=5, partition=2))])
    outbox(producer).reject(rows)
    keys = [key for _, records in producer.sent for key, _ in records]
    assert keys == [f"flights.examples-2-{5 + i}-0" for i in range(1200)]
    assert {topic for topic, _ in producer.sent} == {"flights.rejected"}


def test_no_rejected_rows_send_nothing() -> None:
    producer = Producer()
    outbox(producer).reject(pa.Table.from_batches([decode(CONTRACT, kafka_batch([]))]))
    assert producer.sent == []


def test_a_version_that_passed_is_head_and_champion_another_only_head(tmp_path: Path) -> None:
    failed = Verdict(gate="finite", passed=False, detail="nan")
    for gates, expected in (([], ["head", "champion"]), ([failed], ["head"])):
        producer = Producer()
        fields = {"gates": gates, "rows": Rows(seen=1, quarantined=1)}
        outbox(producer).announce(version(tmp_path / str(len(gates)), **fields), NOW)
        ((topic, records),) = producer.sent
        assert topic == "flights.models"
        assert [key for key, _ in records] == expected
        assert {value["version"] for _, value in records} == {1}


def test_progress_that_cannot_be_shown_does_not_stop_the_trainer(tmp_path: Path, caplog: Any) -> None:
    caplog.set_level("INFO", "stream_trainer.outbox")
    outbox(Producer()).show_progress(version(tmp_path))
    assert "flights.trainer: no answer" in caplog.text
