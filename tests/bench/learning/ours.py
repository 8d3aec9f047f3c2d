"""Our default learner on the real path: contract, `features.encode`, `Learner.predict` and `Learner.learn`; no options."""

import sys
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import torch

from stream_trainer.contract import (
    BinaryLabel,
    Categorical,
    ClassLabel,
    Contract,
    Feature,
    Label,
    Numeric,
    NumericLabel,
)
from stream_trainer.features import encode
from stream_trainer.learner import Batch
from stream_trainer.pipeline import Pipeline
from stream_trainer.strategies import local
from tests.bench.learning import worker
from tests.bench.learning.scores import Forecast
from tests.bench.learning.stream import Column, Floats, Stream

NAME = "stream-trainer"
Columns = Mapping[str, pa.Array]


def pipeline_of(stream: Stream, seed: int) -> Pipeline:
    """What a user would write for such a stream."""
    missing = np.any(np.isnan(stream.x), axis=0)
    features = [_feature(column, optional=bool(gaps)) for column, gaps in zip(stream.columns, missing, strict=True)]
    contract = Contract(features=features, label=_label(stream), key="example_key", event_time="example_time")
    return Pipeline(name="bench", contract=contract, seed=seed)


def _feature(column: Column, *, optional: bool) -> Feature:
    if column.words is None:
        return Numeric(column.name, optional=optional)
    if column.buckets is not None:
        return Categorical(column.name, buckets=column.buckets, optional=optional)
    return Categorical(column.name, vocabulary=column.words, optional=optional)


def _label(stream: Stream) -> Label:
    match stream.task:
        case "binary":
            return BinaryLabel("example_label")
        case "multiclass":
            return ClassLabel("example_label", stream.classes)
        case "regression":
            return NumericLabel("example_label")


class Ours:
    """A pipeline's learner and its state. Encoding is part of what is timed."""

    def __init__(self, stream: Stream, seed: int) -> None:
        local.prepare()
        self.columns = stream.columns
        self.pipeline = pipeline_of(stream, seed)
        self.state = self.pipeline.learner.init(self.pipeline.spec, seed)

    def take(self, x: Floats) -> Columns:
        """Columns as a decoder gives them."""
        return {column.name: _array(column, x[:, at]) for at, column in enumerate(self.columns)}

    def predict(self, rows: Columns) -> Forecast:
        outputs = self.pipeline.learner.predict(self.state, encode(self.pipeline.contract, rows))
        values = outputs.to(torch.float64).numpy()
        return Forecast(values=np.column_stack([1.0 - values, values]) if self._binary else values)

    def learn(self, rows: Columns, y: Floats) -> None:
        batch = Batch(features=encode(self.pipeline.contract, rows), labels=torch.from_numpy(y.copy()))
        self.state, _ = local.learn(self.pipeline.learner, self.state, batch)

    @property
    def _binary(self) -> bool:
        return self.pipeline.spec.task == "binary"


def _array(column: Column, values: Floats) -> pa.Array:
    gaps = np.isnan(values)
    if column.words is None:
        return pa.array(values, mask=gaps)
    codes = pa.array(np.where(gaps, 0, values).astype(np.int32), mask=gaps)
    return pa.DictionaryArray.from_arrays(codes, pa.array(column.words)).cast(pa.string())


def build(name: str, stream: Stream, seed: int) -> Ours:
    return Ours(stream, seed)


if __name__ == "__main__":
    worker.main(sys.argv[1], build)
