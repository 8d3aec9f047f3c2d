"""Who takes part: where each runs, what it can learn, whether a seed changes it."""

import ast
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from stream_trainer.pipeline import Pipeline
from tests.bench.learning import ours
from tests.bench.learning.stream import Stream, Task
from tests.bench.peers.environments import PINS

OURS = ours.NAME
_ROOT = Path(__file__).parents[3]
_PACKAGE = "tests.bench.learning"
_CLASSES: tuple[Task, ...] = ("binary", "multiclass")
_ALL: tuple[Task, ...] = (*_CLASSES, "regression")
# What decides our figures, beside the learner's own hyper-parameters and torch.
_OUR_CODE = ("stream_trainer/learners", "stream_trainer/learner.py", "stream_trainer/features.py")
_SHARED_CODE = ("protocol.py", "scores.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """A learner.

    Attributes:
        name: for the tables.
        what: one line for the report.
        module: the worker, run with `python -m`.
        environment: of a peer; None for the project's own.
        tasks: what it can learn.
        seeded: whether a seed changes it; one that none does runs once on a real stream.
        row_by_row: all block sizes share a pass.
    """

    name: str
    what: str
    module: str
    environment: str | None = None
    tasks: tuple[Task, ...] = _ALL
    seeded: bool = True
    row_by_row: bool = True


_RIVER, _DEEP = f"{_PACKAGE}.peers.river_learners", f"{_PACKAGE}.peers.deep_river_learners"
ALL = (
    Contestant(
        name=OURS,
        what="the pipeline's default learner, no options, learning each block at once",
        module=f"{_PACKAGE}.ours",
        row_by_row=False,
    ),
    Contestant(
        name="LR",
        what="River's logistic (softmax, linear) regression behind its StandardScaler",
        module=_RIVER,
        environment="river",
        seeded=False,
    ),
    Contestant(
        name="ALMA",
        what="River's ALMA behind its StandardScaler, one against the rest for classes",
        module=_RIVER,
        environment="river",
        tasks=_CLASSES,
        seeded=False,
    ),
    Contestant(name="HAT", what="River's Hoeffding adaptive tree", module=_RIVER, environment="river"),
    Contestant(name="ARF10", what="River's adaptive random forest of 10", module=_RIVER, environment="river"),
    Contestant(
        name="LevBag",
        what="River's leveraging bagging of 10 Hoeffding trees",
        module=_RIVER,
        environment="river",
        tasks=_CLASSES,
    ),
    Contestant(
        name="MLP",
        what="deep-river's MLP (2 x 64, Adam 1e-3) behind River's StandardScaler",
        module=_DEEP,
        environment="deep_river",
    ),
    Contestant(
        name="no-change",
        what="the last label known before the block",
        module=f"{_PACKAGE}.baselines",
        seeded=False,
        row_by_row=False,
    ),
    Contestant(
        name="majority",
        what="running frequencies, or the running mean",
        module=f"{_PACKAGE}.baselines",
        seeded=False,
        row_by_row=False,
    ),
)


def digest(contestant: Contestant, stream: Stream) -> str:
    """Of everything but stream, block size and seed that decides its figures: code without comments, pins, settings."""
    found = hashlib.sha256(contestant.name.encode())
    for path in _code(contestant):
        found.update(code_of(path).encode())
    if contestant.environment is not None:
        found.update((PINS / f"{contestant.environment}.txt").read_bytes())
    if contestant.name == OURS:
        found.update(_settings(ours.pipeline_of(stream, 0)).encode())
    return found.hexdigest()


def code_of(path: Path) -> str:
    """A module's syntax tree without its docstrings: what stays the same when only words change."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return ast.dump(tree)


def _code(contestant: Contestant) -> Iterator[Path]:
    here = Path(__file__).parent
    own: Sequence[str] = ()
    if contestant.environment is not None:
        own = ("peers/rows.py", "peers/river_learners.py")
        own = (*own, "peers/deep_river_learners.py") if contestant.environment == "deep_river" else own
    else:
        own = (f"{contestant.module.rsplit('.', 1)[1]}.py",)
    yield from (here / name for name in (*_SHARED_CODE, *own))
    if contestant.name == OURS:
        for name in _OUR_CODE:
            path = _ROOT / name
            yield from sorted(path.rglob("*.py")) if path.is_dir() else [path]


def _settings(pipeline: Pipeline) -> str:
    learner = pipeline.learner
    known = {"torch": version("torch"), "learner": type(learner).__name__, "settings": learner.hyperparameters()}
    return json.dumps(known, sort_keys=True, default=repr)
