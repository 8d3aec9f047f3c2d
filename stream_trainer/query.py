"""Builds and runs the streaming query: the only file of the trainer that talks to Spark.

The store is the only truth about position, so each start uses a fresh checkpoint in a temporary folder. A batch's end is
read from Spark's offset log, never from its rows: transaction markers and aborted records have none.
"""

import json
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa
from py4j.protocol import Py4JError
from pyspark.errors import PySparkException
from pyspark.sql.pandas.types import from_arrow_schema

from stream_trainer import offsets
from stream_trainer.contract import Contract
from stream_trainer.decode import decode, decoded_schema
from stream_trainer.errors import SparkLost, StreamFailed, StreamTrainerError
from stream_trainer.kafka import spark_options
from stream_trainer.learning import Cut
from stream_trainer.offsets import Offsets, Ranges
from stream_trainer.outside import LearnCut, Position
from stream_trainer.settings import Settings

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.streaming.query import StreamingQuery

_COLUMNS = ("topic", "partition", "offset", "timestamp", "value", "headers")
_FETCH = {
    "kafka.max.poll.records": "20000",
    "kafka.max.partition.fetch.bytes": str(16 * 2**20),
    "kafka.fetch.max.bytes": str(64 * 2**20),
    # The last fetch of a range waits this long at the broker for records that are not there yet.
    "kafka.fetch.max.wait.ms": "20",
}
_REAP_SECONDS = 5.0


class ExamplesReader:
    """Reads and decodes the examples topic, as a stream and by exact ranges."""

    def __init__(self, spark: "SparkSession", contract: Contract, topic: str, settings: Settings) -> None:
        self._spark = spark
        self._contract = contract
        self._topic = topic
        self._settings = settings
        self._options = {
            **spark_options(settings.kafka),
            **_FETCH,
            "includeHeaders": "true",
            "failOnDataLoss": "true",
        }

    def read(self, ranges: Ranges) -> pa.Table:
        """The decoded records of exactly these ranges, by a batch read.

        Raises:
            StreamFailed, SparkLost: see `failure`.
        """
        if offsets.size(ranges) == 0:
            return decoded_schema(self._contract).empty_table()

        # By partitions, not by topic: Spark refuses a topic that has got another partition since the ranges were fixed.
        partitions = {topic: sorted(ranges[topic]) for topic in ranges}

        def frame() -> "DataFrame":
            return self._decoded(
                self._spark.read.format("kafka")
                .options(**self._options)
                .option("assign", json.dumps(partitions))
                .option("startingOffsets", to_spark_json(offsets.starts(ranges)))
                .option("endingOffsets", to_spark_json(offsets.ends(ranges)))
                .load()
            )

        return self._collect(frame)

    def stream(self, start: Offsets, position: Position, learn: LearnCut) -> "RunningStream":
        """Start the stream at `start`; each micro-batch calls `learn` with its cut and a function that fetches it.

        Raises:
            StreamFailed, SparkLost: see `failure`.
        """
        checkpoint = tempfile.TemporaryDirectory(prefix="stream-trainer-checkpoint-", ignore_cleanup_errors=True)
        running = RunningStream(checkpoint, self._topic, self._failure)

        def on_batch(batch: "DataFrame", batch_id: int) -> None:
            with running.batch():
                end, planned_at = read_offset_log(Path(checkpoint.name), batch_id)
                ranges = offsets.ranges_between(position(), end)
                # Spark shares the limit out among partitions and rounds each share down.
                partitions = sum(len(ps) for ps in ranges.values())
                limited = offsets.size(ranges) + partitions > self._settings.trainer.max_rows_per_batch
                cut = Cut(ranges=ranges, covered_at=None if limited else planned_at)
                learn(cut, lambda: self._collect(lambda: batch))

        try:
            frame = (
                self._spark.readStream.format("kafka")
                .options(**self._options)
                .option("subscribe", self._topic)
                .option("startingOffsets", to_spark_json(start))
                .option("maxOffsetsPerTrigger", self._settings.trainer.max_rows_per_batch)
                .load()
            )
            running.query = (
                self._decoded(frame.coalesce(1))  # one task: a second costs more than it saves at the size of a batch
                .writeStream.foreachBatch(on_batch)
                .option("checkpointLocation", checkpoint.name)
                .trigger(processingTime=f"{int(self._settings.trainer.trigger_seconds * 1000)} milliseconds")
                .start()
            )
        except Exception as error:
            checkpoint.cleanup()
            raise self._failure(error) from error
        return running

    def _decoded(self, frame: "DataFrame") -> "DataFrame":
        contract = self._contract

        def decode_all(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in batches:
                yield decode(contract, batch)

        columns = [name for name in _COLUMNS if name in frame.columns]
        return frame.select(*columns).mapInArrow(decode_all, from_arrow_schema(decoded_schema(contract)))

    def _collect(self, frame: "Callable[[], DataFrame]") -> pa.Table:
        try:
            table = frame().toArrow()
        except Exception as error:  # Spark's own, py4j's, a socket's, or Arrow's about a stream that was cut off
            raise self._failure(error) from error
        return table.cast(decoded_schema(self._contract))

    def _failure(self, error: BaseException) -> StreamTrainerError:
        gateway = self._spark.sparkContext._gateway  # noqa: SLF001 - pyspark has no public way
        return failure(self._topic, error, getattr(gateway, "proc", None))


def failure(what: str, error: BaseException, jvm: "subprocess.Popen[bytes] | None") -> StreamTrainerError:
    """What an error that came out of Spark means for the trainer.

    `SparkLost` when the JVM that this process started has ended; `StreamFailed` when only a query or a job has.
    """
    if jvm is not None:
        from_java = isinstance(error, PySparkException) or getattr(error, "java_exception", None) is not None
        with suppress(subprocess.TimeoutExpired):  # its sockets close a moment before it can be waited for
            code = jvm.wait(0.0 if from_java else _REAP_SECONDS)
            how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            return SparkLost(
                f"Spark's JVM (process {jvm.pid}) {how} while {what} was read: no version is harmed, "
                "start again and learning goes on from the newest one"
            )
    return StreamFailed(f"the stream of {what} failed: {_reason(error)}")


def _reason(error: BaseException) -> str:
    """The first line of an error; of Java's own, not of the call that brought it."""
    try:
        lines = str(getattr(error, "java_exception", None) or error).strip().splitlines()
    except Exception:  # noqa: BLE001 - py4j asks the JVM for the text, which may be gone
        lines = []
    return lines[0].rstrip(": ") if lines else type(error).__name__


class _Stopped(Exception):
    """A micro-batch came after the stream was told to stop; it changes nothing."""


class Checkpoint(Protocol):
    """A query's checkpoint as its end sees it."""

    def cleanup(self) -> None:
        """The query has ended."""
        ...


class RunningStream:
    """A started query that can be stopped between two micro-batches, never in the middle of one."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        what: str,
        failed: Callable[[BaseException], StreamTrainerError] | None = None,
    ) -> None:
        self._what = what
        self._failed = failed or partial(failure, what, jvm=None)
        self.query: StreamingQuery | None = None
        self._checkpoint = checkpoint
        self._failure: BaseException | None = None
        self._busy = threading.Lock()
        self._stopping = False

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Held while a micro-batch runs; what it raises is kept, because Spark only passes on a text."""
        with self._busy:
            if self._stopping:
                raise _Stopped
            try:
                yield
            except BaseException as error:
                self._failure = error
                raise

    @contextmanager
    def between(self) -> Iterator[None]:
        """No micro-batch runs inside the block."""
        with self._busy:
            yield

    def check(self) -> None:
        """Nothing while the query runs: it ends by itself only by failing.

        Raises:
            StreamFailed: Spark could not go on; a new stream from the newest version may.
            SparkLost: its JVM has ended.
            Exception: what the micro-batch itself raised.
        """
        try:
            if self.query is None or self.query.isActive:
                return
            ended = self._failure or self.query.exception()
        except Exception as error:
            raise self._failed(error) from error
        if ended is None:
            raise StreamFailed(f"the stream of {self._what} failed: it ended by itself")
        if isinstance(ended, (PySparkException, Py4JError)):
            raise self._failed(ended) from ended
        raise ended

    def stop(self) -> None:
        """Let a running micro-batch finish, start no other, and end the query.

        The lock is not held while Spark stops: its thread may be waiting for a micro-batch that waits for the lock.
        """
        with self._busy:
            self._stopping = True
        if self.query is not None:
            with suppress(Exception):  # a query that has failed already has nothing left to stop
                self.query.stop()
        self._checkpoint.cleanup()


def read_offset_log(checkpoint: Path, batch_id: int) -> tuple[Offsets, datetime]:
    """The end vector of a planned micro-batch, and when it was planned.

    The entry has a version line, a metadata line and one line a source.

    Raises:
        StreamFailed: the entry is gone or torn; a new stream begins with a checkpoint of its own.
    """
    try:
        _, metadata, source = (checkpoint / "offsets" / str(batch_id)).read_text().splitlines()[:3]
        planned = datetime.fromtimestamp(json.loads(metadata)["batchTimestampMs"] / 1000, UTC)
        return from_spark_json(source), planned
    except (OSError, ValueError, LookupError) as error:
        raise StreamFailed(f"the offset log in {checkpoint} was damaged: {error}") from error


def to_spark_json(vector: Offsets) -> str:
    """A vector as Spark's `startingOffsets` and `endingOffsets` want it."""
    return json.dumps({topic: {str(p): o for p, o in ps.items()} for topic, ps in vector.items()})


def from_spark_json(text: str) -> Offsets:
    """The inverse of `to_spark_json`."""
    parsed: dict[str, dict[str, Any]] = json.loads(text)
    return {topic: {int(p): int(o) for p, o in ps.items()} for topic, ps in parsed.items()}
