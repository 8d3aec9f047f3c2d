"""What happens around the service while it goes on: F32 to F35. F31 is in `test_follower.py`, F36 in `test_workers.py`."""

import asyncio
import logging
import shutil
import signal
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from confluent_kafka import Producer
from fastapi import FastAPI
from httpx import Client
from starlette.types import Receive, Scope, Send

from infra import broker as local_broker
from infra.broker import BrokerInfo
from infra.jars import ensure_jars
from infra.java import find_java
from serving import body
from serving.metrics import Metrics
from serving.prediction_log import PredictionLog, kafka_producer
from stream_trainer.errors import StoreUnavailable
from stream_trainer.kafka import Admin, topic_plans
from stream_trainer.settings import KafkaSettings, Settings
from stream_trainer.store import ModelStore
from stream_trainer.store.storage import LocalStorage
from tests.serving.fixtures import CONTRACT, PIPELINE, ROWS, Harness, app_of, commit_version, learned_state, serving
from tests.serving.held import HOLD_AT, PIPELINE_HELD, Held
from tests.serving.processes import PATIENCE, dead_port, serve, until

RESET = struct.pack("ii", 1, 0)


@pytest.fixture
def serves(harness: Harness) -> Harness:
    """A harness whose version 1 serves."""
    commit_version(harness.store, PIPELINE, learned_state())
    harness.follower.look()
    return harness


# F32


@pytest.mark.parametrize("error", [StoreUnavailable("the store does not answer"), RuntimeError("a bug")], ids=repr)
def test_f32_an_hour_without_the_store_is_served_through_and_told(
    serves: Harness, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    real = serves.store.alias_entry

    def gone(name: str) -> Any:
        raise error

    monkeypatch.setattr(serves.store, "alias_entry", gone)
    with serving(app_of(serves)) as client:
        for minute in range(1, 61):
            serves.clock.advance(60)
            serves.seconds += 60
            with pytest.raises(type(error)):
                serves.follower.step()
            if minute % 20:
                continue
            assert client.post("/predict", json={"instances": ROWS}).json()["staleness_seconds"] == 60 * minute - 1
            ready = client.get("/health/ready")
            assert (ready.status_code, ready.json()["staleness_seconds"]) == (200, 60 * minute - 1)
            assert serves.metric("staleness_seconds") == 60 * minute - 1
        monkeypatch.setattr(serves.store, "alias_entry", real)
        covered = commit_version(serves.store, PIPELINE, learned_state(seed=1), covered_at=serves.clock())
        serves.follower.step()
        assert client.get("/health/ready").json() == {
            "status": "ready",
            "model_name": "flights",
            "model_version": covered.number,
            "staleness_seconds": 0.0,
        }


def test_f32_what_kafka_says_counts_while_the_store_does_not_answer(
    serves: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(name: str) -> Any:
        raise StoreUnavailable("the store does not answer")

    served = serves.follower.served
    assert served is not None
    version = serves.store.read(served.number)
    monkeypatch.setattr(serves.store, "alias_entry", gone)
    for _ in range(3):
        serves.clock.advance(60)
        serves.seconds += 60  # a look at the store is due each time
        serves.source.push(version, serves.clock(), covered_at=serves.clock())
        with pytest.raises(StoreUnavailable):
            serves.follower.step()
        assert serves.follower.staleness() == 0.0


def test_f32_the_thread_outlives_whatever_its_store_raises(serves: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.follower._BACKOFF_SECONDS", (0.001,))
    real, failures = serves.store.alias_entry, iter([MemoryError(), OSError(5, "input/output"), KeyError("alias")])

    def sometimes(name: str) -> Any:
        for failure in failures:
            raise failure
        return real(name)

    monkeypatch.setattr(serves.store, "alias_entry", sometimes)
    commit_version(serves.store, PIPELINE, learned_state(seed=1))
    serves.follower.start()
    until(lambda: serves.version == 2, "the next version serves")
    serves.follower.stop()
    assert serves.metric("follower_errors_total", kind="store") == 1
    assert serves.metric("follower_errors_total", kind="repeated") == 2


def test_f32_ready_may_be_bounded_by_staleness(store: ModelStore) -> None:
    bounded = Harness(store, max_staleness_seconds=30)
    commit_version(store, PIPELINE, learned_state())
    bounded.follower.look()
    with serving(app_of(bounded)) as client:
        for advance, status, expected in ((31, 200, {"status": "ready"}), (1, 503, {"reason": "too_stale"})):
            bounded.clock.advance(advance)
            answer = client.get("/health/ready")
            assert answer.status_code == status
            assert expected.items() <= answer.json().items()
            assert answer.json()["model_version"] == 1
        assert client.post("/predict", json={"instances": ROWS}).status_code == 200


# F33


def test_f33_killed_in_the_middle_of_a_swap_it_starts_with_what_the_store_has(tmp_path: Path) -> None:
    held, stored, empty = (tmp_path / name for name in ("held", "stored", "empty"))
    held.mkdir()
    store = ModelStore(LocalStorage(stored), PIPELINE.name)
    commit_version(store, PIPELINE, learned_state())
    with serve("tests.serving.held:PIPELINE_HELD", stored, more={HOLD_AT: str(held)}) as running:
        until(lambda: running.get("/health/ready")[0] == 200, "version 1 serves")
        (held / "wanted").touch()
        commit_version(store, PIPELINE, learned_state(seed=1))
        until((held / "reached").exists, "version 2 is being checked")
        assert _predicted(running.url) == (200, 1)
        running.process.send_signal(signal.SIGKILL)
        running.process.wait()
    with serve("tests.serving.held:PIPELINE_HELD", empty) as running:
        until(lambda: running.get("/health/live")[0] == 200, "it lives")
        assert running.get("/health/ready")[0] == 503
        assert _predicted(running.url) == (503, "no_version")
        shutil.copytree(stored / PIPELINE.name, empty / PIPELINE.name, dirs_exist_ok=True)
        until(lambda: running.get("/health/ready")[0] == 200, "the champion serves")
        assert _predicted(running.url) == (200, 2)


def _predicted(url: str) -> tuple[int, Any]:
    with Client(base_url=url, timeout=30) as client:
        answer = client.post("/predict", json={"instances": ROWS})
        return answer.status_code, answer.json().get("model_version", answer.json().get("reason"))


# F34


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[BrokerInfo]:
    """A real Kafka that nobody else uses, so that it may be stopped."""
    settings = Settings()
    java = find_java(settings.cache_dir)
    yield local_broker.start(tmp_path / "broker", java, ensure_jars(settings, "kafka"), detach=False)
    local_broker.stop(tmp_path / "broker")


def _total(metrics: Metrics, name: str) -> float:
    families = [family for family in metrics.registry.collect() if family.name == f"stream_trainer_serving_{name}"]
    return sum(s.value for family in families for s in family.samples if s.name.endswith("_total"))


def _settled(log: PredictionLog, metrics: Metrics) -> bool:
    """Whether nothing waits any more, and each accepted row was counted once."""
    counted = _total(metrics, "prediction_log_sent") + _total(metrics, "prediction_log_dropped")
    return log._waiting == 0 and counted == _total(metrics, "rows")


def _ask(client: Client, times: int, log: PredictionLog, bound: int) -> None:
    for _ in range(times):
        assert client.post("/predict", json={"instances": ROWS}).status_code == 200
        assert log._waiting <= bound


@pytest.mark.spark
def test_f34_requests_go_on_while_the_broker_is_stopped_and_the_log_recovers(
    serves: Harness, own_broker: BrokerInfo
) -> None:
    settings = Settings(kafka=KafkaSettings(bootstrap_servers=own_broker.bootstrap_servers))
    with Admin(settings.kafka) as admin:
        admin.create_missing([topic_plans("flights", settings.kafka)["predictions"]])
    bound = 40
    log = PredictionLog(CONTRACT, "flights.predictions", kafka_producer(settings), serves.metrics, max_rows=bound)
    log.start()
    broker = psutil.Process(own_broker.pid)
    with serving(app_of(serves, log=log)) as client:
        try:
            _ask(client, 1, log, bound)
            until(lambda: _total(serves.metrics, "prediction_log_sent") == 8, "the first rows are written")
            broker.suspend()
            _ask(client, 30, log, bound)
            assert serves.metric("prediction_log_dropped_total", reason="queue_full") == 30 * 8 - bound
        finally:
            broker.resume()
        until(lambda: _settled(log, serves.metrics), "what waited is written or dropped")
        _ask(client, 1, log, bound)
    log.close(20)
    assert _settled(log, serves.metrics)


def test_f34_requests_go_on_without_any_broker(serves: Harness) -> None:
    options = {"bootstrap.servers": f"127.0.0.1:{dead_port()}", "message.timeout.ms": 200}
    producer = Producer(options | {"queue.buffering.max.messages": 20, "logger": logging.getLogger("librdkafka")})
    log = PredictionLog(CONTRACT, "flights.predictions", producer, serves.metrics, max_rows=30)
    log.start()
    with serving(app_of(serves, log=log)) as client:
        _ask(client, 30, log, 30)
        until(lambda: _settled(log, serves.metrics), "all is dropped")
    log.close()
    assert serves.metric("prediction_log_dropped_total", reason="delivery") > 0
    assert serves.metric("prediction_log_dropped_total", reason="queue_full") > 0
    assert _total(serves.metrics, "prediction_log_dropped") == 30 * 8


# F35


class Watched:
    """An application whose loop is known, so that its tasks can be counted."""

    def __init__(self, app: FastAPI) -> None:
        self.app = app
        self.loop: asyncio.AbstractEventLoop | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.loop = asyncio.get_running_loop()
        await self.app(scope, receive, send)

    def held(self) -> tuple[int, int]:
        """Tasks of the loop, and descriptors of the process."""
        assert self.loop is not None
        return len(asyncio.all_tasks(self.loop)), psutil.Process().num_fds()


Act = Callable[[socket.socket], None]
HEAD = b"POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100000\r\n\r\n"
ASKS = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n" * 20
ACTS: dict[str, Act] = {
    "says nothing": lambda _: None,
    "half a head": lambda connection: connection.sendall(HEAD[:30]),
    "half a body": lambda connection: connection.sendall(HEAD + b" " * 500),
    "half a body, then a reset": lambda connection: _reset(connection, HEAD + b" " * 500),
    "many answers unread": lambda connection: connection.sendall(ASKS),
    "many answers unread, then a reset": lambda connection: _reset(connection, ASKS),
    "half closed": lambda connection: _half_close(connection, HEAD),
}


def _half_close(connection: socket.socket, content: bytes) -> None:
    connection.sendall(content)
    connection.shutdown(socket.SHUT_WR)


def _reset(connection: socket.socket, content: bytes) -> None:
    connection.sendall(content)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


def test_f35_clients_that_leave_leave_nothing_behind(serves: Harness) -> None:
    watched = Watched(app_of(serves))
    with serving(watched) as client:
        address = (client.base_url.host, client.base_url.port)
        client.post("/predict", json={"instances": ROWS})
        before = watched.held()
        for _ in range(10):
            connections = [(socket.create_connection(address), act) for act in ACTS.values() for _ in range(15)]
            for connection, act in connections:
                act(connection)
            assert client.post("/predict", json={"instances": ROWS}).status_code == 200
            for connection, _ in connections:
                connection.close()
        until(lambda: all(now <= then for now, then in zip(watched.held(), before, strict=True)), "all is given back")
        assert client.post("/predict", json={"instances": ROWS}).status_code == 200
    assert serves.metric("requests_total", outcome="disconnected") > 0


def test_f35_a_body_that_never_ends_is_given_up_and_a_slow_one_is_answered(
    serves: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = b'{"instances": [{"distance": 1, "carrier": "AA"}]}'
    head = HEAD.replace(b"100000", str(len(content)).encode())
    with serving(app_of(serves)) as client:
        address = (client.base_url.host, client.base_url.port)
        with socket.create_connection(address) as slow:
            slow.sendall(head)
            for byte in content:
                slow.sendall(bytes([byte]))
                if byte == ord(":"):
                    assert client.post("/predict", json={"instances": ROWS}).status_code == 200
            assert slow.recv(100).startswith(b"HTTP/1.1 200")
        monkeypatch.setattr(body, "BODY_SECONDS", 0.05)
        with socket.create_connection(address) as stuck:
            stuck.sendall(head + content[:-1])
            assert stuck.recv(100).startswith(b"HTTP/1.1 408")
            while stuck.recv(4096):
                pass


def test_f35_a_client_that_leaves_while_it_waits_is_not_computed(store: ModelStore) -> None:
    learner = Held()
    harness = Harness(store, replace(PIPELINE_HELD, learner=learner))
    commit_version(store, PIPELINE, learned_state())
    harness.follower.look()
    learner.gate.clear()
    with serving(app_of(harness)) as client:
        first = threading.Thread(target=lambda: client.post("/predict", json={"instances": ROWS[:1]}))
        first.start()
        assert learner.entered.wait(PATIENCE)
        with Client(base_url=client.base_url) as leaving:
            gone = threading.Thread(target=_leave, args=(leaving, harness))
            gone.start()
            gone.join()
        until(lambda: harness.metric("queue_rows") == 0, "the queue is empty")
        learner.gate.set()
        first.join()
        assert client.post("/predict", json={"instances": ROWS[:2]}).status_code == 200
    assert 5 not in learner.rows
    assert harness.metric("requests_total", outcome="disconnected") == 1
    assert harness.metric("rows_total") == 3


def _leave(client: Client, harness: Harness) -> None:
    content = client.build_request("POST", "/predict", json={"instances": ROWS[:5]}).read()
    with socket.create_connection((client.base_url.host, client.base_url.port)) as connection:
        connection.sendall(HEAD.replace(b"100000", str(len(content)).encode()) + content)
        until(lambda: harness.metric("queue_rows") == 5, "the request waits")
