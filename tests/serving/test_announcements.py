"""What `KafkaAnnouncements` makes of what its client says; with a real broker: `test_kafka.py`."""

from collections import deque
from typing import Any

import msgspec
import pytest
from confluent_kafka import KafkaError

from serving.announcements import CHAMPION, Announcement, KafkaAnnouncements
from stream_trainer.errors import BrokerUnavailable
from stream_trainer.settings import KafkaSettings
from tests.serving.fixtures import NOW


class Said:
    """A message of confluent-kafka: a record, or an error."""

    def __init__(self, value: bytes | None = None, key: bytes = CHAMPION, error: int | None = None) -> None:
        self._value, self._key, self._error = value, key, error

    def error(self) -> KafkaError | None:
        return None if self._error is None else KafkaError(self._error)

    def key(self) -> bytes:
        return self._key

    def value(self) -> bytes | None:
        return self._value

    def topic(self) -> str:
        return "flights.models"

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return 5


class Client:
    """Gives what it was told to."""

    def __init__(self, *said: Said) -> None:
        self.said = deque(said)
        self.closed = False

    def poll(self, timeout: float) -> Said | None:
        return self.said.popleft() if self.said else None

    def consume(self, count: int, timeout: float) -> list[Said]:
        found = list(self.said)
        self.said.clear()
        return found

    def close(self) -> None:
        self.closed = True


def source_of(client: Any) -> KafkaAnnouncements:
    def prepare() -> None:
        raise BrokerUnavailable("still down")

    source = KafkaAnnouncements(KafkaSettings(bootstrap_servers="127.0.0.1:1"), "flights.models", prepare)
    source._consumer = client
    return source


def announced(version: int) -> Announcement:
    return Announcement(version=version, manifest_sha256="a" * 64, at=NOW)


def record(version: int, key: bytes = CHAMPION) -> Said:
    return Said(msgspec.json.encode(announced(version)), key)


def test_what_is_no_announcement_is_passed_over() -> None:
    others = [
        Said(error=KafkaError._PARTITION_EOF),
        Said(error=KafkaError.GROUP_AUTHORIZATION_FAILED),
        record(9, b"head"),
        Said(None),
        Said(b"not JSON"),
        Said(b'{"version": "one"}'),
    ]
    source = source_of(Client(*others[:3], record(1), *others[3:], record(2), *others))
    assert source.poll(0) == [announced(1), announced(2)]
    assert source.poll(0) == []


def test_the_end_of_a_partition_does_not_end_the_wait() -> None:
    client = Client()
    ends = iter([Said(error=KafkaError._PARTITION_EOF), None, record(1)])
    client.poll = lambda timeout: next(ends)  # type: ignore[method-assign]
    assert source_of(client).poll(60) == [announced(1)]


def test_after_a_failure_the_next_call_begins_anew() -> None:
    client = Client(record(1), Said(error=KafkaError.UNKNOWN_TOPIC_OR_PART))
    source = source_of(client)
    with pytest.raises(BrokerUnavailable, match=r"flights\.models failed at 127\.0\.0\.1:1"):
        source.poll(60)
    assert client.closed
    with pytest.raises(BrokerUnavailable, match="still down"):
        source.poll(60)


def test_to_close_ends_a_wait_and_gives_the_client_back() -> None:
    client = Client()
    source = source_of(client)
    source.close()
    assert source.poll(60) == []
    assert client.closed
