"""Who is compared: how each server is started, how it is asked, and where its answer holds the probabilities."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from safetensors.torch import save_file

from tests.bench import mlp, ours
from tests.bench.mlp import Rows
from tests.bench.peers import net
from tests.bench.processes import free_port, program

OURS = "stream-trainer, named fields"
OURS_TENSOR = "stream-trainer, one tensor"
SEED = 0
_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One that runs. `own` is set for ours."""

    port: int
    pid: int
    log: Path
    authorization: str | None = None
    own: ours.Service | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """A server and one way to ask it.

    Attributes:
        name: for the table.
        environment: of a peer; None for ours.
        path: what is asked.
        body: from rows to the request's body.
        outputs: from the parsed answer to the probabilities.
        command: from the environment's programs, a port and a folder of its own to the command line.
    """

    name: str
    environment: str | None
    path: str
    body: Callable[[Rows], Any]
    outputs: Callable[[Any], Sequence[float]]
    command: Callable[[Path, int, Path], Sequence[str | Path]]

    def encoded(self, rows: Rows) -> str:
        """A request's body, one line."""
        return json.dumps(self.body(rows), separators=(",", ":"))


def _script(module: str) -> Callable[[Path, int, Path], Sequence[str | Path]]:
    return lambda programs, port, _: [programs / "python", "-m", f"tests.bench.peers.{module}", str(port)]


def _bentoml(programs: Path, port: int, _: Path) -> Sequence[str | Path]:
    service = "tests.bench.peers.bentoml_server:Mlp"
    return [programs / "bentoml", "serve", service, "--host", "127.0.0.1", "--port", str(port)]


def _mlserver(programs: Path, port: int, folder: Path) -> Sequence[str | Path]:
    settings = {"debug": False, "parallel_workers": 0, "host": "127.0.0.1", "http_port": port}
    settings |= {"grpc_port": free_port(), "metrics_port": free_port()}
    model = {"name": "mlp", "implementation": "tests.bench.peers.mlserver_server.Mlp"}
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(json.dumps(model))
    return [programs / "mlserver", "start", folder]


def _open_inference(rows: Rows) -> dict[str, Any]:
    data = {"name": "rows", "shape": list(rows.shape), "datatype": "FP32", "data": rows.ravel().tolist()}
    return {"inputs": [data]}


ALL = (
    Contestant(
        name=OURS,
        environment=None,
        path="/predict",
        body=lambda rows: {"instances": mlp.instances(rows)},
        outputs=lambda answer: [prediction["output"] for prediction in answer["predictions"]],
        command=lambda *_: [],
    ),
    Contestant(
        name=OURS_TENSOR,
        environment=None,
        path=f"/v2/models/{mlp.tensor_pipeline.name}/infer",
        body=_open_inference,
        outputs=lambda answer: answer["outputs"][0]["data"],
        command=lambda *_: [],
    ),
    Contestant(
        name="FastAPI, lists",
        environment="fastapi",
        path="/predict",
        body=lambda rows: {"rows": rows.tolist()},
        outputs=lambda answer: answer["outputs"],
        command=_script("fastapi_server"),
    ),
    Contestant(
        name="FastAPI, named fields",
        environment="fastapi",
        path="/predict_named",
        body=lambda rows: {"instances": mlp.instances(rows)},
        outputs=lambda answer: answer["outputs"],
        command=_script("fastapi_server"),
    ),
    Contestant(
        name="LitServe",
        environment="litserve",
        path="/predict",
        body=lambda rows: {"input": rows.tolist()},
        outputs=lambda answer: answer["output"],
        command=_script("litserve_server"),
    ),
    Contestant(
        name="BentoML",
        environment="bentoml",
        path="/predict",
        body=lambda rows: {"rows": rows.tolist()},
        outputs=lambda answer: answer,
        command=_bentoml,
    ),
    Contestant(
        name="MLServer",
        environment="mlserver",
        path="/v2/models/mlp/infer",
        body=_open_inference,
        outputs=lambda answer: answer["outputs"][0]["data"],
        command=_mlserver,
    ),
)


@contextmanager
def started(contestant: Contestant, environments: Mapping[str, Path], folder: Path) -> Iterator[Server]:
    """One server, alone; it may not be ready yet. `folder` is its own."""
    if contestant.environment is None:
        with _ours() if contestant.name == OURS else _ours_of_a_tensor() as server:
            yield server
        return
    weights, port, log = folder / "weights.safetensors", free_port(), folder / "log"
    save_file(mlp.weights(mlp.state(SEED)), weights)
    programs = environments[contestant.environment]
    variables = {net.WEIGHTS: str(weights), "PYTHONPATH": str(_ROOT), "BENTOML_DO_NOT_TRACK": "True"}
    command = contestant.command(programs, port, folder)
    with program(command, variables=MappingProxyType(variables), cwd=folder, log=log) as pid:
        yield Server(port=port, pid=pid, log=log)


@contextmanager
def _ours() -> Iterator[Server]:
    with ours.world() as here:
        mlp.commit(here.store, mlp.state(SEED))
        with ours.service(here) as own:
            yield _server(own)


@contextmanager
def _ours_of_a_tensor() -> Iterator[Server]:
    with ours.world(of=mlp.tensor_pipeline) as here:
        mlp.commit_tensor(here.store, SEED)
        with ours.service(here, mlp.TENSOR_ADDRESS) as own:
            yield _server(own)


def _server(own: ours.Service) -> Server:
    return Server(port=own.port, pid=own.pid, log=own.log, authorization=own.key.authorization, own=own)
