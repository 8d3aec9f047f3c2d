"""`wrk` as the load generator: 50 connections that each ask again as soon as they were answered."""

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stream_trainer.errors import UsageError

CONNECTIONS = 50
_SCRIPT = Path(__file__).with_name("predict.lua")


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What came out. Latencies in milliseconds; `refused`: answers other than 2xx; `broken`: errors of sockets."""

    requests: int
    rate: float
    p50: float
    p99: float
    refused: int
    broken: int


def require() -> None:
    """Make sure that wrk is there.

    Raises:
        UsageError: it is not.
    """
    if shutil.which("wrk") is None:
        raise UsageError("wrk is missing: install it (Debian, Ubuntu: apt install wrk; macOS: brew install wrk)")


def run(url: str, bodies: Path, seconds: float, authorization: str | None = None) -> Load:
    """Ask for so long; `bodies` holds one request's body a line."""
    variables = dict(os.environ)
    variables |= {"BENCH_AUTHORIZATION": authorization} if authorization else {}
    done = subprocess.run(_command(url, bodies, seconds), env=variables, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"wrk failed: {done.stderr or done.stdout}")
    found = json.loads(done.stdout.splitlines()[-1])
    return Load(
        requests=found["requests"],
        rate=found["requests"] / found["microseconds"] * 1e6,
        p50=found["p50"] / 1000,
        p99=found["p99"] / 1000,
        refused=found["status"],
        broken=found["socket"],
    )


def _command(url: str, bodies: Path, seconds: float) -> Sequence[str]:
    load = ["-t1", f"-c{CONNECTIONS}", f"-d{seconds:.0f}s", "--latency", "--timeout", "10s"]
    return ["wrk", *load, "-s", str(_SCRIPT), url, "--", str(bodies)]
