"""The end of the service: nothing that is signalled then, and no part that hangs, costs a prediction's record."""

import contextlib
import inspect
import os
import signal
from pathlib import Path
from typing import Any

from httpx import Client
from starlette.applications import Starlette

from infra import units, workers
from serving import ports
from serving.follower import Follower
from serving.metrics import Metrics
from serving.ports import Server, config_of, signals_restored
from serving.prediction_log import PredictionLog
from serving.server import _Parts
from serving.shadow import Shadow
from serving.tracing import Tracing
from serving.trial import Trial
from stream_trainer.settings import ServingSettings
from stream_trainer.store import ModelStore
from tests.serving.fixtures import PIPELINE, ROWS, commit_version, learned_state
from tests.serving.processes import PATIENCE, serve, until

ADDRESS = "tests.serving.fixtures:PIPELINE"
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def test_signals_are_ignored_from_the_servers_end_until_all_has_ended() -> None:
    server = Server(config_of(Starlette(), ServingSettings(), Metrics()), lambda: None)
    before = [signal.getsignal(number) for number in SIGNALS]
    with signals_restored(), contextlib.ExitStack() as stack:
        for number in SIGNALS:
            stack.callback(os.kill, os.getpid(), number)
        with server.capture_signals():
            os.kill(os.getpid(), signal.SIGTERM)
            assert server.should_exit
        assert {signal.getsignal(number) for number in SIGNALS} == {signal.SIG_IGN}
    assert [signal.getsignal(number) for number in SIGNALS] == before


class Part:
    """Whatever begins and ends; notes when it does."""

    def __init__(self, name: str, noted: list[str]) -> None:
        self._name = name
        self._noted = noted

    def start(self) -> None:
        self._noted.append(f"{self._name} begins")

    def stop(self) -> None:
        self._noted.append(f"{self._name} ends")

    close = stop

    def on_swap(self, listener: object) -> None:
        pass

    def swapped(self) -> None:
        pass


def test_the_prediction_log_ends_before_all_that_may_take_its_time() -> None:
    noted: list[str] = []
    names = ("metrics", "log", "labels", "source", "store", "follower", "trial", "tracing", "keys", "peers")
    given: dict[str, Any] = {name: Part(name, noted) for name in names}
    with contextlib.ExitStack() as stack:
        _Parts(**given).start(stack)
        assert "log begins" in noted
        noted.clear()
    assert noted[0] == "log ends"
    assert set(noted) == {f"{name} ends" for name in ("log", "labels", "follower", "trial", "tracing", "keys", "peers")}


def test_a_worker_has_more_time_than_its_parts_may_take_one_after_the_other() -> None:
    bounds = [
        inspect.signature(end).parameters["seconds"].default
        for end in (Shadow.close, PredictionLog.close, Follower.stop, Trial.stop, Tracing.close)
    ]
    keys = 5.0
    assert ports._GRACE_SECONDS + sum(bounds) + keys < workers._DRAIN_SECONDS
    assert units._SERVING_DRAIN_SECONDS > workers._DRAIN_SECONDS


def test_a_second_sigterm_does_not_end_a_process_that_writes_its_last_predictions(
    store: ModelStore, tmp_path: Path
) -> None:
    """Nobody runs the broker, so the log waits for it at the end."""
    commit_version(store, PIPELINE, learned_state())
    with serve(ADDRESS, tmp_path) as running:
        until(lambda: running.get("/health/ready")[0] == 200, "it is ready")
        with Client(base_url=running.url) as client:
            assert client.post("/predict", json={"instances": ROWS}, timeout=30).status_code == 200
        running.process.terminate()
        until(lambda: running.get("/health/ready")[0] == 0, "it listens no more")
        for _ in range(5):  # the first ones may meet the server's own handler
            running.process.terminate()
            assert running.get("/health/live")[0] == 0
        assert running.process.wait(PATIENCE) == 0
