"""The service beside other servers: the same net, the same load, one server at a time, in turn."""

import http.client
import json
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stream_trainer.settings import Settings
from tests.bench import contestants, footprint, mlp, ours, wrk
from tests.bench.contestants import ALL, OURS, OURS_TENSOR, Contestant, Server
from tests.bench.options import Options
from tests.bench.peers import environments
from tests.bench.section import Section
from tests.bench.wrk import Load

_RUNS, _SECONDS, _WARM_UP_SECONDS = 3, 10.0, 3.0
_SIZES = {1: 256, 100: 16}  # rows of a request: different requests of that size
_START_SECONDS, _SETTLE_SECONDS = 60.0, 60.0
_RTOL = 1e-4
_HEADINGS = (
    "server", "rows", "requests/s", "p50 ms", "p99 ms", "CPU ms", "not 2xx", "broken", "peak MiB", "logged", "dropped"
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One load on one server. `logged`, `dropped`: rows of the prediction log, None where there is none.

    `cpu`: milliseconds of the server's processes a request, whatever else the machine did meanwhile.
    """

    load: Load
    cpu: float
    mib: float
    logged: float | None
    dropped: float | None


Found = dict[tuple[str, int], list[Run]]


def measure(options: Options) -> Section:
    """Every server once, then every server again, beginning with another one."""
    wrk.require()
    cache = Settings().cache_dir
    homes = {c.environment: environments.ensure(c.environment, cache) for c in ALL if c.environment}
    runs, seconds = options.runs or _RUNS, options.seconds or _SECONDS
    found: Found = {(contestant.name, rows): [] for rows in _SIZES for contestant in ALL}
    for run in range(runs):
        for contestant in (*ALL[run % len(ALL) :], *ALL[: run % len(ALL)]):
            for rows, one in _measured(contestant, homes, seconds).items():
                found[contestant.name, rows].append(one)
    return Section(
        title="Serving, beside other servers",
        headings=_HEADINGS,
        rows=[_cells(name, rows, them) for (name, rows), them in found.items()],
        notes=_notes(found, runs, seconds, homes),
    )


def _measured(contestant: Contestant, homes: Mapping[str, Path], seconds: float) -> dict[int, Run]:
    with tempfile.TemporaryDirectory(prefix="stream-trainer-bench-") as name:
        folder = Path(name)
        with contestants.started(contestant, homes, folder) as server:
            _await(contestant, server)
            for rows, count in _SIZES.items():
                _check(contestant, server, mlp.random_rows(rows * count, seed=rows).reshape(count, rows, mlp.WIDTH))
            return {rows: _loaded(contestant, server, rows, folder / f"bodies-{rows}", seconds) for rows in _SIZES}


def _loaded(contestant: Contestant, server: Server, rows: int, bodies: Path, seconds: float) -> Run:
    drawn = mlp.random_rows(rows * _SIZES[rows], seed=rows).reshape(-1, rows, mlp.WIDTH)
    bodies.write_text("".join(f"{contestant.encoded(some)}\n" for some in drawn))
    url = f"http://127.0.0.1:{server.port}{contestant.path}"
    wrk.run(url, bodies, _WARM_UP_SECONDS, server.authorization)
    before = _settled(server.own)
    used = footprint.cpu_seconds(server.pid)
    with footprint.peak(server.pid) as peak:
        load = wrk.run(url, bodies, seconds, server.authorization)
    after = _settled(server.own)
    cpu = (footprint.cpu_seconds(server.pid) - used) * 1000 / max(1, load.requests)
    logged, dropped = (
        after[name] - before.get(name, 0.0) if after else None
        for name in ("prediction_log_sent", "prediction_log_dropped")
    )
    return Run(load=load, cpu=cpu, mib=peak.bytes / footprint.MIB, logged=logged, dropped=dropped)


def _settled(own: ours.Service | None) -> dict[str, float]:
    """Our metrics once every answered row is either on the broker or counted as lost; empty for the others."""
    if own is None:
        return {}
    deadline = time.monotonic() + _SETTLE_SECONDS
    while time.monotonic() < deadline:
        found = own.metrics()
        found.setdefault("prediction_log_dropped", 0.0)
        if found["rows"] <= found["prediction_log_sent"] + found["prediction_log_dropped"]:
            return found
        time.sleep(0.2)
    raise TimeoutError(f"the prediction log did not settle: {found}; see {own.log}")


def _await(contestant: Contestant, server: Server) -> None:
    deadline = time.monotonic() + _START_SECONDS
    body = contestant.encoded(mlp.random_rows(1))
    while time.monotonic() < deadline:
        with suppress(OSError, http.client.HTTPException):
            if _asked(contestant, server, body)[0] == 200:
                return
        time.sleep(0.2)
    raise TimeoutError(f"{contestant.name} did not answer: {server.log.read_text()[-2000:]}")


def _check(contestant: Contestant, server: Server, drawn: np.ndarray[Any, np.dtype[np.float64]]) -> None:
    """Refuse to measure a server that does not answer with the probabilities of the one net."""
    state = mlp.state(contestants.SEED)
    for rows in drawn:
        status, answer = _asked(contestant, server, contestant.encoded(rows))
        expected = mlp.outputs(state, rows).numpy()
        if status != 200 or not np.allclose(contestant.outputs(json.loads(answer)), expected, rtol=_RTOL, atol=0):
            raise RuntimeError(f"{contestant.name} answers differently ({status}): {answer[:500]!r}")


def _asked(contestant: Contestant, server: Server, body: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    headers = {"content-type": "application/json"}
    headers |= {"authorization": server.authorization} if server.authorization else {}
    try:
        connection.request("POST", contestant.path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def _cells(name: str, rows: int, runs: Sequence[Run]) -> list[str]:
    """Medians, but for what must not be hidden by one: errors and lost rows are sums."""
    rate, p50, p99 = (statistics.median(getattr(run.load, what) for run in runs) for what in ("rate", "p50", "p99"))
    refused, broken = (sum(getattr(run.load, what) for run in runs) for what in ("refused", "broken"))
    cpu = statistics.median(run.cpu for run in runs)
    mib = statistics.median(run.mib for run in runs)
    speed = [f"{rate:,.0f}", f"{p50:.1f}", f"{p99:.1f}", f"{cpu:.2f}"]
    return [name, f"{rows}", *speed, f"{refused:,}", f"{broken:,}", f"{mib:,.0f}"] + [
        "" if any(value is None for value in values) else f"{sum(value or 0.0 for value in values):,.0f}"
        for values in ([run.logged for run in runs], [run.dropped for run in runs])
    ]


def _notes(found: Found, runs: int, seconds: float, homes: Mapping[str, Path]) -> list[str]:
    told = [
        f"{name}: " + ", ".join(f"{k} {v}" for k, v in environments.versions(home).items())
        for name, home in homes.items()
    ]
    return [
        (
            f"wrk, one thread, {wrk.CONNECTIONS} connections, {seconds:.0f} s after {_WARM_UP_SECONDS:.0f} s of warm-up; "
            f"medians of {runs} runs in turn, errors and rows of the log summed. All on the same cores, wrk included."
        ),
        "An MLP 20-64-32-1 on torch with one thread; one worker each, uvloop and httptools for all, no access logs.",
        f"Before measuring, all answered {sum(_SIZES.values())} requests with the same probabilities (rtol {_RTOL:g}).",
        (
            f"{OURS}: /predict with twenty names a row, as FastAPI's named fields. {OURS_TENSOR}: the Open Inference "
            "Protocol with the very bytes that MLServer gets. Both check values, count metrics, ask for a key and write "
            "every row to a Kafka on the same cores; the others write nothing. Memory is PSS of the server's "
            "processes, that Kafka not included."
        ),
        *(_placed(found, name, rows) for rows in _SIZES for name in (OURS, OURS_TENSOR)),
        *told,
    ]


def _placed(found: Found, ours: str, rows: int) -> str:
    rates = {
        name: statistics.median(run.load.rate for run in them) for (name, size), them in found.items() if size == rows
    }
    others = {name: rate for name, rate in rates.items() if name not in (OURS, OURS_TENSOR)}
    best = max(others, key=others.__getitem__)
    share = rates[ours] / others[best]
    return f"Requests of {rows} rows: {ours} answers {share:.2f} times as many as the fastest other ({best})."
