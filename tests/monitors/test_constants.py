"""A number that was constant, or nearly, when its bins were frozen: whether it moves up or down, it is found and named."""

import numpy as np
import pyarrow as pa
import pytest

from monitors.baseline import Baseline, Frozen
from monitors.content import Content
from monitors.deciding import Round, decide
from monitors.findings import Finding
from monitors.questions import Compared, asked_of_predictions
from stream_trainer.contract import BinaryLabel, Contract, Numeric
from stream_trainer.reference import coded, freeze, pack

CONTRACT = Contract(features=[Numeric("rain")], label=BinaryLabel("y"), key="k", event_time="t", segments=["at"])
ROWS = 400


def found(before: list[float], now: list[float]) -> list[Finding]:
    def columns(values: list[float]) -> dict[str, pa.Array]:
        return {"rain": pa.array(values), "at": pa.array(["JFK"] * len(values))}

    frozen = Frozen("bins", freeze(CONTRACT, columns(before)))
    learned = coded(CONTRACT, frozen.reference, columns(before)).count()[0]
    counts = coded(CONTRACT, frozen.reference, columns(now)).count()[0]
    content = Content(rows=len(now), digest="bins", counts=pack(counts))
    asked = asked_of_predictions(content, Compared(frozen=frozen, served=Baseline(1, frozen, learned)))
    return [one for one in decide(asked, Round(budget=1e-3)) if (one.kind, one.feature) == ("drift", "rain")]


@pytest.mark.parametrize("usual", [0.0, 1013.25, -4.0])
@pytest.mark.parametrize("step", [0.3, -0.3, 1e-9, -1e-9, 1e6])
def test_a_constant_that_moves_is_found_everywhere(usual: float, step: float) -> None:
    findings = found([usual] * 2_000, [usual] * (ROWS - 40) + [usual + step] * 40)
    assert {(one.against, one.segment) for one in findings} == {
        ("baseline", ""),
        ("learned", ""),
        ("learned", "at=JFK"),
    }
    assert {one.state for one in findings} == {"drift"}
    ranges = (f"({usual:.6g}, inf): 0.00% -> 10.00%", f"[-inf, {usual:.6g}): 0.00% -> 10.00%")
    assert ranges[step < 0] in findings[0].detail


def test_a_constant_that_stays_is_not_enough_data_and_a_little_rain_as_before_is_quiet() -> None:
    assert {one.state for one in found([0.0] * 2_000, [0.0] * ROWS)} == {"not enough data"}
    rng = np.random.default_rng(4)
    before, now = (np.where(rng.uniform(size=n) < 0.9, 0.0, rng.exponential(size=n)) for n in (2_000, ROWS))
    assert {one.state for one in found(before.tolist(), now.tolist())} == {"quiet"}
    assert {one.state for one in found(before.tolist(), [*now[: ROWS - 60], *[0.2] * 60])} == {"drift"}
