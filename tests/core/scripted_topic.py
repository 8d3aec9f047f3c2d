"""A topic of one partition that a test writes, breaks and makes anew."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec

from stream_trainer.errors import BrokerUnavailable
from stream_trainer.topic_reading import Record


class ScriptedTopic:
    """See `topic_reading.TopicLog`. `opened` and `closed` count; `broken`: no broker answers."""

    topic_id = "x"

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.at = 0
        self.opened = 0
        self.closed = 0
        self.broken = False

    def write(self, key: str, value: Any) -> None:
        data = value if value is None or isinstance(value, bytes) else msgspec.json.encode(value)
        self.records.append(Record(0, len(self.records), key.encode(), data))

    @contextmanager
    def open(self) -> Iterator[Any]:
        self.opened += 1
        try:
            yield self
        finally:
            self.closed += 1

    def seek(self, offsets: Mapping[int, int]) -> None:
        self.at = offsets.get(0, 0)

    def ends(self) -> dict[int, int]:
        if self.broken:
            raise BrokerUnavailable("gone")
        return {0: len(self.records)}

    def position(self) -> dict[int, int]:
        return {0: self.at}

    def poll(self, seconds: float) -> list[Record]:
        found = self.records[self.at : self.at + 100]
        self.at += len(found)
        return found
