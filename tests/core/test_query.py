import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from py4j.protocol import Py4JError, Py4JNetworkError
from pyspark.errors import PySparkException

from infra.supervisor import FINAL_CODES
from stream_trainer.errors import Retryable, SparkLost, StreamFailed
from stream_trainer.query import RunningStream, _Stopped, failure, from_spark_json, read_offset_log, to_spark_json
from tests.core.test_offsets import VECTORS


@given(VECTORS)
def test_a_vector_survives_the_way_through_sparks_json(vector: dict[str, dict[int, int]]) -> None:
    assert from_spark_json(to_spark_json(vector)) == vector


def test_partitions_are_texts_in_sparks_json() -> None:
    assert json.loads(to_spark_json({"t": {0: -2, 1: 5}})) == {"t": {"0": -2, "1": 5}}


def test_the_end_of_a_micro_batch_is_read_from_the_offset_log(tmp_path: Path) -> None:
    (tmp_path / "offsets").mkdir()
    entry = 'v1\n{"batchWatermarkMs":0,"batchTimestampMs":1767225600500,"conf":{}}\n{"t":{"0":7,"1":0}}'
    (tmp_path / "offsets" / "3").write_text(entry)
    end, planned = read_offset_log(tmp_path, 3)
    assert end == {"t": {0: 7, 1: 0}}
    assert planned == datetime(2026, 1, 1, 0, 0, 0, 500_000, tzinfo=UTC)


@pytest.mark.parametrize(
    "entry", [None, "", "v1\n{}\n{}", 'v1\n{"batchTimestampMs":1}', 'v1\n{"batchTimestampMs":1}\n{"t":{"0"']
)
def test_a_damaged_offset_log_fails_the_stream_and_no_more(tmp_path: Path, entry: str | None) -> None:
    if entry is not None:
        (tmp_path / "offsets").mkdir()
        (tmp_path / "offsets" / "3").write_text(entry)
    with pytest.raises(StreamFailed, match="damaged"):
        read_offset_log(tmp_path, 3)


class EndedQuery:
    """A streaming query that is over."""

    isActive = False  # noqa: N815 - Spark's name

    def exception(self) -> None:
        return None

    def stop(self) -> None:
        raise RuntimeError("it has failed already")


def running(tmp_path: Path) -> RunningStream:
    import tempfile

    return RunningStream(tempfile.TemporaryDirectory(dir=tmp_path), "t.examples")


def test_what_a_micro_batch_raised_is_what_the_stream_failed_with(tmp_path: Path) -> None:
    stream = running(tmp_path)
    with pytest.raises(KeyError), stream.batch():
        raise KeyError("the cause")
    stream.query = EndedQuery()  # type: ignore[assignment]
    with pytest.raises(KeyError, match="the cause"):
        stream.check()
    stream.stop()


def test_no_micro_batch_begins_after_the_stop(tmp_path: Path) -> None:
    stream = running(tmp_path)
    stream.stop()
    with pytest.raises(_Stopped), stream.batch():
        pytest.fail("it ran")


def test_a_query_that_ends_by_itself_is_an_error_even_without_a_cause(tmp_path: Path) -> None:
    stream = running(tmp_path)
    stream.check()
    stream.query = EndedQuery()  # type: ignore[assignment]
    with pytest.raises(StreamFailed, match=r"t\.examples failed: it ended by itself"):
        stream.check()
    stream.stop()


def test_an_error_of_spark_may_pass_and_is_said_in_one_line(tmp_path: Path) -> None:
    stream = running(tmp_path)
    with pytest.raises(PySparkException), stream.batch():
        raise PySparkException("broker gone\n\tat org.apache.spark.Executor")
    stream.query = EndedQuery()  # type: ignore[assignment]
    with pytest.raises(Retryable, match=r"t\.examples failed: broker gone$"):
        stream.check()
    stream.stop()


class LostQuery:
    """A streaming query of a JVM that has ended."""

    @property
    def isActive(self) -> bool:  # noqa: N802 - Spark's name
        raise ConnectionRefusedError(111, "Connection refused")

    def stop(self) -> None:
        raise ConnectionRefusedError(111, "Connection refused")


def test_a_jvm_that_ended_is_said_in_one_line_and_starting_again_helps(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]) as jvm:
        stream = running(tmp_path)
        stream._failed = lambda error: failure("t.examples", error, jvm)
        stream.query = LostQuery()  # type: ignore[assignment]
        with pytest.raises(SparkLost, match=r"JVM \(process \d+\) was killed by signal 9 .*start again") as caught:
            stream.check()
        stream.stop()
    assert caught.value.exit_code == 7
    assert caught.value.exit_code not in FINAL_CODES


@pytest.mark.parametrize("error", [Py4JError("calling o1.getResult"), Py4JNetworkError("gone"), EOFError("gone")])
def test_a_cut_connection_is_the_streams_failure_when_no_jvm_of_ours_ended(error: Exception) -> None:
    assert str(failure("t.examples", error, None)) == f"the stream of t.examples failed: {error}"


def test_an_error_whose_text_went_with_the_jvm_still_has_a_name() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise ConnectionRefusedError

    assert str(failure("t.examples", Mute(), None)) == "the stream of t.examples failed: Mute"
