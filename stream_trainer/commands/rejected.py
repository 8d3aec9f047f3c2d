"""`rejected list|redrive`: look at what was rejected, mend it and send it again."""

import base64
import hashlib
import sys
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pyarrow as pa
import typer

from stream_trainer import kafka, topic_reading
from stream_trainer.commands import connecting
from stream_trainer.commands.output import AsJson, PipelineAddress, print_json, print_table
from stream_trainer.contract import Contract
from stream_trainer.decode import KEPT_BYTES, decode
from stream_trainer.errors import InputLost, UsageError
from stream_trainer.loading import load_pipeline
from stream_trainer.schema import TIMESTAMP
from stream_trainer.settings import KafkaSettings, Settings

app = typer.Typer(no_args_is_help=True, help="Look at rejected records and send mended ones again.")

Reason = Annotated[str | None, typer.Option(help="Only this reason's code, such as missing_field.")]


def _rejected(settings: Settings, topic: str, reason: str | None) -> dict[str, dict[str, Any]]:
    """The newest record of each key, oldest first."""
    newest = {m.key: m.value for m in topic_reading.read_all(settings.kafka, topic)}
    there = {key: value for key, value in newest.items() if value is not None}
    return {key: value for key, value in there.items() if reason is None or _code(value) == reason}


def _code(value: dict[str, Any]) -> str:
    return str(value["reason"]).split(":", 1)[0]


@app.command(
    "list", epilog="Example: stream-trainer rejected list examples.flights.pipeline:pipeline --reason missing_field"
)
def list_rejected(
    pipeline: PipelineAddress,
    reason: Reason = None,
    last: Annotated[int, typer.Option(help="Show the newest so many of each reason.", min=1)] = 5,
    as_json: AsJson = False,
) -> None:
    """Show rejected records by reason, each counted once; with --json all of them, one object a record."""
    settings = connecting.connect(Settings())
    found = _rejected(settings, load_pipeline(pipeline).topics.rejected, reason)
    if as_json:
        print_json(list(found.values()))
        return
    counts = Counter(_code(value) for value in found.values())
    if not counts:
        typer.echo("nothing was rejected")
        return
    rows = []
    for code, count in counts.most_common():
        for i, value in enumerate([v for v in found.values() if _code(v) == code][-last:]):
            where = f"{value['topic']}[{value['partition']}]@{value['offset']}.{value['row']}"
            detail = str(value["reason"]).split(":", 1)[-1].strip()
            text = base64.b64decode(value["bytes"])[:80].decode(errors="replace")
            rows.append((code if i == 0 else "", count if i == 0 else "", where, detail, ascii(text)[1:-1]))
    print_table(("reason", "records", "where", "detail", "begins with"), rows)


@app.command("redrive", epilog="Example: stream-trainer rejected redrive PIPELINE --mend ./mend.py --dry-run")
def redrive(
    pipeline: PipelineAddress,
    reason: Reason = None,
    mend: Annotated[
        Path | None, typer.Option(help="A Python file that defines mend(record: dict) -> dict | None.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be sent, send nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Send rejected records again, mended by a function of yours; only what then passes the contract is sent.

    A record sent again is marked as done in the rejected topic (a tombstone for its key), so a second call does
    not send it twice. A record longer than 64 KiB is read again from its offset, and left alone when that is gone.
    """
    settings = connecting.connect(Settings())
    found = load_pipeline(pipeline)
    repair = _load_mender(mend) if mend else lambda record: record
    sent, left = 0, Counter[str]()
    producer = kafka.ControlProducer(settings.kafka)
    try:
        for key, value in _rejected(settings, found.topics.rejected, reason).items():
            try:
                record = repair(_parse(_original(settings.kafka, value)))
                problem = "mend returned None" if record is None else _problem(found.contract, record)
            except (ValueError, UsageError, InputLost) as error:
                problem = str(error)
            if problem or record is None:
                left[str(problem)] += 1
                continue
            sent += 1
            if not dry_run:
                producer.send(value["topic"], [(str(record[found.contract.key]), record)])
                producer.send(found.topics.rejected, [(key, None)])
    finally:
        producer.close()
    if as_json:
        print_json({"sent": sent, "left": dict(left), "dry_run": dry_run})
        return
    typer.echo(f"{'would send' if dry_run else 'sent'} {sent}, left {left.total()}")
    for problem, count in left.most_common():
        typer.echo(f"  {count} left: {problem}")


def _original(settings: KafkaSettings, value: dict[str, Any]) -> bytes:
    data = base64.b64decode(value["bytes"])
    if value["length"] <= KEPT_BYTES:
        return data
    whole = topic_reading.read_one(settings, value["topic"], value["partition"], value["offset"])
    if whole is None or hashlib.sha256(whole).hexdigest() != value["sha256"]:
        raise InputLost(
            f"{value['topic']}[{value['partition']}]@{value['offset']} is gone, and only its first 64 KiB were kept"
        )
    return whole


def _parse(data: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(data, type=dict[str, Any])
    except msgspec.MsgspecError:
        return {"_raw": data.decode(errors="replace")}


def _problem(contract: Contract, record: dict[str, Any]) -> str | None:
    """Why the decoder would reject the record; it is asked, not imitated."""
    batch = pa.RecordBatch.from_pydict(
        {
            "topic": ["redrive"],
            "partition": pa.array([0], pa.int32()),
            "offset": [0],
            "timestamp": pa.array([datetime.now(UTC)], TIMESTAMP),
            "value": [msgspec.json.encode(record)],
        }
    )
    problem: str | None = decode(contract, batch).column("_reason")[0].as_py()
    return problem


def _load_mender(path: Path) -> Callable[[dict[str, Any]], dict[str, Any] | None]:
    import importlib.util  # noqa: PLC0415 - only this option loads a file

    spec = importlib.util.spec_from_file_location("mend", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise UsageError(f"--mend {path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules["mend"] = module
    spec.loader.exec_module(module)
    if not callable(getattr(module, "mend", None)):
        raise UsageError(f"--mend {path}: define mend(record: dict) -> dict | None there")
    found: Callable[[dict[str, Any]], dict[str, Any] | None] = module.mend
    return found
