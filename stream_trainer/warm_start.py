"""History in files, learned before the log: version 1 is then a function of the files, as later ones are of the log.

A file's rows are blocks of 1,000 in its own order, each decoded, tested, learned and judged as a micro-batch is. The
manifest names each file's digest, so that a replay finds out whether it has the same ones. Nothing here reads Kafka.
"""

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from stream_trainer import learning
from stream_trainer.contract import BinaryLabel, Categorical, ClassLabel, Contract, Vector
from stream_trainer.decode import ARROW_CONTENT_TYPE, decode
from stream_trainer.errors import UsageError
from stream_trainer.learning import Cut
from stream_trainer.lineage import Lineage
from stream_trainer.pipeline import Pipeline
from stream_trainer.schema import TIMESTAMP
from stream_trainer.store.manifest import HistoryFile

ROWS = 1_000
_PARQUET, _ARROW = (".parquet",), (".arrow", ".feather")
# No event time of a file is in the future of this: what was learned must not depend on when.
_APPENDED = datetime(9999, 1, 1, tzinfo=UTC)
Fits = Callable[[pa.DataType], bool]
_HEADERS = pa.list_(pa.struct([("key", pa.string()), ("value", pa.binary())]))


def files_of(paths: Sequence[Path]) -> list[Path]:
    """The files in the order in which they are learned: as given, and those of a folder by name.

    Raises:
        UsageError: something is not there, is no Parquet or Arrow file, or a folder has none.
    """
    found: list[Path] = []
    for path in paths:
        inside = [path]
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix in (*_PARQUET, *_ARROW) and p.is_file())
            if not inside:
                raise UsageError(f"--history {path}: the folder has no file that ends in .parquet, .arrow or .feather")
        elif not path.is_file():
            raise UsageError(f"--history {path}: there is no such file or folder")
        elif path.suffix not in (*_PARQUET, *_ARROW):
            raise UsageError(f"--history {path}: give files that end in .parquet, .arrow or .feather, or their folder")
        found += inside
    return found


def digest(path: Path) -> HistoryFile:
    """A file as a manifest names it.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        return HistoryFile(name=path.name, size=path.stat().st_size, sha256=found)
    except OSError as error:
        raise UsageError(f"--history {path}: it cannot be read: {error}") from error


def matched(wanted: Sequence[HistoryFile], paths: Sequence[Path], version: int) -> list[Path]:
    """The files that a version was learned from, in its order, of those given in any order; found by their digests.

    Raises:
        UsageError: one is missing, or has changed.
    """
    known = [(digest(path), path) for path in paths]
    by_digest = {file.sha256: path for file, path in known}
    by_name = {file.name: file for file, _ in known}
    for file in wanted:
        if file.sha256 in by_digest:
            continue
        what = f"version {version} was learned from {file.name} ({file.size} bytes, SHA-256 {file.sha256[:12]})"
        if file.name in by_name:
            raise UsageError(
                f"{what}, but the file of this name that was given has SHA-256 {by_name[file.name].sha256[:12]}: it was "
                "changed afterwards; give the one that was learned with --history"
            )
        raise UsageError(f"{what}, which is not among the given files: give it with --history")
    return [by_digest[file.sha256] for file in wanted]


def learn(pipeline: Pipeline, lineage: Lineage, paths: Sequence[Path]) -> Lineage:
    """The lineage after all rows of the files; its place in the log stays where it is.

    Raises:
        UsageError: a file lacks a column of the contract, has one of another type, or changed while it was read.
    """
    for path in paths:
        _check(pipeline.contract, path)
    known = [digest(path) for path in paths]
    for number, path in enumerate(paths):
        for at, block in enumerate(_blocks(path)):
            rows = pa.Table.from_batches([decode(pipeline.contract, _record(path.name, number, at, block))])
            lineage = learning.learn(pipeline, lineage, Cut(ranges={}, covered_at=_APPENDED), rows)
    if [digest(path) for path in paths] != known:
        raise UsageError("a file of --history changed while it was read: let nothing write to it, and start again")
    pending = replace(lineage.pending, history=tuple(known), cuts=(), quarantined=(), append_time=None, covered_at=None)
    return replace(lineage, pending=pending)


def _record(name: str, number: int, at: int, block: pa.Table) -> pa.RecordBatch:
    """A block as a record of a log, so that rows of files are checked as those of a log are."""
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, block.schema) as writer:
        writer.write_table(block.combine_chunks())
    columns = {
        "topic": pa.array([name], pa.string()),
        "partition": pa.array([number], pa.int32()),
        "offset": pa.array([at], pa.int64()),
        "timestamp": pa.array([_APPENDED], TIMESTAMP),
        "value": pa.array([sink.getvalue()], pa.binary()),
        "headers": pa.array([[{"key": "content-type", "value": ARROW_CONTENT_TYPE}]], _HEADERS),
    }
    return pa.RecordBatch.from_pydict(columns)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
    try:
        if path.suffix in _PARQUET:
            with pq.ParquetFile(path) as parquet:
                yield parquet.schema_arrow, parquet.iter_batches(batch_size=ROWS)
        else:
            with pa.ipc.open_file(path) as arrow:
                yield arrow.schema, (arrow.get_batch(i) for i in range(arrow.num_record_batches))
    except (pa.ArrowException, OSError) as error:
        wanted = "a Parquet file" if path.suffix in _PARQUET else "an Arrow IPC file"
        raise UsageError(f"--history {path}: it cannot be read as {wanted}: {error}") from error


def _blocks(path: Path) -> Iterator[pa.Table]:
    """The rows in blocks of one size, however the file is cut; the last may be smaller."""
    with _opened(path) as (schema, batches):
        left = schema.empty_table()
        for batch in batches:
            left = pa.concat_tables([left, pa.Table.from_batches([batch])])
            while left.num_rows >= ROWS:
                yield left.slice(0, ROWS)
                left = left.slice(ROWS)
        if left.num_rows:
            yield left


def _check(contract: Contract, path: Path) -> None:
    """A column that is missing or of a wrong kind is one mistake, not one of each row."""
    with _opened(path) as (schema, _):
        for name, needed, fits, kind in _wanted(contract):
            if name not in schema.names:
                if needed:
                    raise UsageError(
                        f"--history {path}: column {name!r} is missing; the contract wants {kind}: add the column, or "
                        "rename the one that holds it"
                    )
                continue
            found = schema.field(name).type
            found = found.value_type if pa.types.is_dictionary(found) else found
            if not fits(found):
                raise UsageError(
                    f"--history {path}: column {name!r} is {found}; the contract wants {kind}: cast the column, and write "
                    "the file again"
                )


def _wanted(contract: Contract) -> Iterator[tuple[str, bool, Fits, str]]:
    for feature in contract.features:
        needed = not getattr(feature, "optional", False)
        match feature:
            case Categorical():
                yield feature.name, needed, _is_text, "a text"
            case Vector(size=size):
                yield feature.name, needed, _is_list, f"a list of {size} numbers"
            case _:
                yield feature.name, needed, _is_number, "a number"
    for name in contract.extra_segments:
        yield name, True, _is_text, "a text"
    yield contract.key, True, lambda kind: _is_text(kind) or pa.types.is_integer(kind), "a text or an integer"
    yield contract.event_time, True, _is_time, "an instant with a time zone, or epoch seconds"
    match contract.label:
        case BinaryLabel():
            yield contract.label.name, True, lambda k: pa.types.is_boolean(k) or pa.types.is_integer(k), "a truth value"
        case ClassLabel():
            yield contract.label.name, True, _is_text, "a text"
        case _:
            yield contract.label.name, True, _is_number, "a number"


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _is_list(kind: pa.DataType) -> bool:
    nested = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return bool(nested and _is_number(kind.value_type))


def _is_time(kind: pa.DataType) -> bool:
    return bool((pa.types.is_timestamp(kind) and kind.tz is not None) or _is_number(kind) or _is_text(kind))
