"""A local single-node Apache Kafka (KRaft) for development and tests: on loopback, without Docker or a Kafka install.

It outlives the process that starts it unless told otherwise, is found again through its state file, and is only ever
stopped by a process id that was verified to be this Kafka. Never for production: one node, no authentication.
"""

import base64
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from infra import broker_files as files
from infra.broker_files import BrokerInfo, State
from infra.broker_probe import round_trip
from infra.filelock import exclusive
from infra.java import Java
from stream_trainer.errors import BrokerUnavailable, SetupError

__all__ = ["BrokerInfo", "start", "status", "stop"]

_HEAP = ["-Xms96m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:ReservedCodeCacheSize=64m", "-XX:+ExitOnOutOfMemoryError"]
_POLL_SECONDS = 0.1
_STOP_SECONDS = 20.0
_FORMAT_SECONDS = 60.0
_LOG_TAIL_LINES = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class _Own:
    """A broker that this process has started: with the handle a dead one is reaped instead of staying a zombie."""

    process: subprocess.Popen[bytes]
    guard: subprocess.Popen[bytes] | None

    def release(self) -> None:
        """The broker is gone: nobody has to end it any more."""
        if self.guard is not None and self.guard.stdin is not None:
            with contextlib.suppress(OSError), self.guard.stdin as told:
                told.write(b".")
            self.guard.wait()


_children: dict[int, _Own] = {}


def start(
    folder: Path, java: Java, jars: Sequence[Path], *, wait_seconds: float = 60.0, detach: bool = True
) -> BrokerInfo:
    """The broker of `folder`, started if it does not run; returns once a record was written and read back.

    `detach` gives it a session of its own, so that it outlives the terminal; without, it stays in ours but still does
    not receive Ctrl-C, so that its owner can drain before calling `stop`. It ends soon after an owner that was killed.

    Raises:
        SetupError: the folder is not usable, or Kafka ended at start (with the last lines of its log).
        BrokerUnavailable: it runs but did not answer within `wait_seconds`; it has been stopped again.
    """
    folder = folder.absolute()
    with exclusive(folder / ".lock", wait_seconds=wait_seconds + _FORMAT_SECONDS):
        state = files.read_state(folder)
        if state is not None and files.running_process(folder, state):
            return files.info(folder, state)
        formatted = files.check_folder(folder)
        state = files.choose_ports(state)
        if not formatted:
            _format(folder, java, jars, state)
        state = _launch(folder, java, jars, state, detach=detach)
        try:
            _await_ready(folder, state, wait_seconds)
        except BaseException:
            _end(folder, state)
            raise
        return files.info(folder, state)


def status(folder: Path) -> BrokerInfo | None:
    """The broker that runs on `folder`, or None."""
    folder = folder.absolute()
    state = files.read_state(folder)
    return files.info(folder, state) if state is not None and files.running_process(folder, state) else None


def stop(folder: Path, only: int | None = None) -> bool:
    """Stop the broker of `folder`, `only` the one with this process id: SIGTERM, then SIGKILL after 20 s. False when none runs."""
    folder = folder.absolute()
    state = files.read_state(folder)
    return state is not None and only in (None, state.pid) and _end(folder, state)


def _format(folder: Path, java: Java, jars: Sequence[Path], state: State) -> None:
    """Format beside the final place and rename: an interrupted format leaves nothing that looks like data."""
    draft = folder / "data.new"
    shutil.rmtree(draft, ignore_errors=True)
    configuration = files.write_configuration(folder, state, data=draft)
    command = _java(folder, java, jars, ["-Xmx128m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"])
    command += ["kafka.tools.StorageTool", "format", "--standalone"]
    command += [f"--cluster-id={_new_cluster_id()}", "--config", str(configuration)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_FORMAT_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise SetupError(f"Kafka did not format {draft} within {_FORMAT_SECONDS:.0f} s") from error
    if done.returncode != 0:
        raise SetupError(f"Kafka could not format {draft}: {(done.stderr or done.stdout).strip()}")
    draft.replace(folder / "data")


def _new_cluster_id() -> str:
    """A random UUID as Kafka writes it: 22 characters of URL-safe base64."""
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")


def _launch(folder: Path, java: Java, jars: Sequence[Path], state: State, *, detach: bool) -> State:
    configuration = files.write_configuration(folder, state, data=folder / "data")
    command = [*_java(folder, java, jars, _HEAP), "kafka.Kafka", str(configuration)]
    with (folder / "logs" / "console.log").open("wb") as console:
        child = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
            start_new_session=detach,
            process_group=None if detach else 0,
        )
    for gone in [pid for pid, earlier in _children.items() if earlier.process.poll() is not None]:
        _children.pop(gone).release()
    _children[child.pid] = _Own(process=child, guard=None if detach else _guarded(folder, child.pid))
    created = psutil.Process(child.pid).create_time()
    state = State(port=state.port, controller_port=state.controller_port, pid=child.pid, created=created)
    files.write_state(folder, state)
    return state


def _guarded(folder: Path, pid: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "infra.broker_guard", str(folder), str(pid)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)


def _java(folder: Path, java: Java, jars: Sequence[Path], options: Sequence[str]) -> list[str]:
    logging = f"-Dlog4j2.configurationFile={(folder / 'log4j2.properties').as_uri()}"
    classpath = os.pathsep.join(str(jar) for jar in jars)
    return [str(java.executable), *options, logging, "-Djava.awt.headless=true", "-cp", classpath]


def _await_ready(folder: Path, state: State, wait_seconds: float) -> None:
    """Wait until the port accepts connections, then write a record and read it back."""
    deadline = time.monotonic() + wait_seconds
    while not _accepts(state.port):
        if _children[state.pid or 0].process.poll() is not None:
            raise SetupError(f"Kafka ended at start. The last lines of its log:\n{_log_tail(folder)}")
        if time.monotonic() > deadline:
            raise BrokerUnavailable(
                f"Kafka on port {state.port} did not answer within {wait_seconds:.0f} s; it was stopped."
                f" The last lines of its log:\n{_log_tail(folder)}"
            )
        time.sleep(_POLL_SECONDS)
    round_trip(f"127.0.0.1:{state.port}", max(deadline - time.monotonic(), 1.0))


def _accepts(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1.0):
        return True
    return False


def _log_tail(folder: Path) -> str:
    """The last lines of what the JVM and what Kafka wrote."""
    lines = []
    for name in ("broker.log", "console.log"):
        with contextlib.suppress(OSError):
            lines += (folder / "logs" / name).read_text(errors="replace").splitlines()[-_LOG_TAIL_LINES:]
    return "\n".join(lines) or "(nothing was logged)"


def _end(folder: Path, state: State) -> bool:
    """End the verified process, wait until it is gone, and note so in the state file."""
    own = _children.pop(state.pid or 0, None)
    child = None if own is None else own.process
    process = files.running_process(folder, state)
    if process is None and child is not None and child.poll() is None:
        process = psutil.Process(child.pid)  # our own child needs no proof; right after its start it has no name yet
    if process is not None:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait(_STOP_SECONDS)
    if own is not None:
        own.process.wait(_STOP_SECONDS)
        own.release()
    files.write_state(folder, State(port=state.port, controller_port=state.controller_port))
    return process is not None
