"""A process that has imported torch and forks the lives of trainers: a life costs a fork, not an import.

It reads one life a line from standard input and answers with how each ended: the exit code, or minus the signal.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import IO, Self

from stream_trainer import crashpoints
from tests.faults.scenario import Life, live

SECONDS = 60


class Nursery:
    """The parent's side. One life at a time; use several nurseries for several at once."""

    def __init__(self, log: Path) -> None:
        self._log = log.open("ab")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.nursery"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            cwd=Path(__file__).parents[2],
        )

    def run(self, life: Life) -> int:
        """How the life ended: 0, an exit code, or minus the number of the signal."""
        stdin, stdout = self._pipes()
        stdin.write(json.dumps(asdict(life)).encode() + b"\n")
        stdin.flush()
        return int(stdout.readline())

    def close(self) -> None:
        """End the process."""
        stdin, stdout = self._pipes()
        stdin.close()
        self._process.wait(SECONDS)
        stdout.close()
        self._log.close()

    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        return self._process.stdin, self._process.stdout

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _serve() -> None:
    _warm_up()
    for line in sys.stdin:
        fields = json.loads(line)
        kill = fields.pop("kill")
        life = Life(**fields, kill=tuple(kill) if kill else None)
        pid = os.fork()
        if pid == 0:
            _die_after(life)
        _, status = os.waitpid(pid, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


def _die_after(life: Life) -> None:
    """The child: it never returns."""
    signal.alarm(life.seconds)
    code = 1
    try:
        live(life)
        code = 0
    except BaseException as error:  # noqa: BLE001 - the exit code tells the parent
        traceback.print_exc()
        code = getattr(error, "exit_code", 1)
    finally:
        sys.stderr.flush()
        os._exit(code)


def _warm_up() -> None:
    """One whole life in the parent: what torch, pandas and Arrow import at first use is paid once."""
    with tempfile.TemporaryDirectory() as folder:
        live(Life(folder=folder, seed=0))
    crashpoints.watch(None)


if __name__ == "__main__":
    _serve()
