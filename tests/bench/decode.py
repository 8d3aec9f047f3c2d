"""How fast one core turns Kafka's bytes into rows and tensors."""

from datetime import UTC, datetime

import pyarrow as pa

from examples.flights.pipeline import contract
from stream_trainer.decode import decode
from stream_trainer.features import encode
from tests.bench import flights
from tests.bench.options import Options
from tests.bench.section import Section
from tests.bench.timing import seconds

ROWS = 20_000
_APPENDED = datetime(2014, 1, 1, tzinfo=UTC)  # after every flight: an event from the future is rejected


def records(rows: int = ROWS) -> pa.RecordBatch:
    """Flights as Spark's Kafka source hands them over."""
    values = [example.value for example in flights.examples(rows)]
    return pa.record_batch(
        {
            "topic": ["flights.examples"] * rows,
            "partition": pa.array([0] * rows, pa.int32()),
            "offset": pa.array(range(rows), pa.int64()),
            "timestamp": pa.array([_APPENDED] * rows, pa.timestamp("us", tz="UTC")),
            "value": pa.array(values, pa.binary()),
        }
    )


def measure(options: Options) -> Section:
    """Medians over repeated calls in this process."""
    batch = records()
    decoded = pa.Table.from_batches([decode(contract, batch)]).combine_chunks()
    if decoded.column("_reason").null_count != ROWS:
        raise RuntimeError("some of the records are rejected: the figures would mean nothing")
    columns = {f.name: decoded.column(f.name).combine_chunks() for f in contract.features}
    times = options.runs or 7
    found = {
        "decode (JSON to Arrow)": seconds(lambda: decode(contract, batch), times),
        "encode (Arrow to tensor)": seconds(lambda: encode(contract, columns), times),
    }
    return Section(
        title="Decoding",
        headings=("step", "rows/s", f"ms for {ROWS:,} rows"),
        rows=[[name, f"{ROWS / spent:,.0f}", f"{spent * 1000:.1f}"] for name, spent in found.items()],
        notes=[f"{len(contract.features)} features; {batch.column('value').nbytes / ROWS:.0f} bytes a record."],
    )
