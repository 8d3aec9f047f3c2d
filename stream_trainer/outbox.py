"""What the trainer tells the world: rejected records to `P.rejected`, versions to `P.models`."""

import base64
import logging
import threading
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from kafka import TopicPartition
from kafka.structs import OffsetAndMetadata

from stream_trainer.alerts import TrainerAlert
from stream_trainer.errors import BrokerUnavailable, Corrupt, NoVersion, StoreUnavailable
from stream_trainer.kafka import Admin, ControlProducer
from stream_trainer.store import ModelStore, Version
from stream_trainer.store.aliases import CHAMPION
from stream_trainer.topics import Topics

logger = logging.getLogger(__name__)

_CHUNK = 500


def rejected_key(topic: str, partition: int, offset: int, row: int) -> str:
    """The key under which a rejected row is kept: sent twice, it counts once."""
    return f"{topic}-{partition}-{offset}-{row}"


def rejected_value(row: dict[str, Any], at: datetime) -> dict[str, Any]:
    """The value of a rejected row: where it came from, why, and its first 64 KiB (base64)."""
    return {
        "topic": row["_topic"],
        "partition": row["_partition"],
        "offset": row["_offset"],
        "row": row["_row"],
        "reason": row["_reason"],
        "length": row["_length"],
        "sha256": row["_sha256"],
        "bytes": base64.b64encode(row["_bytes"]).decode(),
        "appended_at": row["_append_time"],
        "rejected_at": at,
    }


def announcement(version: Version, covered_at: datetime, at: datetime, *, alias: int) -> dict[str, Any]:
    """The value of an announcement.

    Args:
        version: which one.
        covered_at: when the trainer last saw the end of the log covered by it.
        at: now.
        alias: the number of the newest champion entry that the sender knows, 0 for none. Who follows ignores a
            champion that is based on an older entry than the newest it has heard of.
    """
    return {
        "version": version.number,
        "manifest_sha256": version.sha256,
        "trained_through": version.manifest.trained_through,
        "at": at,
        "covered_at": covered_at,
        "alias": alias,
    }


class KafkaOutbox:
    """Writes to the control topics of one pipeline; `store` says who is champion."""

    def __init__(self, topics: Topics, producer: ControlProducer, admin: Admin, store: ModelStore) -> None:
        self._topics = topics
        self._store = store
        self._producer = producer
        self._admin = admin
        self._announcing = threading.Lock()
        self._announced = 0

    def reject(self, rows: pa.Table) -> None:
        """See `outside.Outbox.reject`."""
        now = datetime.now(UTC)
        accounting = rows.select([name for name in rows.column_names if name.startswith("_")])
        for chunk in accounting.to_batches(max_chunksize=_CHUNK):
            records = [
                (rejected_key(row["_topic"], row["_partition"], row["_offset"], row["_row"]), rejected_value(row, now))
                for row in chunk.to_pylist()
            ]
            self._producer.send(self._topics.rejected, records)

    def announce(self, version: Version, covered_at: datetime) -> None:
        """See `outside.Outbox.announce`; the champion is who the newest entry of its alias says, or nobody is named."""
        with self._announcing:
            self._announce(version, covered_at)

    def _announce(self, version: Version, covered_at: datetime) -> None:
        if version.number < self._announced:
            return  # a word of freshness that was overtaken by a commit
        self._announced = version.number
        now = datetime.now(UTC)
        number, champion = self._champion(version)
        value = announcement(version, covered_at, now, alias=number)
        records = [("head", value)]
        if champion is not None:
            since = covered_at if champion.sha256 == version.sha256 else _covered(champion)
            records.append((CHAMPION, announcement(champion, since, now, alias=number)))
        self._producer.send(self._topics.models, records)

    def _champion(self, newest: Version) -> tuple[int, Version | None]:
        """By the rule of the alias; None when the new version is not it, or nobody can say."""
        try:
            number, alias = self._store.alias_entry(CHAMPION)
            if alias is None or alias.follows:
                return number, newest if newest.manifest.passed else None
            return number, self._store.champion_by(alias)
        except (StoreUnavailable, Corrupt, NoVersion) as error:
            logger.warning("no champion is announced: %s", error)
            return 0, None

    def alert(self, alerts: Iterable[TrainerAlert]) -> None:
        """See `outside.Outbox.alert`."""
        records = [(alert.alert_key, alert) for alert in alerts]
        if records:
            self._producer.send(self._topics.alerts, records)

    def show_progress(self, version: Version) -> None:
        """Commit the offsets to the group `P.trainer` for lag tools; never read back, so a failure is only logged."""
        found = {
            TopicPartition(topic, partition): OffsetAndMetadata(offset, "", -1)
            for topic, partitions in version.manifest.next_offsets.items()
            for partition, offset in partitions.items()
        }
        try:
            self._admin.show_progress(f"{self._topics.pipeline}.trainer", found)
        except BrokerUnavailable as error:
            logger.info("lag tools see no progress of this version: %s", error)


def _covered(version: Version) -> datetime:
    return version.manifest.covered_at or version.manifest.created_at
