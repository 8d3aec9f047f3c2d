"""Who takes part: where each runs, how its columns become an alarm, and what decides its figures."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from tests.bench.learning.contestants import code_of
from tests.bench.peers.environments import PINS

_FOLDER = Path(__file__).parent
_ROOT = Path(__file__).parents[3]
_PACKAGE = "tests.bench.drift"
_SHARED = ("trials.py", "worlds.py", "detectors.py")
# What decides ours.
_OURS = ("monitors/deciding.py", "monitors/comparing.py", "monitors/scales.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """A monitor with one rule.

    Attributes:
        title: for the table.
        name: for its module.
        module: the worker, run with `python -m`.
        environment: of a peer; None for the project's own.
        alone: it judges each column by itself.
        share: the least share of flagged columns that is an alarm; 0: any.
    """

    title: str
    name: str
    module: str
    environment: str | None = None
    alone: bool = True
    share: float = 0.0


def _peer(title: str, name: str, module: str, environment: str | None = None) -> Contestant:
    return Contestant(title=title, name=name, module=f"{_PACKAGE}.peers.{module}", environment=environment)


OURS_MONTH, OURS_EQUAL = "month", "0.05"
ALL = (
    Contestant(title="ours, one false alarm a month of 5-minute windows", name=OURS_MONTH, module=f"{_PACKAGE}.ours", alone=False),
    Contestant(title="ours, 5 % a window", name=OURS_EQUAL, module=f"{_PACKAGE}.ours", alone=False),
    _peer("Evidently's preset, any column", "columns", "evidently_preset"),
    Contestant(
        title="Evidently's preset, half of the columns",
        name="dataset",
        module=f"{_PACKAGE}.peers.evidently_preset",
        alone=False,
        share=0.5,
    ),
    _peer("PSI > 0.1", "psi", "textbook"),
    _peer("KS, chi-squared: p < .05", "significance", "textbook"),
    _peer("NannyML, univariate", "univariate", "nannyml_univariate", "nannyml"),
    _peer("River's KSWIN", "kswin", "river_detectors", "river"),
    _peer("River's ADWIN", "adwin", "river_detectors", "river"),
    _peer("always alarm", "always", "dummies"),
    _peer("never alarm", "never", "dummies"),
)  # fmt: skip


def digest(contestant: Contestant) -> str:
    """Of everything but the trial that decides its figures: code without comments, pins."""
    found = hashlib.sha256(f"{contestant.name} {contestant.alone}".encode())
    own = _ROOT / f"{contestant.module.replace('.', '/')}.py"
    ours = [_ROOT / path for path in _OURS] if contestant.module.endswith(".ours") else []
    for path in (own, *(_FOLDER / name for name in _SHARED), *ours):
        found.update(code_of(path).encode())
    if contestant.environment is not None:
        found.update((PINS / f"{contestant.environment}.txt").read_bytes())
    return found.hexdigest()
