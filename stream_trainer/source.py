"""The examples topic as a source: which partitions there are, where they begin and end, and whether it is still the same.

A topic that was re-created with more records than were learned looks healthy to Spark, so its id is compared; a
partition whose first offset has moved past what is still to be learned has lost records.
"""

from collections.abc import Sequence
from typing import Protocol

from stream_trainer.errors import InputLost
from stream_trainer.offsets import Loss, Offsets, Reason

_GO_ON = "`stream-trainer train --accept-data-loss` goes on without them and records that in the lineage"


class Described(Protocol):
    """What `kafka.Admin` says of a topic."""

    def topic(self, topic: str) -> tuple[str, list[int]]:
        """Its id and partitions."""
        ...

    def partitions(self, topic: str) -> list[int]:
        """Its partitions."""
        ...


class Bounded(Protocol):
    """What `kafka.Log` says of a topic."""

    def starts(self, topic: str, partitions: Sequence[int]) -> dict[int, int]:
        """The first offset of each partition."""
        ...

    def ends(self, topic: str, partitions: Sequence[int]) -> dict[int, int]:
        """The next offset of each partition."""
        ...


class KafkaSource:
    """One topic of one cluster. `known_id` is the topic's id as the newest manifest has it."""

    def __init__(self, topic: str, admin: Described, log: Bounded, known_id: str | None = None) -> None:
        self.topic = topic
        self._admin = admin
        self._log = log
        self._known_id = known_id

    def expect(self, topic_ids: dict[str, str]) -> None:
        """See `outside.Source.expect`."""
        self._known_id = topic_ids.get(self.topic)

    def earliest(self) -> Offsets:
        """The first offset of every partition that still exists."""
        return {self.topic: self._log.starts(self.topic, self._admin.partitions(self.topic))}

    def latest(self) -> Offsets:
        """The next offset of every partition."""
        return {self.topic: self._log.ends(self.topic, self._admin.partitions(self.topic))}

    def covered(self, vector: Offsets) -> bool:
        """Whether the log ends, as far as the vector's partitions go, where the vector stands."""
        mine = vector.get(self.topic, {})
        ends = self._log.ends(self.topic, sorted(mine))
        return all(mine[partition] >= end for partition, end in ends.items())

    def missing(self, needed: Offsets) -> list[Loss]:
        """See `outside.Source.missing`."""
        losses = self._look(needed)[1]
        if any(loss.reason == "recreated" for loss in losses):
            return losses
        wanted = needed.get(self.topic, {})
        gone = {loss.partition for loss in losses}
        ends = self._log.ends(self.topic, left) if (left := sorted(wanted.keys() - gone)) else {}
        shorter = [p for p in left if p in ends and ends[p] < wanted[p]]
        return [*losses, *(self._loss(p, ends[p], wanted[p], "truncated") for p in shorter)]

    def check(self, needed: Offsets) -> dict[str, str]:
        """See `outside.Source.check`."""
        found, losses = self._look(needed)
        if losses:
            raise InputLost(describe(losses))
        if self._known_id is None:
            self._known_id = found
        return {self.topic: found}

    def _look(self, needed: Offsets) -> tuple[str, list[Loss]]:
        found, partitions = self._admin.topic(self.topic)
        wanted = needed.get(self.topic, {})
        if self._known_id not in (None, found):
            return found, [self._loss(p, offset, None, "recreated") for p, offset in sorted(wanted.items())]
        known = [p for p in sorted(wanted) if p in partitions]
        starts = self._log.starts(self.topic, known) if known else {}
        losses = []
        for partition, offset in sorted(wanted.items()):
            if partition not in starts:
                losses.append(self._loss(partition, offset, None, "vanished"))
            elif starts[partition] > offset:
                losses.append(self._loss(partition, offset, starts[partition], "retention"))
        return found, losses

    def _loss(self, partition: int, start: int, following: int | None, reason: Reason) -> Loss:
        return Loss(
            topic=self.topic,
            topic_id=self._known_id or "",
            partition=partition,
            start=start,
            next=following,
            reason=reason,
        )


def describe(losses: list[Loss]) -> str:
    """One line: what is gone, where, and what to do."""
    first = losses[0]
    where = f"{first.topic}[{first.partition}]"
    others = f" (and {len(losses) - 1} more partitions)" if len(losses) > 1 else ""
    match first.reason:
        case "recreated":
            return (
                f"topic {first.topic} was re-created: the lineage learned from the one with id {first.topic_id}; "
                f"its offsets mean other records now; give the pipeline a new name to start over, or {_GO_ON}"
            )
        case "vanished":
            return f"{where} has vanished{others}: it was to be read from offset {first.start}; {_GO_ON}"
        case "truncated":
            return (
                f"{where} became shorter{others}: it ends at offset {first.start}, but was learned or planned up to "
                f"{first.next}; did the broker lose data? restore it, or {_GO_ON}"
            )
        case "retention":
            return (
                f"{where}: offsets {first.start} to {(first.next or 0) - 1} are gone (retention){others}; they were never "
                f"learned; lengthen the topic's retention; {_GO_ON}"
            )
