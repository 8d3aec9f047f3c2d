"""A service of the protocol alone: someone who answers without a model, and a client that checks every answer."""

import asyncio
import struct
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import httpx
import msgspec
import numpy as np
from starlette.applications import Starlette
from starlette.types import ASGIApp

from serving.answers import ANY, Outcome, Wish
from serving.metrics import Metrics
from serving.model import Served
from serving.oip.request import HEADER_LENGTH
from serving.oip.routes import routes
from serving.problems import Problem
from serving.rows import Rows
from stream_trainer.contract import ClassLabel, Contract
from stream_trainer.learner import State
from stream_trainer.pipeline import Pipeline
from stream_trainer.settings import Settings
from stream_trainer.store import Manifest
from tests.core.worlds import CONTRACT, GOOD
from tests.serving.fixtures import ManualClock
from tests.serving.oip import protocol

TRAINED = datetime(2013, 2, 1, 10, tzinfo=UTC)
INFER = "/v2/models/flights/infer"

ROWS: list[dict[str, Any]] = [
    {name: value for name, value in GOOD.items() if name != "late"}
    | {"distance": 100.5 * i, "pressure": 1000.25 + i if i % 2 else None, "carrier": ["AA", "UA", "ZZ", "É☃"][i % 4]}
    | {"tail": "N1" if i % 3 else None, "place": [0.1 * i, -1e-300], "flight_id": f"f{i}"}
    for i in range(6)
]


def served(number: int, trained: datetime | None = TRAINED) -> Served:
    """A version that nobody looks into."""
    manifest = cast("Manifest", SimpleNamespace(trained_through=trained))
    return Served(number=number, sha256="", state=cast("State", None), manifest=manifest, covered_at=TRAINED)


class Recorder:
    """Answers with numbers of its own, and keeps what it was asked."""

    def __init__(self, contract: Contract, versions: Sequence[int]) -> None:
        self.label = contract.label
        self.present = [served(number) for number in versions]
        self.rows: list[Any] = []
        self.wish = ANY
        self.requested_at: datetime | None = None
        self.problem: Exception | None = None

    async def answer(self, rows: Rows, requested_at: datetime, wish: Wish = ANY) -> Outcome:
        self.rows, self.requested_at, self.wish = list(rows.tuples()), requested_at, wish
        if self.problem is not None:
            raise self.problem
        if not self.present:
            raise Problem(503, "no_version", "nothing yet", headers={"retry-after": "1"}, prediction_ids=["a"])
        version = next((v for v in self.present if v.number == wish.version), self.present[0])
        ids = [f"0198c0de-0000-7000-8000-{i:012d}" for i in range(len(rows))]
        return Outcome(served=version, ids=ids, outputs=self.outputs(len(rows)), staleness=0.8000000004)

    def outputs(self, rows: int) -> list[Any]:
        if isinstance(self.label, ClassLabel):
            return [[(i + k) / 1000 for k in range(len(self.label.classes))] for i in range(rows)]
        return [i / 7 for i in range(rows)]

    busy = False

    def versions(self) -> list[Served]:
        return self.present


class CheckedClient:
    """Talks to an application in this process, and holds every answer against the protocol."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(self._app)
            async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
                return await client.request(method, path, **more)

        response = asyncio.run(send())
        protocol.check(response)
        return response

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self.request("GET", path, **more)

    def post(self, path: str, **more: Any) -> httpx.Response:
        return self.request("POST", path, **more)


class World:
    """One service and its client; every answer the client gets is held against the protocol."""

    def __init__(
        self, contract: Contract = CONTRACT, versions: Sequence[int] = (4, 3), name: str = "flights", **settings: Any
    ) -> None:
        self.pipeline = Pipeline(name=name, contract=contract)
        self.answers = Recorder(contract, versions)
        self.clock = ManualClock()
        self.metrics = Metrics()
        self.settings = Settings(serving=settings).serving
        self.app = Starlette(routes=routes(self.pipeline, self.settings, self.answers, self.clock, self.metrics))
        self.client = CheckedClient(self.app)

    def infer(self, body: dict[str, Any], path: str = INFER, headers: dict[str, str] | None = None) -> Any:
        """The JSON answer to a good request."""
        response = self.client.post(path, json=body, headers=headers)
        assert response.status_code == 200, response.text
        return response.json()

    def refused(self, body: dict[str, Any] | bytes, status: int = 400, headers: Mapping[str, str] | None = None) -> Any:
        """The JSON answer to a bad one."""
        content = body if isinstance(body, bytes) else msgspec.json.encode(body)
        response = self.client.post(INFER, content=content, headers=headers)
        assert response.status_code == status, response.text
        return response.json()

    def outcomes(self, outcome: str) -> float:
        name = "stream_trainer_serving_requests_total"
        return self.metrics.registry.get_sample_value(name, {"outcome": outcome}) or 0.0


def tensor(name: str, data: Any, datatype: str = "BYTES", shape: Sequence[int] | None = None) -> dict[str, Any]:
    """One JSON input."""
    return {"name": name, "shape": list(shape or np.shape(data)), "datatype": datatype, "data": data}


def tensors(rows: Sequence[dict[str, Any]] = ROWS) -> list[dict[str, Any]]:
    """Rows as the contract's JSON inputs."""
    kinds = {"distance": "FP64", "pressure": "FP64", "place": "FP64"}
    return [tensor(name, [row[name] for row in rows], kinds.get(name, "BYTES")) for name in rows[0]]


def replaced(name: str, /, **fields: Any) -> dict[str, Any]:
    """A good request in which one input is another; a field of None is taken away."""
    inputs = [t | fields if t["name"] == name else t for t in tensors()]
    return {"inputs": [{k: v for k, v in t.items() if v is not None} for t in inputs]}


def binary_bytes(datatype: str, values: Any) -> bytes:
    """A tensor's bytes, written element by element."""
    if datatype == "BYTES":
        raw = [v.encode() if isinstance(v, str) else v for v in values]
        return b"".join(struct.pack("<I", len(v)) + v for v in raw)
    letter = dict(zip(protocol.DATATYPES, "?BHIQbhiqefd", strict=False))[datatype]
    return b"".join(struct.pack(f"<{letter}", v) for v in np.array(values, object).reshape(-1))


def binary_body(inputs: Sequence[dict[str, Any]], **more: Any) -> tuple[bytes, dict[str, str]]:
    """A request whose inputs with `bytes` go as binary data, and the header it needs."""
    heads: list[dict[str, Any]] = []
    for one in inputs:
        head = {k: v for k, v in one.items() if k != "bytes"}
        heads.append(head | {"parameters": {"binary_data_size": len(one["bytes"])}} if "bytes" in one else head)
    text = msgspec.json.encode({"inputs": heads, **more})
    return text + b"".join(one.get("bytes", b"") for one in inputs), {HEADER_LENGTH: str(len(text))}


def as_binary(one: dict[str, Any]) -> dict[str, Any]:
    """A JSON input as a binary one; None is NaN."""
    values = [float("nan") if v is None else v for v in one["data"]]
    rest = {k: v for k, v in one.items() if k != "data"}
    return rest | {"bytes": binary_bytes(one["datatype"], values)}
