"""The joiner on Spark: one stateful query over both topics, `transformWithState` on RocksDB with timers.

Its checkpoint is state. The rules are in `matching`, what is written is decided in `commits`.
"""

import json
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyspark.sql.pandas.types import from_arrow_schema

from stream_trainer.errors import UsageError
from stream_trainer.joining.checkpoint import Checkpoint
from stream_trainer.joining.clock import CLOCK, LogClock, slot_width
from stream_trainer.joining.join import milliseconds
from stream_trainer.joining.matching import Emitted
from stream_trainer.joining.processor import OUT, PACKED, JoinProcessor, pack, unpack
from stream_trainer.joining.records import events
from stream_trainer.joining.recovery import Marker
from stream_trainer.joining.writer import JoinWriter
from stream_trainer.kafka import spark_options
from stream_trainer.offsets import Offsets
from stream_trainer.pipeline import Pipeline
from stream_trainer.query import RunningStream, failure, to_spark_json
from stream_trainer.settings import Settings

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

logger = logging.getLogger(__name__)

STATE = "org.apache.spark.sql.execution.streaming.state.RocksDBStateStoreProvider"
_ARROW_BYTES = str(4 * 2**20)
_COLUMNS = ("topic", "partition", "offset", "timestamp", "value")


def session_options(settings: Settings) -> dict[str, str]:
    """What the joiner's session is told beside what every Spark here is told; a session of a shared Spark will do."""
    rocks = "spark.sql.streaming.stateStore.rocksdb"
    return {
        "spark.sql.shuffle.partitions": str(settings.join.state_partitions),
        "spark.sql.streaming.stateStore.providerClass": STATE,
        f"{rocks}.changelogCheckpointing.enabled": "true",
        f"{rocks}.boundedMemoryUsage": "true",
        f"{rocks}.maxMemoryUsageMB": str(settings.join.state_cache_mb),
        # Counting rows would be one more look-up for each put.
        f"{rocks}.trackTotalNumberOfRows": "false",
        # A record may be a block of a hundred predictions: what goes to a worker at once is bounded by its size.
        "spark.sql.execution.arrow.maxBytesPerBatch": _ARROW_BYTES,
        "spark.sql.streaming.minBatchesToRetain": "10",
        # RocksDB asks Hadoop for its own local file system and takes no other: see `infra.spark`.
        "fs.file.impl": "org.apache.hadoop.fs.LocalFileSystem",
    }


def checkpoint_folder(pipeline: Pipeline, settings: Settings) -> str:
    """Where the joiner's state lives; it has to survive restarts."""
    root = settings.join.checkpoint_url or str(settings.data_dir / "checkpoints")
    return f"{root.rstrip('/')}/{pipeline.name}/joiner"


class JoinQuery:
    """Starts the query of one pipeline on a session, and writes its batches."""

    def __init__(self, spark: "SparkSession", pipeline: Pipeline, settings: Settings, writer: JoinWriter) -> None:
        if pipeline.join is None:
            raise UsageError(f"pipeline {pipeline.name!r} joins nothing: give it a Join")
        self._spark = spark
        self._pipeline = pipeline
        self._join = pipeline.join
        self._settings = settings
        self._writer = writer
        self._checkpoint = Checkpoint(checkpoint_folder(pipeline, settings), spark.sparkContext)

    def start(
        self, wrote: Callable[[Marker, Any], None], sized: Callable[[int, int], None] | None = None
    ) -> RunningStream:
        """Begin where the checkpoint stands, or with the last horizon when it was lost.

        Args:
            wrote: told of each batch and of what was written for it.
            sized: told with each batch of the state after the one before: its bytes in memory and on disk.

        Raises:
            StreamFailed, SparkLost: see `query.failure`.
        """
        running = RunningStream(_Kept(self._writer), f"{self._pipeline.name}'s predictions and labels", self._failure)

        def on_batch(batch: "DataFrame", batch_id: int) -> None:
            with running.batch():
                marker = self._marker(batch_id, clock)
                todo = self._writer.write(marker, _collect(batch))
                wrote(marker, todo)
                if sized is not None and running.query is not None:
                    sized(*_size(running.query.lastProgress))

        try:
            start = self._writer.begin(self._checkpoint.place(), self._join)
            clock = self._clock()
            running.query = (
                self._joined("earliest" if start is None else to_spark_json(start))
                .writeStream.queryName(f"{self._pipeline.name}-joiner")
                .outputMode("update")
                .foreachBatch(on_batch)
                .option("checkpointLocation", self._checkpoint.url)
                .trigger(processingTime=f"{int(self._settings.join.trigger_seconds * 1000)} milliseconds")
                .start()
            )
        except Exception as error:
            raise self._failure(error) from error
        return running

    def _joined(self, start: str) -> "DataFrame":
        topics, contract, join = self._pipeline.topics, self._pipeline.contract, self._join
        labels = topics.labels

        def read(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            return pack(event for batch in batches for event in events(contract, join, labels, batch))

        options = {
            **spark_options(self._settings.kafka),
            "kafka.fetch.max.wait.ms": "20",
            "subscribe": f"{topics.predictions},{labels}",
            "startingOffsets": start,
            "maxOffsetsPerTrigger": str(self._settings.join.max_records_per_batch),
            "failOnDataLoss": "true",
        }
        frame = self._spark.readStream.format("kafka").options(**options).load().select(*_COLUMNS)
        return (
            frame.coalesce(self._settings.join.state_partitions)
            .mapInArrow(read, from_arrow_schema(PACKED))
            .groupBy("bucket")
            .transformWithState(
                JoinProcessor(contract, join), outputStructType=OUT, outputMode="Update", timeMode="ProcessingTime"
            )
        )

    def _clock(self) -> LogClock:
        horizon, slack, firing = map(milliseconds, (self._join.horizon, self._join.slack, self._join.firing))

        def look(read: Offsets, planned: int) -> int:
            return self._writer.read_until(read, planned - slack)

        return LogClock(look, width=slot_width(horizon), settle=firing, settled=self._writer.settled)

    def _marker(self, batch_id: int, clock: LogClock) -> Marker:
        """Of a batch that is about to run; its tasks are told the clock."""
        ends, at = self._checkpoint.batch(batch_id)
        self._spark.sparkContext.setLocalProperty(CLOCK, str(clock.at(ends, at)))
        return Marker(
            query_id=self._checkpoint.name(),
            batch_id=batch_id,
            next_offsets=ends,
            digest="",
            at=at,
            compare_from={},
            settled=clock.settled,
        )

    def _failure(self, error: BaseException) -> Any:
        gateway = self._spark.sparkContext._gateway  # noqa: SLF001
        return failure(f"{self._pipeline.name}'s joiner", error, getattr(gateway, "proc", None))


@dataclass(frozen=True, slots=True)
class _Kept:
    """Stands where the trainer has a checkpoint that ends with its query: this one stays, what ends is the writer."""

    writer: JoinWriter

    def cleanup(self) -> None:
        """No batch runs any more."""
        self.writer.close()


def _size(progress: Any) -> tuple[int, int]:
    """Bytes of the state in memory and those of its files; zeros before Spark has told."""
    operators = [] if progress is None else json.loads(progress.json)["stateOperators"]
    memory = sum(int(one["memoryUsedBytes"]) for one in operators)
    return memory, sum(int(one["customMetrics"].get("rocksdbSstFileSize", 0)) for one in operators)


def _collect(batch: "DataFrame") -> list[Emitted]:
    """One action: each further one would run the batch again."""
    return unpack(batch.toArrow().column("packed").to_pylist())
