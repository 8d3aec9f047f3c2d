"""`stream-trainer serve` as a process: both ports, its keys, its log, its end."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from serving.server import run
from stream_trainer.errors import UsageError
from stream_trainer.settings import Settings, environment
from stream_trainer.store import ModelStore
from stream_trainer.store.storage import LocalStorage
from tests.security.callers import Callers, bearer
from tests.serving.fixtures import PIPELINE, ROWS, commit_version, learned_state

ADDRESS = "tests.serving.fixtures:PIPELINE"


class Process:
    """The command, once it has said where it listens."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self.process = process
        self.said = process.stdout.readline()
        self.urls = re.findall(r"https?://[\d.:]+", self.said)

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        self.process.send_signal(number)
        _, log = self.process.communicate(timeout=60)
        return self.process.returncode, log


@contextmanager
def served(tmp_path: Path, *arguments: str, **variables: str) -> Iterator[Process]:
    """No Kafka answers at its address, which is no obstacle."""
    own = {
        "STREAM_TRAINER_DATA_DIR": str(tmp_path / "data"),
        "STREAM_TRAINER_STORE__URL": str(tmp_path / "models"),
        "STREAM_TRAINER_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "STREAM_TRAINER_SERVING__POLL_SECONDS": "0.05",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "stream_trainer.cli", "serve", ADDRESS, "--port", "0", *arguments],
        env={**environment(), **own, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield Process(process)
    finally:
        process.kill()
        process.communicate()


def test_s06_both_ports_ask_for_their_keys_and_end_together(tmp_path: Path, callers: Callers) -> None:
    store = ModelStore(LocalStorage(tmp_path / "models"), PIPELINE.name)
    for seed in range(2):
        commit_version(store, PIPELINE, learned_state(seed=seed))
    known = {name: bearer(text) for name, text in callers.texts.items()}
    variables = {"STREAM_TRAINER_SERVING__KEYS_FILE": str(callers.path)}
    with (
        served(tmp_path, "--admin-port", "0", **variables) as service,
        httpx.Client(base_url=service.urls[0], trust_env=False, timeout=60) as public,
        httpx.Client(base_url=service.urls[-1], trust_env=False, timeout=60) as admin,
    ):
        assert "admin at" in service.said
        assert public.get("/health/live").status_code == admin.get("/health/live").status_code == 200
        assert public.get("/metrics").status_code == admin.get("/status").status_code == 401
        assert public.post("/rollback", headers=known["admin"], json={}).status_code == 404
        assert admin.post("/rollback", headers=known["predict"], json={}).status_code == 403
        while public.get("/health/ready").status_code != 200:
            pass
        told = admin.post("/rollback", headers=known["admin"], json={"reason": "canary\u2028 reason"})
        assert (told.status_code, told.json()["champion"]) == (200, 1)
        while admin.get("/status", headers=known["admin"]).json()["model_version"] != 1:
            pass
        answer = public.post("/predict", headers=known["predict"], json={"instances": ROWS}).json()
        assert answer["model_version"] == 1
        assert "server" not in public.get("/health/live").headers
        code, log = service.end()
    assert code == 0
    lines = [json.loads(line) for line in log.splitlines()]
    assert any(line["logger"] == "serving.admin" and callers.keys["admin"].id in line["message"] for line in lines)
    assert not [text for text in callers.texts.values() if text in log or text.split("_")[2] in log]


def test_a_port_that_is_off_is_not_bound_and_ctrl_c_ends_it_too(tmp_path: Path) -> None:
    with served(tmp_path, "--admin-port", "-1", STREAM_TRAINER_SERVING__LOG_FORMAT="text") as service:
        assert "admin" not in service.said
        assert len(set(service.urls)) == 1
        code, log = service.end(signal.SIGINT)
    assert code == 0
    assert not [line for line in log.splitlines() if line.startswith("{")]


def test_an_admin_port_that_is_taken_is_a_usage_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        serving = {"port": 0, "admin_port": taken.getsockname()[1]}
        settings = Settings.model_validate({"serving": serving, "kafka": {"bootstrap_servers": "127.0.0.1:1"}})
        with pytest.raises(UsageError, match="--admin-port"):
            run(ADDRESS, settings)


@pytest.mark.parametrize(
    ("serving", "says"),
    [
        ({"host": "0.0.0.0"}, "no API keys are configured"),  # noqa: S104
        ({"admin_host": "0.0.0.0"}, "serving.admin_host"),  # noqa: S104
        ({"profile": "production"}, "needs API keys"),
        ({"keys_file": "none.json"}, "keys create"),
    ],
)
def test_s05_what_would_be_open_to_anyone_does_not_start(serving: dict[str, str], says: str) -> None:
    settings = Settings.model_validate(
        {"serving": {"port": 0, **serving}, "kafka": {"bootstrap_servers": "127.0.0.1:1"}}
    )
    with pytest.raises(UsageError, match=says):
        run(ADDRESS, settings)
