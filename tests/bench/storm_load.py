"""`python -m tests.bench.storm_load PORT BODIES OUT EVERY`: 50 clients in a process of their own, until SIGTERM.

`BODIES` holds one request's body a line; the journal is written to `OUT`, a file of NumPy's. `EVERY`: seconds
from a client's request to its next one; 0: as soon as it was answered.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path

import numpy as np
import uvloop

from tests.bench.clients import Crowd, columns, request

CLIENTS = 50


def main(port: int, bodies: Path, out: Path, every: float) -> None:
    """Ask until told to stop, then say what was answered."""
    key = os.environ.get("BENCH_AUTHORIZATION")
    requests = [request(port, body, key) for body in bodies.read_bytes().splitlines()]
    crowd = Crowd(port, requests, CLIENTS, every=every)

    async def ask() -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, crowd.stop)
        await crowd.ask()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(ask())
    np.savez(out, **columns(crowd.journal))


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), float(sys.argv[4]))
