"""How long a newcomer waits: from the start of the demo to the first answer of learned weights."""

import statistics
import time

from tests.bench import flights
from tests.bench.demo import demo
from tests.bench.options import Options
from tests.bench.section import Goal, Section
from tests.bench.service import Service

_PATIENCE = 300.0
_GOAL = 60.0


def measure(options: Options) -> Section:
    """Several demos, each in a fresh folder."""
    body = flights.request_body()
    found = [_once(body) for _ in range(options.runs or 5)]
    rows = [[str(number), f"{seconds:.1f}"] for number, seconds in enumerate(found, 1)]
    middle = statistics.median(found)
    return Section(
        title="First learned prediction of the demo",
        headings=("run", "seconds"),
        rows=rows,
        notes=[
            "From the start of the process to the first answer of /predict by version 1 or later; installed already."
        ],
        goals=[Goal(what=f"median of {len(found)} runs", limit=_GOAL, found=middle, unit="s")],
    )


def _once(body: bytes) -> float:
    with demo(_PATIENCE) as running:
        service = Service(running.port, body)
        service.wait(_PATIENCE)
        seconds = time.monotonic() - running.started
        service.close()
        return seconds
