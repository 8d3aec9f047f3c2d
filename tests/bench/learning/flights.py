"""The example's flights as a stream: its features as its contract has them, in the order of scheduled departure."""

import itertools
import math
from typing import Any

import numpy as np

from examples.flights.data import load_timeline
from examples.flights.pipeline import contract
from stream_trainer.contract import Categorical, Feature
from tests.bench.learning.stream import Column, Floats, Stream

NAME = "flights"


def make(rows: int) -> Stream:
    """The first so many labelled flights."""
    timeline = load_timeline()
    labelled = (row for row in range(len(timeline)) if timeline.label(row) is not None)
    wanted = list(itertools.islice(labelled, rows))
    requests = [timeline.request(row) for row in wanted]
    parts = [_column(feature, [request[feature.name] for request in requests]) for feature in contract.features]
    return Stream(
        name=NAME,
        origin="real",
        task="binary",
        columns=tuple(column for column, _ in parts),
        classes=("on time", "late"),
        x=np.column_stack([values for _, values in parts]),
        y=np.array([float(bool(timeline.label(row))) for row in wanted]),
    )


def _column(feature: Feature, values: list[Any]) -> tuple[Column, Floats]:
    if not isinstance(feature, Categorical):
        return Column(name=feature.name), np.array([math.nan if v is None else float(v) for v in values])
    words = tuple(feature.vocabulary or sorted(set(values)))
    codes = {word: float(code) for code, word in enumerate(words)}
    column = Column(name=feature.name, words=words, buckets=feature.buckets)
    return column, np.array([codes[value] for value in values])
