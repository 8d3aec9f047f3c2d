"""One served version, and everything that must hold before it may answer.

A version that fails a check is `Refused`; whoever loads decides what serves instead. Never an unchecked tensor,
and never a model that was not learned.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from stream_trainer.errors import Corrupt, NoVersion
from stream_trainer.features import encode
from stream_trainer.ipc import Limits
from stream_trainer.joining.weights import corrected
from stream_trainer.learner import State, answer
from stream_trainer.pipeline import Pipeline
from stream_trainer.reference import table_from_bytes
from stream_trainer.schema import arrow_fields
from stream_trainer.store import Manifest, ModelStore, Version
from stream_trainer.store.store import GOLDEN

OUTPUT = "_output"
_RTOL, _ATOL = 1e-5, 1e-6
_GOLDEN_LIMITS = Limits(unpacked=64 * 2**20, cells=2**22)
_MOST_GOLDEN_ROWS = 1_000


class Refused(Corrupt):
    """A version must not be served; `reason` is a short stable code for the metric."""

    def __init__(self, reason: str, message: str) -> None:
        self.reason = reason
        super().__init__(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A checked version in memory. A request takes one reference and keeps it to its end.

    Attributes:
        covered_at: when the trainer last saw the end of the log covered by this version.
        negative_rate: the share of false labels that it was taught: the odds of what it says are that much too high.
    """

    number: int
    sha256: str
    state: State
    manifest: Manifest
    covered_at: datetime
    negative_rate: float = 1.0

    @property
    def trained_through(self) -> datetime | None:
        """The latest event time it has learned from."""
        return self.manifest.trained_through

    def staleness(self, now: datetime) -> float:
        """Seconds since the log's end was last seen covered, never below 0."""
        return max(0.0, (now - self.covered_at).total_seconds())


def load(store: ModelStore, pipeline: Pipeline, number: int, *, sha256: str | None = None) -> Served:
    """Read, check and warm up a version.

    Args:
        store: where versions are.
        pipeline: whose contract and learner it must fit.
        number: which one.
        sha256: the manifest's announced digest, if it was announced.

    Raises:
        Refused: a check failed.
        StoreUnavailable: try again later.
    """
    where = f"version {number} of {store.describe()}"
    version = _manifest(store, number, sha256, where)
    manifest = version.manifest
    if manifest.contract != pipeline.contract.fingerprint:
        raise Refused("contract", f"{where} was learned under another contract: serve it with its own pipeline file")
    if not manifest.passed:
        failed = [f"{v.gate}: {v.detail}" for v in manifest.gates if not v.passed]
        raise Refused("gates", f"{where} did not pass its gates: {'; '.join(failed)}")
    with _damage(where):
        state = store.load(version, pipeline.spec, training=False)
        golden = store.file(version, GOLDEN)
    for name, tensor in state.serving.items():
        if tensor.is_floating_point() and not is_finite(tensor):
            raise Refused("not_finite", f"{where}: tensor {name} holds NaN or infinity")
    columns, expected = _golden(pipeline, golden, where)
    _warm_up(pipeline, state, columns, expected, where)
    covered_at = manifest.covered_at or manifest.created_at
    return Served(
        number=number,
        sha256=version.sha256,
        state=state,
        manifest=manifest,
        covered_at=covered_at,
        # A version of an older release does not say; all there is then is the pipeline of today.
        negative_rate=manifest.negative_rate or pipeline.negative_rate,
    )


def as_served(served: Served, outputs: Tensor) -> Tensor:
    """What the model says as it is answered: of a binary label, corrected for the false labels that it was not taught."""
    return outputs if served.negative_rate >= 1 else corrected(outputs, served.negative_rate)


def _manifest(store: ModelStore, number: int, sha256: str | None, where: str) -> Version:
    try:
        version = store.read(number)
    except NoVersion as error:
        raise Refused("missing", f"{where} is not there: is this the store that the trainer writes to?") from error
    except Corrupt as error:
        raise Refused("damaged", str(error)) from error
    if sha256 is not None and version.sha256 != sha256:
        raise Refused("digest", f"{where} is not the one that was announced: the manifest's SHA-256 differs")
    try:
        store.check_parent(version)
    except Corrupt as error:
        raise Refused("chain", str(error)) from error
    return version


@contextmanager
def _damage(where: str) -> Iterator[None]:
    try:
        yield
    except Corrupt as error:
        raise Refused("damaged", f"{where}: {error}") from error


def _warm_up(
    pipeline: Pipeline, state: State, columns: dict[str, pa.Array], expected: list[list[float]], where: str
) -> None:
    """Predict the golden rows: the answer must be what the trainer saw, and the first request finds a warm model."""
    if not expected:
        return
    try:
        outputs = answer(pipeline.learner, state, encode(pipeline.contract, columns))
    except (Exception, SystemExit) as error:
        raise Refused("model", f"{where} does not fit the pipeline's model: {error}") from error
    if not _same(outputs, expected):
        raise Refused("golden", f"{where} answers its golden rows differently here than where it was learned")


def _golden(pipeline: Pipeline, golden: bytes, where: str) -> tuple[dict[str, pa.Array], list[list[float]]]:
    """The rows to predict and what must come out; every column of exactly the type that the trainer writes."""
    fields = arrow_fields(pipeline.contract, "request")
    wanted = {**{field.name: field.type for field in fields}, OUTPUT: pa.list_(pa.float32())}
    try:
        table = table_from_bytes(golden, _GOLDEN_LIMITS)
    except Corrupt as error:
        raise Refused("golden", f"{where}: golden.arrow: {error}") from error
    if {field.name: field.type for field in table.schema} != wanted or len(table.schema) != len(wanted):
        raise Refused("golden", f"{where}: golden.arrow has other columns than the pipeline's contract")
    if table.num_rows > _MOST_GOLDEN_ROWS:
        raise Refused("golden", f"{where}: golden.arrow holds {table.num_rows} rows")
    table = table.combine_chunks()
    columns = {field.name: _one_array(table.column(field.name)) for field in fields}
    return columns, table.column(OUTPUT).to_pylist()


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)


def is_finite(tensor: Tensor) -> bool:
    """Whether all is finite.

    By numpy, which keeps the interpreter: torch lets go of it for each of three steps, and gets it back when requests rest.
    """
    array = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
    return bool(np.isfinite(array.detach().numpy()).all())


def _same(outputs: Tensor, expected: list[list[float]]) -> bool:
    found = outputs.detach().reshape(len(outputs), -1).to(torch.float64).numpy()
    try:
        wanted = np.asarray(expected, dtype=np.float64)
    except (TypeError, ValueError):  # a row is missing, or not as long as the others
        return False
    if found.shape != wanted.shape:
        return False
    return bool((np.abs(found - wanted) <= _ATOL + _RTOL * np.abs(wanted)).all())  # NaN and infinity are like nothing
