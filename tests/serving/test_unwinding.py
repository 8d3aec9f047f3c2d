"""The end of the service: nothing that is signalled then, and no part that hangs, costs a prediction's record."""

import contextlib
import os
import signal
from pathlib import Path

from httpx import Client
from starlette.applications import Starlette

from serving.metrics import Metrics
from serving.ports import Server, config_of, signals_restored
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
