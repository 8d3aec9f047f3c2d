"""One answered row as the record of `P.predictions`; see `docs/schemas/prediction.json`.

Features are written as they were parsed, so training can be shown exactly what serving saw.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import msgspec
from msgspec import UNSET

from stream_trainer.contract import Contract
from stream_trainer.schema import as_datetime, field_names, key_text

Role = Literal["champion", "challenger", "canary"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """One request's rows, parsed, and what a version said; version and outputs None when there was none."""

    ids: Sequence[str]
    requested_at: datetime
    rows: Sequence[msgspec.Struct]
    outputs: Sequence[Any] | None
    model_version: int | None
    role: Role = "champion"


class _Record(msgspec.Struct, gc=False):
    prediction_id: str
    requested_at: datetime
    segments: msgspec.Struct
    features: msgspec.Struct
    output: Any
    model_version: int | None
    role: str
    key: Any = UNSET
    event_time: Any = UNSET


class RecordEncoder:
    """Encodes the rows of one contract; not safe to call from several threads."""

    def __init__(self, contract: Contract) -> None:
        names = field_names(contract, "request")
        features = [f.name for f in contract.features]
        self._width = len(features)
        self._features = _struct("Features", features)
        self._segments = _struct("Segments", contract.segments)
        self._segment_at = [names.index(name) for name in contract.segments]
        self._key_at = names.index(contract.key)
        self._time_at = names.index(contract.event_time)
        self._encode = msgspec.json.Encoder().encode

    def records(self, answered: Answered) -> Iterator[tuple[bytes, bytes]]:
        """Key and value of each row's record."""
        outputs = [None] * len(answered.ids) if answered.outputs is None else answered.outputs
        for prediction_id, row, output in zip(answered.ids, answered.rows, outputs, strict=True):
            values = msgspec.structs.astuple(row)
            key, time = values[self._key_at], values[self._time_at]
            record = _Record(
                prediction_id,
                answered.requested_at,
                self._segments(*[values[i] for i in self._segment_at]),
                self._features(*values[: self._width]),
                output,
                answered.model_version,
                answered.role,
                UNSET if key is None else key_text(key),
                UNSET if time is None else as_datetime(time),
            )
            yield prediction_id.encode(), self._encode(record)


def _struct(name: str, fields: Sequence[str]) -> type[msgspec.Struct]:
    rename = {f"f{i}": field for i, field in enumerate(fields)}
    return msgspec.defstruct(name, [(f"f{i}", Any) for i in range(len(fields))], rename=rename, gc=False)
