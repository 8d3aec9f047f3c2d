"""Ends a local broker whose owner was killed, once nobody uses it any more.

`python -m infra.broker_guard FOLDER PID`, with a standard input that the owner alone holds open: a byte says that the
broker has ended, the end of it that the owner has. Java cannot look for that by itself.
"""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil

_LOOKS = 600
_POLL_SECONDS = 0.1


def main(folder: str, pid: str) -> None:
    """Wait for the end of the owner, then for that of the broker's clients, a minute at most."""
    if sys.stdin.buffer.read(1):
        return
    import psutil  # noqa: PLC0415 - almost never needed: what only waits stays small

    from infra import broker  # noqa: PLC0415

    found = broker.status(Path(folder))
    if found is None or found.pid != int(pid):
        return
    for _ in range(_LOOKS):
        try:
            if not _clients(psutil.Process(found.pid), found.port):
                break
        except psutil.Error:
            break
        time.sleep(_POLL_SECONDS)
    broker.stop(Path(folder), only=found.pid)


def _clients(process: "psutil.Process", port: int) -> bool:
    """Whether anyone but the broker itself is connected to its port."""
    found = process.net_connections("tcp")
    own = {connection.laddr.port for connection in found}
    return any(c.laddr.port == port and c.raddr and c.raddr.port not in own for c in found)


if __name__ == "__main__":
    main(*sys.argv[1:])
