"""`lineage`: from a prediction to its version, and from a version to the offsets behind it."""

import base64
import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from stream_trainer import history
from stream_trainer.commands import connecting
from stream_trainer.commands.output import AsJson, PipelineAddress, print_fields, print_json, print_table
from stream_trainer.errors import InputLost, UsageError
from stream_trainer.history import Stretch, Trace
from stream_trainer.loading import load_pipeline
from stream_trainer.settings import Settings
from stream_trainer.store import Version, open_store

if TYPE_CHECKING:
    from stream_trainer.pipeline import Pipeline
    from stream_trainer.predictions import Prediction

_SHOWN_VALUE = 1_000


def lineage(
    pipeline: PipelineAddress,
    prediction_id: Annotated[
        str | None, typer.Argument(metavar="PREDICTION_ID", help="As POST /predict returned it.")
    ] = None,
    number: Annotated[
        int | None, typer.Option("--version", metavar="VERSION", help="A version instead of a prediction.", min=1)
    ] = None,
    records: Annotated[
        bool, typer.Option("--records", help="Show the records of the version's last step as they are in the log.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show what is behind a prediction: its version, that version's parents, and the offsets they learned from."""
    if (prediction_id is None) == (number is None):
        raise UsageError("name either a prediction's id or, with --version, a version")
    found = load_pipeline(pipeline)
    settings = Settings() if prediction_id is None and not records else connecting.connect(Settings())
    prediction = _predicted(found, settings, prediction_id) if prediction_id is not None else None
    asked = number if prediction is None else prediction.model_version
    chain = history.ancestors(open_store(settings, found.name), asked) if asked is not None else []
    traced = history.trace(chain) if chain else None
    if not as_json:
        _print(prediction, traced)
    shown = list(_records(found, settings, chain[-1])) if records and chain else None
    if as_json:
        extra = {} if shown is None else {"records": shown}
        print_json({"prediction": prediction, "version": traced, **extra})
    elif shown is not None:
        _print_records(shown)


def _predicted(pipeline: "Pipeline", settings: Settings, prediction_id: str) -> "Prediction":
    from stream_trainer.predictions import find  # noqa: PLC0415 - who asks for a version needs no Kafka client

    return find(settings.kafka, pipeline.topics.predictions, prediction_id)


def _print(prediction: "Prediction | None", traced: Trace | None) -> None:
    if prediction is not None:
        by = f"version {prediction.model_version} ({prediction.role})" if prediction.model_version else "no version"
        where = f"{prediction.topic}[{prediction.partition}]@{prediction.offset}"
        values = ", ".join(f"{name}={_shown(value)}" for name, value in prediction.features.items())
        rows = [
            ("prediction", prediction.prediction_id),
            ("asked at", _instant(prediction.requested_at)),
            ("answered by", by),
            ("output", _shown(prediction.output)),
            ("features", values),
            ("segments", ", ".join(f"{name}={_shown(value)}" for name, value in prediction.segments.items())),
            ("key", _shown(prediction.key) if prediction.key else None),
            ("event time", _instant(prediction.event_time) if prediction.event_time else None),
            ("in the log", where),
        ]
        print_fields([row for row in rows if row[1]])
        if prediction.model_version is None:
            typer.echo(
                "\nNo version was there yet when this was asked, so the request was answered with 503 and no output; it "
                "was logged so that a label can still make an example of it. Nothing that was learned is behind it."
            )
    if traced is not None:
        if prediction is not None:
            typer.echo("")
        _print_trace(traced)


def _print_trace(traced: Trace) -> None:
    rows = traced.rows
    counted = {"rejected": rows.rejected, "skipped": rows.skipped, "quarantined": rows.quarantined}
    also = "".join(f", {count:,} {name}" for name, count in counted.items() if count)
    print_fields(
        [
            ("version", f"{traced.version} of {traced.pipeline}{'' if traced.passed else ' (failed a gate)'}"),
            ("committed", _instant(traced.created_at)),
            ("trained through", _instant(traced.trained_through) if traced.trained_through else "no event time yet"),
            ("parents", _compact(traced.parents) or "none: it began with nothing"),
            ("last step", f"{rows.seen:,} rows seen: {rows.trained:,} trained{also}"),
            ("since the start", f"{traced.trained:,} rows trained, in {len(traced.parents) + 1:,} versions"),
            ("manifest", f"SHA-256 {traced.manifest_sha256}"),
            ("contract", f"SHA-256 {traced.contract}"),
        ],
    )
    if traced.history:
        typer.echo("\nFiles that it began with, in the order in which they were learned (`train --history`)")
        print_table(("file", "bytes", "SHA-256"), [(f.name, f"{f.size:,}", f.sha256) for f in traced.history])
    typer.echo("\nOffsets, both ends included; one may hold no record (a transaction marker, an aborted record)")
    print_table(("partition", "", "last step", "since the start"), list(_offset_rows(traced)))


def _offset_rows(traced: Trace) -> Iterator[tuple[str, ...]]:
    last, whole = traced.last_step, traced.since_start
    several = len({(s.topic, s.topic_id) for s in (*whole.learned, *whole.quarantined, *whole.lost)}) > 1
    for what in ("learned", "quarantined", "lost"):
        now = {where: _offsets(part) for where, part in _by_partition(getattr(last, what))}
        for where, part in _by_partition(getattr(whole, what)):
            topic, topic_id, partition = where
            name = f"{topic}[{partition}]{f' of {topic_id[:8]}' if several else ''}"
            yield name, what, now.get(where, "-"), _offsets(part)


def _by_partition(stretches: Sequence[Stretch]) -> Iterator[tuple[tuple[str, str, int], list[Stretch]]]:
    for where, part in groupby(stretches, key=lambda s: (s.topic, s.topic_id, s.partition)):
        yield where, list(part)


def _offsets(stretches: Sequence[Stretch]) -> str:
    return ", ".join(_span(s.start, None if s.next is None else s.next - 1) for s in stretches)


def _span(first: int, last: int | None) -> str:
    if last is None:
        return f"{first} to an unknown end"
    return f"{first}" if first == last else f"{first} to {last}"


def _compact(numbers: Sequence[int]) -> str:
    """Versions, newest first, with runs written as their ends."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][1] - 1 == number:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(f"{high}" if high == low else f"{high} to {low}" for high, low in runs)


def _instant(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}.{at.microsecond // 1000:03d} UTC"


def _shown(value: Any) -> str:
    """As JSON, but a text without its quotes when the terminal can take it as it is."""
    return value if isinstance(value, str) and value.isprintable() else json.dumps(value)


def _records(pipeline: "Pipeline", settings: Settings, version: Version) -> Iterator[dict[str, Any]]:
    """The records of a version's cuts: what is in the log, and what became of it."""
    from stream_trainer.decode import decode  # noqa: PLC0415
    from stream_trainer.log_reader import LogReader  # noqa: PLC0415

    manifest = version.manifest
    with LogReader(pipeline.contract, settings.kafka) as reader:
        for cut, quarantined in history.judged_cuts(manifest):
            try:
                for batch in reader.records(cut, manifest.topic_ids):
                    decoded = decode(pipeline.contract, batch).select(["_partition", "_offset", "_row", "_reason"])
                    rows: dict[tuple[int, int], list[dict[str, Any]]] = {}
                    for row in decoded.to_pylist():
                        rows.setdefault((row["_partition"], row["_offset"]), []).append(row)
                    for record in batch.to_pylist():
                        yield _record(record, rows.get((record["partition"], record["offset"]), []), quarantined)
            except InputLost as error:
                raise InputLost(f"the records of version {version.number} cannot be shown: {error}") from error


def _record(record: dict[str, Any], rows: list[dict[str, Any]], quarantined: bool) -> dict[str, Any]:
    value = record["value"]
    try:
        shown: dict[str, Any] = {"json": msgspec.json.decode(value or b""), "base64": None}
    except (msgspec.MsgspecError, ValueError, RecursionError):
        shown = {"json": None, "base64": None}
    if value is not None and shown["json"] is None:  # the JSON value null looks like no JSON
        shown = {"json": None, "base64": base64.b64encode(value).decode()}
    rejected = [{"row": row["_row"], "reason": row["_reason"]} for row in rows if row["_reason"] is not None]
    return {
        "topic": record["topic"],
        "partition": record["partition"],
        "offset": record["offset"],
        "appended_at": record["timestamp"],
        "rows": len(rows),
        "rejected": rejected,
        "quarantined": quarantined and len(rejected) < len(rows),
        **shown,
    }


def _print_records(records: Sequence[dict[str, Any]]) -> None:
    for topic, part in groupby(records, key=lambda record: str(record["topic"])):
        rows = [
            (
                f"[{record['partition']}]@{record['offset']}",
                f"{record['appended_at']:%Y-%m-%d %H:%M:%S}",
                _fate(record),
                _text(record),
            )
            for record in part
        ]
        typer.echo(f"\nRecords of {topic}, in the order in which they were read")
        print_table(("record", "appended (UTC)", "became", "value"), rows, cut="value")


def _fate(record: dict[str, Any]) -> str:
    rows = record["rows"]
    reasons = [r["reason"] if rows == 1 else f"row {r['row']}: {r['reason']}" for r in record["rejected"]]
    if len(reasons) == rows:
        return "; ".join(reasons)
    kept = "quarantined" if record["quarantined"] else "learned"
    return "; ".join([kept if rows == 1 else f"{rows - len(reasons)} rows {kept}", *reasons])


def _text(record: dict[str, Any]) -> str:
    if record["json"] is not None:
        return json.dumps(record["json"])[:_SHOWN_VALUE]
    if record["base64"] is None:
        return "no value"
    return ascii(base64.b64decode(record["base64"])[:_SHOWN_VALUE].decode(errors="replace"))[1:-1]
