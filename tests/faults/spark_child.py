"""The train command as a process of its own, which ends, stops or loses its JVM at a stated place.

Processes are forked from one that has imported torch and pyspark, and start Spark while another one still learns: what
is left of a start is the JVM's.
"""

import multiprocessing
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Literal

import psutil
import pyarrow as pa

from stream_trainer.contract import Contract
from stream_trainer.decode import decode

SECONDS = 120.0
_PRELOADED = ["infra.training", "stream_trainer.cli", "stream_trainer.connections", "stream_trainer.trainer"]
# Children live for seconds: what the second compiler would gain, its work costs twice.
JVM_OPTIONS = {"JAVA_TOOL_OPTIONS": "-XX:TieredStopAtLevel=1"}

What = Literal["kill", "stop", "jvm", "worker"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What happens to a child, once.

    `kill` and `stop`: SIGKILL or SIGSTOP of the trainer's process at the `nth` arrival at the crash point `point`.
    `jvm` and `worker`: SIGKILL of Spark's JVM or of a Python worker while that worker decodes a micro-batch.
    """

    what: What
    point: str = ""
    nth: int = 1

    def __str__(self) -> str:
        return f"{self.what} at {self.point or 'decoding'} {self.nth}"


class SparkChild:
    """A trainer that waits for `go` with its Spark started."""

    def __init__(
        self,
        arguments: Sequence[str],
        variables: Mapping[str, str],
        folder: Path,
        fault: Fault | None = None,
    ) -> None:
        self.fault = fault
        self.log = folder / f"child-{len(list(folder.glob('child-*.log')))}.log"
        self.log.touch()
        theirs, self._go = _context().Pipe(duplex=False)
        told = {**JVM_OPTIONS, **variables, "TMPDIR": str(folder)}
        self._process: BaseProcess = _context().Process(
            target=_child, args=(list(arguments), told, fault, self.log, theirs), daemon=True
        )
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process.pid is not None
        return self._process.pid

    def go(self) -> None:
        """Let it train."""
        self._go.send(None)

    def wait(self, seconds: float = SECONDS) -> int:
        """Its exit code; negative for a signal."""
        self._process.join(seconds)
        code = self._process.exitcode
        assert code is not None, f"{self.fault or 'the child'} did not end within {seconds} s:\n{self.said()}"
        return code

    def run(self) -> int:
        """Let it train, and wait for its end."""
        self.go()
        return self.wait()

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.is_alive()

    @property
    def stopped(self) -> bool:
        """Whether SIGSTOP has reached it."""
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(self.pid).status() == psutil.STATUS_STOPPED
        return False

    def send(self, number: signal.Signals) -> None:
        """Signal it."""
        os.kill(self.pid, number)

    def said(self) -> str:
        """What it wrote to both outputs."""
        return self.log.read_text(errors="replace")

    def end(self) -> None:
        """Kill it if it lives, and wait until what it started is gone too."""
        started = [] if not self.running else psutil.Process(self.pid).children(recursive=True)
        with suppress(ValueError):
            self._process.kill()
            self._process.join(SECONDS)
        _, left = psutil.wait_procs(started, timeout=SECONDS)
        assert not left, f"left behind by {self.fault or 'the child'}: {left}"


@cache
def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    return context


def _child(
    arguments: Sequence[str], variables: Mapping[str, str], fault: Fault | None, log: Path, go: Connection
) -> None:
    os.setsid()
    with log.open("ab", 0) as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    os.environ.update(variables)
    tempfile.tempdir = variables["TMPDIR"]
    if fault is not None:
        _arm(fault, log.with_suffix(".done"))
    from infra import training
    from stream_trainer import cli

    load = training._load
    training._load = lambda address: (load(address), go.recv())[0]
    sys.argv = ["stream-trainer", *arguments]
    cli.main()


def _arm(fault: Fault, once: Path) -> None:
    if fault.what in ("kill", "stop"):
        from stream_trainer import crashpoints
        from stream_trainer.testing.crash import _at

        number = signal.SIGKILL if fault.what == "kill" else signal.SIGSTOP
        # To the thread that gets there: sent to the process, another thread may take it while this one goes on.
        crashpoints.watch(_at(fault.point, fault.nth, lambda: signal.pthread_kill(threading.get_ident(), number)))
    else:
        from stream_trainer import query

        query.decode = partial(decode_and_kill, once=once, what=fault.what)  # type: ignore[attr-defined]


def decode_and_kill(contract: Contract, batch: pa.RecordBatch, *, once: Path, what: What) -> pa.RecordBatch:
    """Runs in Spark's Python worker: its parent is the daemon, whose parent is the JVM."""
    try:
        once.touch(exist_ok=False)
    except FileExistsError:
        return decode(contract, batch)
    worker = psutil.Process()
    if what == "jvm":
        jvm = worker.parents()[1]
        assert jvm.name() == "java", worker.parents()
        jvm.kill()
    worker.kill()
    raise AssertionError("nobody gets here")
