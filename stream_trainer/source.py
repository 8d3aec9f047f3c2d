"""The examples topic as a source: which partitions there are, where they begin and end, and whether it is still the same.

A topic that was re-created with more records than were learned looks healthy to Spark, so its id is compared; a
partition whose first offset has moved past what is still to be learned has lost records.
"""

from stream_trainer.errors import InputLost
from stream_trainer.kafka import Admin, Log
from stream_trainer.offsets import Offsets


class KafkaSource:
    """One topic of one cluster. `known_id` is the topic's id as the newest manifest has it."""

    def __init__(self, topic: str, admin: Admin, log: Log, known_id: str | None = None) -> None:
        self.topic = topic
        self._admin = admin
        self._log = log
        self._known_id = known_id

    def earliest(self) -> Offsets:
        """The first offset of every partition that still exists."""
        return {self.topic: self._log.starts(self.topic, self._admin.partitions(self.topic))}

    def latest(self) -> Offsets:
        """The next offset of every partition."""
        return {self.topic: self._log.ends(self.topic, self._admin.partitions(self.topic))}

    def ends(self, vector: Offsets) -> Offsets:
        """The next offset of the partitions of a vector."""
        return {self.topic: self._log.ends(self.topic, sorted(vector[self.topic]))}

    def start(self, position: Offsets) -> Offsets:
        """Where to begin: the position, and the start of every partition that it does not know.

        Raises:
            InputLost: the topic, a partition or records that the position needs are gone.
        """
        self.check(position)
        known = position.get(self.topic, {})
        return {self.topic: {**self.earliest()[self.topic], **known}}

    def check(self, needed: Offsets) -> dict[str, str]:
        """See `microbatch.Source.check`."""
        found = self._admin.topic_id(self.topic)
        if self._known_id is None:
            self._known_id = found
        if found != self._known_id:
            raise InputLost(
                f"topic {self.topic} was re-created: its id is {found}, the lineage learned from {self._known_id}; "
                "its offsets mean other records now; give the pipeline a new name to start over"
            )
        wanted = needed.get(self.topic, {})
        starts = self._log.starts(self.topic, sorted(wanted))
        for partition, offset in wanted.items():
            if partition not in starts:
                raise InputLost(f"{self.topic}[{partition}] has vanished: it was to be read from offset {offset}")
            if starts[partition] > offset:
                raise InputLost(
                    f"{self.topic}[{partition}]: offsets {offset} to {starts[partition] - 1} are gone (retention); "
                    "they were never learned; lengthen the topic's retention"
                )
        return {self.topic: found}
