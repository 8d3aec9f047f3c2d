"""The labelled examples of a pipeline as a trial reads them: where they begin and end, and exact ranges of them.

Reading only, in no group: what a trial reads nobody else misses.
"""

from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import pyarrow as pa

from serving.clock import Clock
from stream_trainer.contract import Contract
from stream_trainer.kafka import Admin, Log
from stream_trainer.log_reader import LogReader
from stream_trainer.offsets import Ranges
from stream_trainer.settings import KafkaSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """The topic as it was at one instant.

    Attributes:
        topic_id: another one means that the topic was made again, with other records at the same offsets.
        at: before the ends were asked for: what they leave out was appended later.
        partitions: the first offset that exists and the next one to be written, per partition.
    """

    topic_id: str
    at: datetime
    partitions: dict[int, tuple[int, int]]


class ExamplesLog(Protocol):
    """Where labelled examples come from. Used by one thread."""

    def bounds(self) -> Bounds:
        """The topic as it is now.

        Raises:
            InputLost: there is no such topic.
            BrokerUnavailable: the broker does not answer.
        """
        ...

    def read(self, ranges: Ranges, topic_id: str) -> pa.Table:
        """The decoded records (`decode.decoded_schema`) of exactly these ranges.

        Raises:
            InputLost: the topic was made again, or some of the records are gone.
            BrokerUnavailable: the broker does not answer.
        """
        ...

    def close(self) -> None:
        """Release the connections."""
        ...


class KafkaExamples:
    """`P.examples`, read-committed, decoded as the trainer decodes it."""

    def __init__(self, contract: Contract, settings: KafkaSettings, topic: str, clock: Clock) -> None:
        self._topic = topic
        self._clock = clock
        with ExitStack() as opened:
            self._admin = opened.enter_context(Admin(settings))
            self._log = Log(settings)
            opened.callback(self._log.close)
            self._reader = opened.enter_context(LogReader(contract, settings))
            self._opened = opened.pop_all()

    def bounds(self) -> Bounds:
        """See `ExamplesLog.bounds`."""
        at = self._clock()
        topic_id, partitions = self._admin.topic(self._topic)
        ends = self._log.ends(self._topic, partitions)
        starts = self._log.starts(self._topic, partitions)
        return Bounds(topic_id=topic_id, at=at, partitions={p: (starts[p], ends[p]) for p in partitions})

    def read(self, ranges: Ranges, topic_id: str) -> pa.Table:
        """See `ExamplesLog.read`."""
        return self._reader.read(ranges, {self._topic: topic_id})

    def close(self) -> None:
        """See `ExamplesLog.close`."""
        self._opened.close()
