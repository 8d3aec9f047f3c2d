"""Real flights as request bodies and as labelled examples."""

from collections.abc import Iterator
from functools import cache
from itertools import islice
from typing import NamedTuple

import msgspec

from examples.flights.data import Timeline, load_timeline


class Example(NamedTuple):
    """A Kafka record."""

    key: bytes
    value: bytes


@cache
def _timeline() -> Timeline:
    return load_timeline()


def _labelled() -> Iterator[Example]:
    timeline = _timeline()
    for row in range(len(timeline)):
        label = timeline.label(row)
        if label is not None:
            example = timeline.request(row) | {"late": label}
            yield Example(example["flight_id"].encode(), msgspec.json.encode(example))


@cache
def examples(rows: int) -> list[Example]:
    """The first so many labelled flights of the year."""
    return list(islice(_labelled(), rows))


def request_body(rows: int = 1) -> bytes:
    """A valid request for so many flights."""
    timeline = _timeline()
    return msgspec.json.encode({"instances": [timeline.request(row) for row in range(rows)]})
