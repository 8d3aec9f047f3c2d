"""The client against a real HTTP server: what is tried again, what is not, and a service without a version."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from examples.flights.client import RETRY_SECONDS, Answer, PredictClient, PredictionFailed

INSTANCES = [{"flight_id": "a"}, {"flight_id": "b"}]
GOOD = (200, {"model_version": 7, "predictions": [{"prediction_id": x, "output": 0.25} for x in "pq"]})
NO_VERSION = (503, {"type": "about:blank", "title": "No version yet", "status": 503, "prediction_ids": ["p", "q"]})
RESTARTING = (503, {"title": "Service Unavailable"})


@dataclass
class Service:
    """Answers from a script, the last line for ever, and keeps what it was asked."""

    url: str
    script: list[tuple[int, Any]] = field(default_factory=list)
    asked: list[Any] = field(default_factory=list)


@pytest.fixture
def service() -> Iterator[Service]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            found.asked.append(json.loads(body))
            status, answer = found.script.pop(0) if len(found.script) > 1 else found.script[0]
            content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Service(f"http://127.0.0.1:{server.server_port}/predict")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


@dataclass
class FakeTime:
    now: float = 0.0
    pauses: list[float] = field(default_factory=list)

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


def ask(url: str, time: FakeTime, stopping: Callable[[], bool] = lambda: False) -> list[Answer]:
    async def go() -> list[Answer]:
        async with httpx.AsyncClient(trust_env=False) as http:
            client = PredictClient(http, url, clock=time.clock, sleep=time.sleep, stopping=stopping)
            return await client.predict(INSTANCES)

    return asyncio.run(go())


def test_one_answer_an_instance_in_order(service: Service) -> None:
    service.script = [GOOD]
    answers = ask(service.url, FakeTime())
    assert answers == [Answer("p", 7, 0.25), Answer("q", 7, 0.25)]
    assert service.asked == [{"instances": INSTANCES}]


def test_without_a_version_only_the_prediction_ids_are_known_and_nothing_is_asked_again(service: Service) -> None:
    service.script = [NO_VERSION]
    answers = ask(service.url, FakeTime())
    assert answers == [Answer("p"), Answer("q")]
    assert len(service.asked) == 1


@pytest.mark.parametrize("trouble", [RESTARTING, (500, b"oops"), (502, b"<html>"), (429, {"title": "Too many"})])
def test_a_service_in_trouble_is_asked_again(service: Service, trouble: tuple[int, Any]) -> None:
    service.script = [trouble, trouble, GOOD]
    time = FakeTime()
    assert [answer.prediction_id for answer in ask(service.url, time)] == ["p", "q"]
    assert time.pauses == [0.1, 0.2]


def test_trying_again_ends_after_ten_seconds(service: Service) -> None:
    service.script = [RESTARTING]
    time = FakeTime()
    with pytest.raises(PredictionFailed, match="503"):
        ask(service.url, time)
    assert RETRY_SECONDS - 2 <= time.now <= RETRY_SECONDS


@pytest.mark.parametrize(
    "refusal",
    [
        (422, {"title": "Unprocessable"}),
        (404, b""),
        (200, b"not json"),
        (200, {"model_version": 7, "predictions": []}),
        (200, {"model_version": None, "predictions": GOOD[1]}),
    ],
)
def test_a_refusal_or_a_broken_answer_is_not_asked_again(service: Service, refusal: tuple[int, Any]) -> None:
    service.script = [refusal]
    with pytest.raises(PredictionFailed, match=str(refusal[0])):
        ask(service.url, FakeTime())
    assert len(service.asked) == 1


def test_nobody_listening_is_tried_again_until_stopped() -> None:
    time = FakeTime()
    with pytest.raises(PredictionFailed, match="ConnectError"):
        ask("http://127.0.0.1:1/predict", time, stopping=lambda: len(time.pauses) == 3)
    assert time.pauses == [0.1, 0.2, 0.4]
