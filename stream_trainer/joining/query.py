"""The joiner on Spark: one stateful query over both topics, `transformWithState` on RocksDB with timers.

Its checkpoint is state. The rules are in `matching`, what is written is decided in `commits`.
"""

import json
import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyspark.sql.pandas.types import from_arrow_schema

from stream_trainer.errors import StreamFailed, UsageError
from stream_trainer.joining.commits import Marker
from stream_trainer.joining.matching import Emitted
from stream_trainer.joining.processor import OUT, PACKED, JoinProcessor, pack, unpack
from stream_trainer.joining.records import events
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
        self._checkpoint = checkpoint_folder(pipeline, settings)

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
        running = RunningStream(_Kept(), f"{self._pipeline.name}'s predictions and labels", self._failure)
        span = int((self._join.horizon + self._join.kept).total_seconds() * 1000)

        def on_batch(batch: "DataFrame", batch_id: int) -> None:
            with running.batch():
                query_id = self._query_id()
                marker = self._marker(query_id, batch_id)
                todo = self._writer.write(marker, _collect(batch))
                wrote(marker, todo)
                if sized is not None and running.query is not None:
                    sized(*_size(running.query.lastProgress))

        try:
            lost = self._writer.begin_again(self._query_id(), span)
            running.query = (
                self._joined(lost, span)
                .writeStream.queryName(f"{self._pipeline.name}-joiner")
                .outputMode("update")
                .foreachBatch(on_batch)
                .option("checkpointLocation", self._checkpoint)
                .trigger(processingTime=f"{int(self._settings.join.trigger_seconds * 1000)} milliseconds")
                .start()
            )
        except Exception as error:
            raise self._failure(error) from error
        return running

    def _joined(self, lost: Marker | None, span: int) -> "DataFrame":
        topics, contract, join = self._pipeline.topics, self._pipeline.contract, self._join
        labels = topics.labels

        def read(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            return pack(event for batch in batches for event in events(contract, join, labels, batch))

        start = "earliest" if lost is None else to_spark_json(self._writer.inputs_at(lost.at - span))
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

    def _query_id(self) -> str:
        """The checkpoint's name, empty before there is one."""
        found = self._read("metadata")
        return "" if found is None else str(json.loads(found)["id"])

    def _marker(self, query_id: str, batch_id: int) -> Marker:
        entry = self._read(f"offsets/{batch_id}")
        if entry is None:
            raise StreamFailed(f"the joiner's offset log in {self._checkpoint} has no entry {batch_id}")
        _, metadata, *sources = entry.splitlines()
        ends: Offsets = {}
        for source in sources:
            for topic, partitions in json.loads(source).items():
                ends[topic] = {int(p): int(o) for p, o in partitions.items()}
        at = int(json.loads(metadata)["batchTimestampMs"])
        return Marker(query_id=query_id, batch_id=batch_id, next_offsets=ends, digest="", at=at, compare_from={})

    def _read(self, name: str) -> str | None:
        """A file of the checkpoint, by Hadoop where it is no folder."""
        if "://" not in self._checkpoint:
            path = Path(self._checkpoint, name)
            return path.read_text() if path.exists() else None
        gateway: Any = self._spark.sparkContext._jvm  # noqa: SLF001 - pyspark has no public way
        path = gateway.org.apache.hadoop.fs.Path(f"{self._checkpoint}/{name}")
        files = path.getFileSystem(self._spark.sparkContext._jsc.hadoopConfiguration())  # noqa: SLF001
        if not files.exists(path):
            return None
        stream = files.open(path)
        try:
            return str(gateway.org.apache.commons.io.IOUtils.toString(stream, "UTF-8"))
        finally:
            stream.close()

    def _failure(self, error: BaseException) -> Any:
        gateway = self._spark.sparkContext._gateway  # noqa: SLF001
        return failure(f"{self._pipeline.name}'s joiner", error, getattr(gateway, "proc", None))


class _Kept:
    """Stands where the trainer has a checkpoint that ends with its query: this one stays."""

    def cleanup(self) -> None:
        """Keeps it."""


def _size(progress: Any) -> tuple[int, int]:
    """Bytes of the state in memory and those of its files; zeros before Spark has told."""
    operators = [] if progress is None else json.loads(progress.json)["stateOperators"]
    memory = sum(int(one["memoryUsedBytes"]) for one in operators)
    return memory, sum(int(one["customMetrics"].get("rocksdbSstFileSize", 0)) for one in operators)


def _collect(batch: "DataFrame") -> list[Emitted]:
    """One action: each further one would run the batch again."""
    return unpack(batch.toArrow().column("packed").to_pylist())
