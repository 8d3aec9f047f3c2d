"""Kafka records to a small summary: what each window of event time holds, and how far time has come.

This is what runs in Spark's Python workers, so it imports neither torch nor Spark. It is total: a bad record is
skipped and counted by reason, it never fails a batch. Summaries add up, in any order and any grouping.
"""

import zlib
from bisect import insort
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import reduce
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from monitors import asked, content, sketches, skipped
from monitors.asked import EARLIEST, Asked, Kafka, Skip
from monitors.content import KEPT_VERSIONS, OLDER, PARTS, PRIORITY, Content, lowest
from monitors.missing import both_missing, watched_columns
from monitors.performance import counting
from monitors.performance.tally import Tally
from monitors.skipped import SUPPORT, Skipped
from stream_trainer.contract import Categorical, Contract, Numeric, Vector
from stream_trainer.decode import decode
from stream_trainer.offsets import Ranges
from stream_trainer.reference import LABEL, Coded, Reference, coded, pack, table_to_bytes
from stream_trainer.reference.counting import Cells

PAYLOAD = pa.schema([pa.field("payload", pa.binary())])
MAX_WINDOWS = 500
_AT_ONCE = 2**21  # bytes of records: what is held in memory at a time, a multiple of it once decoded
_OF_ONE = 256  # bytes that a record counts beside its value
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """What the records of one topic hold.

    Attributes:
        windows: contents by the number of the window: its start divided by its length, since 1970. The newest
            `MAX_WINDOWS` only: event times that are all over the calendar fill no memory.
        highest: per partition the `SUPPORT` highest event times, ascending, in microseconds; none is later than
            the moment at which Kafka got its record.
        late: rows of windows that were closed before, or are too many.
        appended: when Kafka got the newest record that could be read.
        read: the offset after the last record of each partition, whether it could be read or not; of predictions.
        skipped: what could not be read, by the number of its window; of predictions.
    """

    windows: dict[int, Content] = {}
    highest: dict[str, list[int]] = {}
    late: int = 0
    appended: datetime | None = None
    read: dict[int, int] = {}
    skipped: dict[int, Skipped] = {}


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What some records hold together; `skipped` counts by reason those that could not be read."""

    predictions: Part = Part()
    examples: Part = Part()
    skipped: dict[str, int] = {}

    @property
    def rows(self) -> int:
        """Predictions that were counted, late ones included."""
        return self.predictions.late + sum(window.rows for window in self.predictions.windows.values())

    @property
    def end(self) -> datetime | None:
        """The latest event time of a prediction that was counted in a window."""
        return max((w.last for w in self.predictions.windows.values() if w.last is not None), default=None)


class Before(msgspec.Struct, frozen=True, kw_only=True):
    """Where the windows of one topic stood when a micro-batch began.

    Attributes:
        closed: windows of a lower number are closed.
        highest: as in `Part`.
    """

    closed: int | None = None
    highest: dict[str, list[int]] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Summarise:
    """Arrow batches of Kafka records to one `payload` row: an encoded `Summary` of them all.

    Attributes:
        topic: of the predictions; records of any other topic are examples.
        window: how long one is.
        reference: the bins, and its digest; None: rows are only told apart by window and version.
    """

    contract: Contract
    topic: str
    window: timedelta
    reference: Reference | None = None
    digest: str | None = None
    sample_rows: int = 2_000
    predictions: Before = field(default_factory=Before)
    examples: Before = field(default_factory=Before)

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """For `mapInArrow`; the records of a partition come in their order."""
        whole, highest, reached = Summary(), dict(self.examples.highest), dict(self.predictions.highest)
        for batch in batches:
            for piece in _pieces(batch):
                part = self.of(piece, highest, reached)
                highest |= part.examples.highest
                reached = further(reached, part.predictions.highest)
                whole = add(whole, part, sample_rows=self.sample_rows)
        yield pa.record_batch([pa.array([msgspec.msgpack.encode(whole)], pa.binary())], schema=PAYLOAD)

    def of(
        self,
        batch: pa.RecordBatch,
        highest: Mapping[str, list[int]] | None = None,
        reached: Mapping[str, list[int]] | None = None,
    ) -> Summary:
        """Summarise some records.

        Args:
            batch: of both topics.
            highest: how far the examples of each partition had come, when it is known better.
            reached: the same of the predictions.
        """
        skips: list[Skip] = []
        ours = pc.equal(batch.column("topic"), self.topic)
        before = self.predictions.highest if reached is None else reached
        predictions = self._predictions(_kafka(batch.filter(ours)), skips, before)
        known = self.examples.highest if highest is None else highest
        examples = self._examples(batch.filter(pc.invert(ours)), known)
        reasons = Counter(skip.reason for skip in skips)
        return Summary(predictions=predictions, examples=examples, skipped=dict(sorted(reasons.items())))

    def _predictions(self, records: Sequence[Kafka], skips: list[Skip], reached: Mapping[str, list[int]]) -> Part:
        rows = list(asked.asked(self.contract, records, skips))
        length = self.window // timedelta(microseconds=1)
        at = np.array([row.at for row in rows], np.int64)
        late = at // length < (self.predictions.closed if self.predictions.closed is not None else -(2**62))
        numbers = np.unique(at[~late] // length)[-MAX_WINDOWS:]
        late |= at // length < (numbers[0] if len(numbers) else 0)
        kept = [row for row, gone in zip(rows, late.tolist(), strict=True) if not gone]
        highest: dict[str, list[int]] = {}
        for row in rows:
            _push(highest.setdefault(skipped.name_of(row.where), []), row.at)
        return Part(
            windows=self._counted(kept, at[~late] // length) if kept else {},
            highest=dict(sorted(highest.items())),
            late=int(late.sum()),
            appended=max((row.where.appended.astimezone(UTC) for row in rows), default=None),
            read=_ends(records),
            skipped=skipped.by_window(skips, rows, reached, length=length, closed=self.predictions.closed),
        )

    def _counted(self, rows: Sequence[Asked], numbers: Cells) -> dict[int, Content]:
        columns = asked.columns(self.contract, rows)
        found, groups = np.unique(numbers, return_inverse=True)
        bins = None if self.reference is None else coded(self.contract, self.reference, columns)
        counts = None if bins is None else bins.count(groups, len(found))
        versions = np.array([row.prediction.model_version or OLDER for row in rows], np.int64)
        length = self.window // timedelta(microseconds=1)
        parts = np.array([row.at for row in rows], np.int64) % length * PARTS // length
        contents = {}
        order = np.argsort(groups, kind="stable")
        starts = np.searchsorted(groups[order], np.arange(len(found) + 1))
        for i, number in enumerate(found.tolist()):
            places = order[starts[i] : starts[i + 1]]
            here = [rows[place] for place in places.tolist()]
            times = [row.at for row in here]
            mine = columns if len(found) == 1 else {name: column.take(places) for name, column in columns.items()}
            contents[number] = Content(
                rows=len(here),
                first=_instant(min(times)),
                last=_instant(max(times)),
                versions=_rows_by_version(versions[places]),
                parts=_parts_by_version(versions[places], parts[places]),
                offsets=_offsets(row.where for row in here),
                digest=self.digest,
                counts=b"" if counts is None else pack(counts[i]),
                missing=b"" if self.reference is None else both_missing(watched_columns(self.reference), mine),
                by_version={} if bins is None else _counts_by_version(bins, versions, places),
                sample=_sample(self.contract, here, mine, self.sample_rows),
                sketches=_sketches(self.contract, mine),
            )
        return contents

    def _examples(self, batch: pa.RecordBatch, known: Mapping[str, list[int]]) -> Part:
        """An example belongs to the window that time had reached, in its partition, when its label came."""
        if not batch.num_rows:
            return Part()
        decoded = decode(self.contract, batch)
        good = decoded.filter(pc.is_null(decoded.column("_reason")))
        highest = {partition: list(times) for partition, times in known.items()}
        numbers = self._reached(good, highest)
        contents = {}
        for number in np.unique(numbers).tolist():
            rows = good.filter(pa.array(numbers == number))
            times = rows.column(self.contract.event_time).cast(pa.int64()).to_pylist()
            contents[number] = Content(
                rows=rows.num_rows,
                first=_instant(min(times)),
                last=_instant(max(times)),
                versions=_rows_by_version(np.array(rows.column("_model_version").fill_null(OLDER), np.int64)),
                offsets=_example_offsets(rows),
                digest=self.digest,
                counts=b"" if self.reference is None else pack(self._labels(self.reference, rows)),
                tally=self._tally(rows),
            )
        appended = pc.max(good.column("_append_time")).as_py()
        return Part(windows=contents, highest=highest, appended=appended and appended.astimezone(UTC))

    def _reached(self, rows: pa.RecordBatch, highest: dict[str, list[int]]) -> Cells:
        """The window of each row; rows that are behind what is closed count in the oldest window that is not."""
        length = self.window // timedelta(microseconds=1)
        names = [
            f"{t}/{p}" for t, p in zip(*(rows.column(n).to_pylist() for n in ("_topic", "_partition")), strict=True)
        ]
        events = rows.column(self.contract.event_time).cast(pa.int64()).to_pylist()
        appended = rows.column("_append_time").cast(pa.int64()).to_pylist()
        order = sorted(range(rows.num_rows), key=rows.column("_offset").to_pylist().__getitem__)
        found = np.zeros(rows.num_rows, np.int64)
        for i in order:
            times = highest.setdefault(names[i], [])
            _push(times, max(min(events[i], appended[i]), EARLIEST))
            found[i] = times[0] // length
        return found if self.examples.closed is None else np.maximum(found, self.examples.closed)

    def _labels(self, reference: Reference, rows: pa.RecordBatch) -> Cells:
        names = [self.contract.label.name, *self.contract.segments]
        columns = {name: rows.column(name) for name in names}
        columns[LABEL] = columns.pop(self.contract.label.name)
        cells: Cells = coded(self.contract, reference, columns, [LABEL]).count()[0]
        return cells

    def _tally(self, rows: pa.RecordBatch) -> Tally:
        segments = () if self.reference is None else self.reference.segments
        kept = {segment.name: frozenset(segment.values) for segment in segments}
        return counting.tally(self.contract, counting.joined(self.contract, rows), kept)


def add(first: Summary, second: Summary, *, sample_rows: int) -> Summary:
    """Both together."""
    return Summary(
        predictions=add_parts(first.predictions, second.predictions, sample_rows=sample_rows),
        examples=add_parts(first.examples, second.examples, sample_rows=sample_rows),
        skipped=dict(sorted((Counter(first.skipped) + Counter(second.skipped)).items())),
    )


def total(summaries: Sequence[Summary], *, sample_rows: int) -> Summary:
    """All together."""
    return reduce(lambda a, b: add(a, b, sample_rows=sample_rows), summaries, Summary())


def add_parts(first: Part, second: Part, *, sample_rows: int) -> Part:
    """Both together."""
    appended = [at for at in (first.appended, second.appended) if at is not None]
    windows = add_windows(first.windows, second.windows, sample_rows=sample_rows)
    gone = [windows.pop(number) for number in sorted(windows)[:-MAX_WINDOWS]]
    return Part(
        windows=windows,
        highest=further(first.highest, second.highest),
        late=first.late + second.late + sum(window.rows for window in gone),
        appended=max(appended, default=None),
        read={p: max(first.read.get(p, 0), second.read.get(p, 0)) for p in sorted({*first.read, *second.read})},
        skipped=skipped.add_by_window(first.skipped, second.skipped),
    )


def add_windows(first: Mapping[int, Content], second: Mapping[int, Content], *, sample_rows: int) -> dict[int, Content]:
    """The contents of each window, from both."""
    nothing = Content()
    return {
        number: content.add(first.get(number, nothing), second.get(number, nothing), sample_rows=sample_rows)
        for number in sorted({*first, *second})
    }


def further(first: Mapping[str, list[int]], second: Mapping[str, list[int]]) -> dict[str, list[int]]:
    """The highest event times of each partition, from both."""
    return {
        name: sorted([*first.get(name, ()), *second.get(name, ())])[-SUPPORT:] for name in sorted({*first, *second})
    }


def _kafka(batch: pa.RecordBatch) -> list[Kafka]:
    names = ("topic", "partition", "offset", "timestamp", "value")
    return [Kafka(*row) for row in zip(*(batch.column(name).to_pylist() for name in names), strict=True)]


def _ends(records: Sequence[Kafka]) -> dict[int, int]:
    found: dict[int, int] = {}
    for where in records:
        found[where.partition] = max(found.get(where.partition, 0), where.offset + 1)
    return dict(sorted(found.items()))


def _push(highest: list[int], at: int) -> None:
    insort(highest, at)
    del highest[:-SUPPORT]


def _instant(at: int) -> datetime:
    return _EPOCH + timedelta(microseconds=at)


def _pieces(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Some records at a time, by their bytes: one may be a block of many rows."""
    sizes = pc.fill_null(pc.binary_length(batch.column("value")), 0).to_numpy(zero_copy_only=False) + _OF_ONE
    before = np.cumsum(sizes, dtype=np.int64) - sizes
    starts = np.flatnonzero(np.diff(before // _AT_ONCE, prepend=-1)).tolist()
    for start, end in pairwise([*starts, batch.num_rows]):
        yield batch.slice(start, end - start)


def _offsets(records: Iterator[Kafka]) -> Ranges:
    found: Ranges = {}
    for where in records:
        topic = found.setdefault(where.topic, {})
        first, end = topic.get(where.partition, (where.offset, where.offset + 1))
        topic[where.partition] = min(first, where.offset), max(end, where.offset + 1)
    return {topic: dict(sorted(partitions.items())) for topic, partitions in sorted(found.items())}


def _example_offsets(rows: pa.RecordBatch) -> Ranges:
    names = ("_topic", "_partition", "_offset", "_append_time")
    records = zip(*(rows.column(name).to_pylist() for name in names), strict=True)
    return _offsets(Kafka(topic, partition, offset, at, None) for topic, partition, offset, at in records)


def _rows_by_version(versions: Cells) -> dict[int, int]:
    found, rows = np.unique(versions[versions != OLDER], return_counts=True)
    return content.newest(dict(zip(found.tolist(), rows.tolist(), strict=True)), sum)


def _parts_by_version(versions: Cells, parts: Cells) -> dict[int, list[int]]:
    known, at = np.unique(versions, return_inverse=True)
    rows = np.bincount(at * PARTS + parts, minlength=len(known) * PARTS).reshape(-1, PARTS).tolist()
    each = dict(zip(known.tolist(), rows, strict=True))
    return content.newest({v: each[v] for v in each if v != OLDER}, content.every)


def _counts_by_version(bins: Coded, all_versions: Cells, places: Cells) -> dict[int, bytes]:
    """Of the rows at these places. Versions that are not among the highest count together; `OLDER` is none at all here."""
    versions = np.full(len(all_versions), OLDER, np.int64)
    versions[places] = all_versions[places]
    known = np.unique(versions[versions != OLDER])
    kept = known[-KEPT_VERSIONS:]
    groups = np.searchsorted(kept, versions)
    groups = np.where(np.isin(versions, kept), groups, len(kept))
    groups[versions == OLDER] = -1
    counts = bins.count_coarse(groups, len(kept) + 1)
    found = {OLDER: pack(counts[-1])} if len(known) > len(kept) else {}
    return found | {version: pack(counts[i]) for i, version in enumerate(kept.tolist())}


def _sample(contract: Contract, rows: Sequence[Asked], columns: Mapping[str, pa.Array], most: int) -> bytes | None:
    plain = {f.name: columns[f.name] for f in contract.features if isinstance(f, Numeric | Categorical)}
    priority = pa.array([zlib.crc32(row.prediction.prediction_id.encode()) for row in rows], pa.int64())
    return table_to_bytes(lowest(pa.table({**plain, PRIORITY: priority}), most).combine_chunks())


def _sketches(contract: Contract, columns: Mapping[str, pa.Array]) -> dict[str, bytes]:
    plain = [f.name for f in contract.features if not isinstance(f, Vector)]
    return {name: sketches.sketch(_different(columns[name])) for name in sorted(plain)}


def _different(column: pa.Array) -> list[Any]:
    found: list[Any] = column.unique().drop_null().to_pylist()
    return found
