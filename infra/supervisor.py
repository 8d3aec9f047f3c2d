"""Keeps child processes running: one that dies is started again with a message; at the end all are drained.

Children run in sessions of their own, so that Ctrl-C reaches the supervisor alone and it decides the order in which
they end. Only processes that it started are ever signalled. One that is killed ends no children: they see it themselves.
"""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from stream_trainer.settings import environment

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.2
_LONGEST_PAUSE = 30.0
_STEADY_SECONDS = 60.0
# Exit codes after which starting again cannot help: usage, fenced, loss of input, damaged store.
FINAL_CODES = frozenset({2, 3, 4, 5})


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One child: its name, how to start it, and where its output goes (the supervisor's own when None).

    `arguments` may be a function: it is called at each start, so a child can be told where to go on. `descriptors` are
    inherited. With `endless`, an end without an error is a death too, and one that has run is never given up: what its
    new start stumbles over, such as a file that is just being written, must not end its healthy neighbours. With
    `watches`, the child looks for the end of the supervisor by itself and needs nobody to do so.
    """

    name: str
    module: str
    arguments: Sequence[str] | Callable[[], Sequence[str]]
    variables: Mapping[str, str] = field(default_factory=dict)
    log: Path | None = None
    drain_seconds: float = 30.0
    descriptors: Sequence[int] = ()
    endless: bool = False
    watches: bool = False


class Child:
    """A unit's running process."""

    def __init__(self, unit: Unit) -> None:
        self.unit = unit
        self.restarts = 0
        self.finished = False
        self.code = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._again_at = 0.0
        self._quick_deaths = 0
        self._asked = False

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(self) -> None:
        """Start the process."""
        command, descriptors = self._command()
        with contextlib.ExitStack() as stack:
            log = None
            if self.unit.log is not None:
                self.unit.log.parent.mkdir(parents=True, exist_ok=True)
                log = stack.enter_context(self.unit.log.open("ab"))
            self._process = subprocess.Popen(
                command,
                env={**environment(), **self.unit.variables},
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=descriptors,
            )
        self._asked = False
        self._started_at = time.monotonic()

    def _command(self) -> tuple[list[str], Sequence[int]]:
        """The command line, and the descriptors that the child inherits."""
        unit = self.unit
        words = [unit.module, *(unit.arguments() if callable(unit.arguments) else unit.arguments)]
        if unit.watches:
            return [sys.executable, "-m", *words], unit.descriptors
        watched = _alive()
        words = ["infra.supervised", str(watched), str(unit.drain_seconds), *words]
        return [sys.executable, "-m", *words], (*unit.descriptors, watched)

    def look(self) -> str | None:
        """Start it again if it has died and its pause is over; a message when there is something to say."""
        if self.finished or self._process is None:
            return None
        code = self._process.poll()
        if code is None:
            return None
        if self._again_at:
            return self._restart_when_due()
        where = f"; its log: {self.unit.log}" if self.unit.log else ""
        lived = time.monotonic() - self._started_at
        if self._is_final(code, lived):
            self.finished = True
            self.code = code
            return f"{self.unit.name} ended with exit code {code}{where}"
        self._quick_deaths = 1 if lived > _STEADY_SECONDS else self._quick_deaths + 1
        pause = min(0.5 * 2**self._quick_deaths, _LONGEST_PAUSE)
        self._again_at = time.monotonic() + pause
        return f"{self.unit.name} died ({_describe(code)}) and is started again in {pause:.0f} s{where}"

    def _is_final(self, code: int, lived: float) -> bool:
        if self.unit.endless:
            return code in FINAL_CODES and self.restarts == 0 and lived <= _STEADY_SECONDS
        return code == 0 or code in FINAL_CODES

    def _restart_when_due(self) -> str | None:
        if time.monotonic() < self._again_at:
            return None
        self._again_at = 0.0
        self.restarts += 1
        self.start()
        return f"{self.unit.name} was started again (process {self.pid})"

    def ask_to_end(self) -> None:
        """SIGTERM, without waiting, and once only: a second one would meet a process that is writing its last."""
        if self.pid is not None and self._process is not None and not self._asked:
            self._asked = True
            self._process.terminate()

    def drain(self) -> None:
        """SIGTERM unless it was asked already, wait, and SIGKILL when it does not end."""
        if self._process is None or self._process.poll() is not None:
            return
        self.ask_to_end()
        try:
            self._process.wait(self.unit.drain_seconds)
        except subprocess.TimeoutExpired:
            logger.warning("%s did not end in %.0f s and is killed", self.unit.name, self.unit.drain_seconds)
            os.killpg(self._process.pid, signal.SIGKILL)  # its session: what it started (a JVM) goes with it
            self._process.wait()


@cache
def _alive() -> int:
    """A descriptor that reads the end of file once this process is gone: the other end is nobody else's."""
    read, _ = os.pipe()
    return read


def _describe(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


class Supervisor:
    """Runs units until told to stop; drains them in the reverse of the order in which they were started."""

    def __init__(self, units: Sequence[Unit], say: Callable[[str], None] = logger.warning) -> None:
        self.children = [Child(unit) for unit in units]
        self._say = say

    def start(self) -> None:
        """Start all."""
        for child in self.children:
            child.start()

    def look(self) -> bool:
        """Restart what has died; False when a child has ended for good."""
        for child in self.children:
            message = child.look()
            if message:
                self._say(message)
        return not any(child.finished for child in self.children)

    def drain(self) -> None:
        """End all, last started first."""
        for child in reversed(self.children):
            child.drain()

    def run(self, stop: threading.Event) -> None:
        """Until `stop`, or until a child has ended for good."""
        try:
            self.start()
            while not stop.wait(_POLL_SECONDS):
                if not self.look():
                    return
        finally:
            self.drain()
