"""What is read of `P.predictions`: a block is its rows, whichever way they are cut."""

import itertools
import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from stream_trainer import Join
from stream_trainer.joining.join import On
from stream_trainer.joining.matching import EXAMPLE, Matching, load
from stream_trainer.joining.records import KEYLESS, LABEL, PREDICTION, UNREADABLE, Event, events
from tests.integration.world import CONTRACT

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SHARED = {"requested_at": "2026-01-01T00:00:00Z", "model_version": 3, "role": "champion"}


@st.composite
def rows(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Rows of one request, each with an id of its own; some without a key."""
    return [
        {
            "prediction_id": f"p{number}",
            "output": draw(st.one_of(st.none(), st.floats(0, 1))),
            "key": draw(st.one_of(st.none(), st.sampled_from(["k0", "k1", "k2"]))),
            "event_time": draw(st.sampled_from([None, "2026-01-01T00:00:01Z"])),
            "segments": {"colour": "red"},
            "features": {"x": draw(st.floats(-1, 1)), "gap": None, "colour": "red"},
        }
        for number in range(draw(st.integers(1, 12)))
    ]


def block(of: list[dict[str, Any]]) -> bytes:
    """As the service writes many rows of a request."""
    nested = {f: {n: [row[f][n] for row in of] for n in of[0][f]} for f in ("segments", "features")}
    columns = {f: [row[f] for row in of] for f in ("prediction_id", "output", "key", "event_time")}
    return msgspec.json.encode({"rows": len(of), **SHARED, **columns, **nested})


def single(row: dict[str, Any]) -> bytes:
    return json.dumps(SHARED | {name: value for name, value in row.items() if value is not None}).encode()


def read(values: list[bytes], join: Join) -> list[Event]:
    table = {
        "topic": ["p.predictions"] * len(values),
        "partition": [0] * len(values),
        "offset": list(range(len(values))),
        "timestamp": [NOW] * len(values),
        "value": values,
    }
    return list(events(CONTRACT, join, "p.labels", pa.RecordBatch.from_pydict(table)))


def taught(found: list[Event], join: Join) -> list[tuple[str, bytes]]:
    """The examples that come of predictions and of one label for each of their keys."""
    rules = Matching(CONTRACT, join)
    named = "prediction_id" if join.on == "prediction_id" else CONTRACT.key
    out = []
    for key in {event.key for event in found if event.kind != KEYLESS}:
        value = json.dumps({named: key, "label": True}).encode()
        label = Event(key, LABEL, found[0].at + 5, f"p.labels/0/{len(key)}", value)
        out += rules.take(load(None), [*(e for e in found if e.key == key), label])
    return sorted((e.id, e.value) for e in out if e.kind == EXAMPLE)


@given(rows(), st.data(), st.sampled_from(["prediction_id", "key"]))
def test_blocks_and_single_records_join_to_the_same_examples(
    of: list[dict[str, Any]], data: st.DataObject, on: On
) -> None:
    join = Join(on=on, horizon=timedelta(hours=1))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(of)))))
    blocks = [block(of[a:b]) for a, b in itertools.pairwise([0, *cuts, len(of)]) if a < b]
    by_block, by_row = read(blocks, join), read([single(row) for row in of], join)
    assert [(e.key, e.kind, e.payload) for e in by_block] == [(e.key, e.kind, e.payload) for e in by_row]
    keyless = sum(on == "key" and row["key"] is None for row in of)
    assert Counter(e.kind for e in by_block) == +Counter({PREDICTION: len(of) - keyless, KEYLESS: keyless})
    assert taught(by_block, join) == taught(by_row, join)


def test_a_damaged_block_teaches_nothing_and_is_told_once() -> None:
    join = Join(on="prediction_id", horizon=timedelta(hours=1))
    whole = block([{**one, "prediction_id": name} for name in "ab" for one in [EXAMPLE_ROW]])
    assert [e.kind for e in read([whole], join)] == [PREDICTION, PREDICTION]
    assert [e.kind for e in read([whole.replace(b'"rows":2', b'"rows":3')], join)] == [UNREADABLE]


def test_what_a_challenger_said_is_not_joined() -> None:
    join = Join(on="prediction_id", horizon=timedelta(hours=1))
    assert read([block([EXAMPLE_ROW]).replace(b"champion", b"challenger")], join) == []


EXAMPLE_ROW: dict[str, Any] = {
    "prediction_id": "a",
    "output": 0.5,
    "key": "k",
    "event_time": None,
    "segments": {"colour": "red"},
    "features": {"x": 1.0, "gap": None, "colour": "red"},
}


def test_an_integer_that_no_state_can_hold_is_unreadable_and_stops_nothing() -> None:
    good = {"prediction_id": "p", "segments": {}, "features": {"x": 1.0}}
    for change in ({"output": 10**30}, {"model_version": 2**64}, {"features": {"x": -(2**64)}}):
        found = read(
            [json.dumps(SHARED | good | change).encode(), single(good)],
            Join(on="prediction_id", horizon=timedelta(hours=1)),
        )
        assert [event.kind for event in found] == [UNREADABLE, PREDICTION]
