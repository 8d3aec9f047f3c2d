"""Several workers on one port: each scrape tells of all of them, they converge, and one that dies is started again."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from httpx import Client
from prometheus_client.parser import text_string_to_metric_families

from serving.metrics import Metrics
from serving.workers import Peers, Worker
from stream_trainer.store import ModelStore
from tests.serving.fixtures import PIPELINE, ROWS, commit_version, learned_state
from tests.serving.processes import PATIENCE, Running, serve, until

ADDRESS = "tests.serving.fixtures:PIPELINE"
SKEW = "stream_trainer_serving_version_skew"


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short: the path of a socket has about a hundred characters."""
    path = Path(tempfile.mkdtemp(prefix="st-"))
    yield path
    shutil.rmtree(path)


def worker(folder: Path, index: int, count: int = 2) -> Worker:
    return Worker(index=index, count=count, listeners=(0,), parent=0, folder=folder)


def samples(peers: Peers) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    families = list(text_string_to_metric_families(asyncio.run(peers.render()).decode()))
    assert len({family.name for family in families}) == len(families)
    found = [sample for family in families for sample in family.samples]
    assert len({(sample.name, frozenset(sample.labels.items())) for sample in found}) == len(found)
    return {(sample.name, frozenset(sample.labels.items())): sample.value for sample in found}


def test_a_worker_is_what_its_command_line_says(tmp_path: Path) -> None:
    told = Worker(index=1, count=3, listeners=(7, 8), parent=9, folder=tmp_path / "a:b")
    assert Worker.parse(str(told)) == told


def test_whoever_is_asked_tells_of_all_workers_and_of_their_skew(folder: Path) -> None:
    metrics = [Metrics(), Metrics()]
    peers = [Peers(worker(folder, index), metrics[index]) for index in (0, 1)]
    for index, one in enumerate(peers):
        one.start()
        metrics[index].model_version.set(5 + 2 * index)
        metrics[index].requests.labels("answered").inc(10 + index)
        metrics[index].staleness.set(float("nan"))
        metrics[index].request_seconds.observe(0.1)
    try:
        told = samples(peers[0])
        assert told.keys() == samples(peers[1]).keys()
        assert told[SKEW, frozenset()] == 2
        for index in (0, 1):
            labels = {("worker", str(index)), ("outcome", "answered")}
            assert told["stream_trainer_serving_requests_total", frozenset(labels)] == 10 + index
        peers[1].stop()
        alone = samples(peers[0])
        assert alone["stream_trainer_serving_workers", frozenset()] == 1
        assert alone[SKEW, frozenset()] == 0
        assert not [labels for _, labels in alone if ("worker", "1") in labels]
        again = Peers(worker(folder, 1), Metrics())
        again.start()
        assert samples(peers[0])["stream_trainer_serving_workers", frozenset()] == 2
        again.stop()
    finally:
        peers[0].stop()


def test_a_worker_that_has_no_version_yet_is_no_skew(folder: Path) -> None:
    metrics = [Metrics(), Metrics()]
    peers = [Peers(worker(folder, index), metrics[index]) for index in (0, 1)]
    peers[1].start()
    try:
        assert samples(peers[0])[SKEW, frozenset()] == 0
        metrics[0].model_version.set(42)
        assert samples(peers[0])[SKEW, frozenset()] == 0
        metrics[1].model_version.set(40)
        assert samples(peers[0])[SKEW, frozenset()] == 2
    finally:
        peers[1].stop()


def test_a_worker_ends_when_its_parent_is_gone(folder: Path) -> None:
    code = (
        "import pathlib, sys, time; from serving.workers import Worker\n"
        "worker = Worker(index=0, count=2, listeners=(0,), parent=int(sys.argv[1]), folder=pathlib.Path())\n"
        "worker.end_with_parent(); print('waits', flush=True); time.sleep(600)"
    )
    alive, held = os.pipe()
    command = [sys.executable, "-c", code, str(alive)]
    with subprocess.Popen(command, pass_fds=[alive], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        os.close(alive)
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"waits\n"
            os.close(held)
            assert process.wait(PATIENCE) == -signal.SIGTERM
        finally:
            process.kill()


def test_f36_workers_converge_and_one_that_is_killed_is_started_again(store: ModelStore, tmp_path: Path) -> None:
    commit_version(store, PIPELINE, learned_state())
    with serve(ADDRESS, tmp_path, "--workers", "2") as running:
        until(lambda: _serve_all(running, 1), "both workers serve version 1")
        commit_version(store, PIPELINE, learned_state(seed=1))
        until(lambda: _serve_all(running, 2), "both workers serve version 2")
        first = running.workers()
        assert len(first) == 2
        os.kill(first[0], signal.SIGKILL)
        for _ in range(20):
            with Client(base_url=running.url) as client:
                answer = client.post("/predict", json={"instances": ROWS}, timeout=30)
                assert (answer.status_code, answer.json()["model_version"]) == (200, 2)
        until(lambda: _serve_all(running, 2), "the killed worker serves again")
        assert first[0] not in running.workers()
        assert first[1] in running.workers()
        last = running.workers()
        running.process.terminate()
        assert running.process.wait(PATIENCE) == 0
        for pid in last:
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)


def _serve_all(running: Running, number: int) -> bool:
    found = running.metrics()
    each = [(found.get(("model_version", i)), found.get(("champion_version", i))) for i in ("0", "1")]
    return found.get(("workers", "")) == 2 and found["version_skew", ""] == 0 and each == [(number, number)] * 2
