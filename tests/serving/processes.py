"""`stream-trainer serve` as a process of its own, over a store in a folder and a broker that nobody runs."""

import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from httpx import Client, HTTPError
from prometheus_client.parser import text_string_to_metric_families

PATIENCE = 120.0
PREFIX = "stream_trainer_serving_"


def dead_port() -> int:
    """A port of loopback on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for something that another process does."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"in {PATIENCE:g} s it did not come about that {what}"
        time.sleep(0.02)


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """The process, and where it answers."""

    process: subprocess.Popen[str]
    url: str

    def workers(self) -> list[int]:
        """The processes that it has started and that live."""
        children = psutil.Process(self.process.pid).children()
        return [child.pid for child in children if child.status() != psutil.STATUS_ZOMBIE]

    def get(self, path: str) -> tuple[int, str]:
        """Status and text, through a connection of its own; 0 when there was no answer."""
        try:
            with Client(base_url=self.url) as client:
                answer = client.get(path, timeout=30)
                return answer.status_code, answer.text
        except HTTPError:
            return 0, ""

    def metrics(self) -> dict[tuple[str, str], float]:
        """By name, without the prefix, and worker; empty when there was no answer."""
        found = {}
        for family in text_string_to_metric_families(self.get("/metrics")[1]):
            for sample in family.samples:
                found[sample.name.removeprefix(PREFIX), sample.labels.get("worker", "")] = sample.value
        return found


@contextmanager
def serve(pipeline: str, store: Path, *arguments: str, more: Mapping[str, str] | None = None) -> Iterator[Running]:
    """Start it on a free port; killed at the end, with what it has started, if it has not ended by then."""
    variables = {
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "STREAM_TRAINER_STORE__URL": str(store),
        "STREAM_TRAINER_DATA_DIR": str(store / "data"),
        "STREAM_TRAINER_KAFKA__BOOTSTRAP_SERVERS": f"127.0.0.1:{dead_port()}",
        "STREAM_TRAINER_KAFKA__REQUEST_TIMEOUT_SECONDS": "0.5",
        "STREAM_TRAINER_SERVING__POLL_SECONDS": "0.2",
        **(more or {}),
    }
    command = [sys.executable, "-m", "stream_trainer.cli", "serve", pipeline, "--port", "0", *arguments]
    process = subprocess.Popen(
        command, env={**os.environ, **variables}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    said: list[str] = []
    reader = threading.Thread(target=lambda: said.extend(process.stderr or ()))
    reader.start()
    try:
        line = process.stdout.readline()
        found = re.search(r"(http://\S+)/predict", line)
        if found is None:
            process.kill()
            reader.join()
            raise AssertionError("".join(said))
        yield Running(process=process, url=found[1])
    finally:
        _end(process)
        reader.join()
        process.stdout.close()
        process.stderr.close()


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is not None:
        return
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for member in family:
        member.kill()
    psutil.wait_procs(family, PATIENCE)
    process.wait()
