"""What a user gets: the wheel in an empty environment, `doctor`, and the demo on real flights."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

DASHBOARD = re.compile(r"dashboard: (http://\S+/)")
ROOT = Path(__file__).parents[2]
DEMO_SECONDS = 600  # it is ended once there is enough to look at; this is for one that never gets there


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    _run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)])
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty environment with only the wheel and what it needs, at the locked versions."""
    folder = tmp_path_factory.mktemp("fresh") / "env"
    _run([sys.executable, "-m", "uv", "venv", "-q", "--python", sys.executable, str(folder)])
    _install(folder, str(wheel))
    yield folder
    shutil.rmtree(folder)


def _install(environment: Path, what: str) -> None:
    pinned = [
        "--constraint",
        str(ROOT / "requirements.lock"),
        "--build-constraint",
        str(ROOT / "requirements-build.lock"),
    ]
    _run(
        [sys.executable, "-m", "uv", "pip", "install", "-q", "--python", str(environment / "bin/python"), *pinned, what]
    )


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


def _variables() -> dict[str, str]:
    """A newcomer's: nothing of this checkout."""
    return {k: v for k, v in os.environ.items() if k != "PYTHONPATH" and not k.startswith("STREAM_TRAINER")}


class Visitor:
    """Somebody with the dashboard open: hears what has changed, and asks for it, until the dashboard is gone."""

    def __init__(self) -> None:
        self.page = ""
        self.heard: set[str] = set()
        self.state: dict[str, Any] = {"windows": 0}
        self.windows: dict[str, Any] = {"columns": []}
        self.versions: dict[str, Any] = {"versions": [], "champion": None, "highest": 0}
        self._url = ""
        self._gone = threading.Event()
        self._thread = threading.Thread(target=self._stay, name="visitor", daemon=True)

    def come(self, url: str) -> None:
        self._url = url
        self._thread.start()

    def has_seen_enough(self) -> bool:
        """A window, something learned, and a third champion: by then two have answered."""
        learned = any(one["total_trained"] > 1000 for one in self.versions["versions"])
        return learned and self.state["windows"] > 0 and (self.versions["champion"] or 0) > 2

    def leave(self) -> None:
        self._gone.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _stay(self) -> None:
        while not self._gone.wait(0.2):
            try:
                with httpx.Client(base_url=self._url, timeout=60, trust_env=False) as client:
                    self._listen(client)
            except httpx.HTTPError:  # not there yet, or ended
                continue

    def _listen(self, client: httpx.Client) -> None:
        self.page = client.get("/").text
        with client.stream("GET", "/events") as events:
            for line in events.iter_lines():
                if line.startswith("event: "):
                    self.heard.add(line.removeprefix("event: "))
                    self._look(client)

    def _look(self, client: httpx.Client) -> None:
        found = [client.get(f"/api/{part}").raise_for_status().json() for part in ("state", "windows", "versions")]
        self.state, self.windows, self.versions = found


@pytest.mark.spark
@pytest.mark.timeout(600)
def test_doctor_runs_where_only_the_wheel_is_installed(environment: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [str(environment / "bin/stream-trainer"), "doctor", "--json"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=_variables(),
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert any(check["name"] == "Python" and check["ok"] for check in json.loads(done.stdout))


@pytest.mark.spark
@pytest.mark.timeout(900)
def test_the_demo_learns_serves_and_ends_clean_from_the_wheel(environment: Path, wheel: Path, tmp_path: Path) -> None:
    _install(environment, f"{wheel}[demo]")
    folder = tmp_path / "demo"
    command = ["demo", "--for", str(DEMO_SECONDS), "--port", "0", "--data-dir", str(folder)]
    lines: list[str] = []
    children: set[psutil.Process] = set()
    visitor, ended = Visitor(), False
    with subprocess.Popen(
        [str(environment / "bin/stream-trainer"), *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=tmp_path,
        env=_variables(),
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if found := DASHBOARD.search(line):
                visitor.come(found[1])
            if visitor.has_seen_enough() and not ended:
                process.send_signal(signal.SIGINT)
                ended = True
            if process.poll() is None:
                children |= set(psutil.Process(process.pid).children(recursive=True))
    visitor.leave()
    code = process.returncode
    logs = "".join(f"--- {path.name}\n{path.read_text()[-2000:]}" for path in folder.glob("logs/*.log"))
    assert code == 0, "".join(lines) + logs
    assert len(children) >= 4
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    environment_of_demo = {**_variables(), "STREAM_TRAINER_DATA_DIR": str(folder)}
    listed = subprocess.run(
        [str(environment / "bin/stream-trainer"), "models", "list", "examples.flights.pipeline:pipeline", "--json"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment_of_demo,
        check=True,
    )
    versions = json.loads(listed.stdout)
    assert len(versions) >= 2
    assert versions[-1]["total"]["trained"] > 1000
    assert versions[-1]["total"]["rejected"] == 0
    _has_seen(visitor, newest=versions[-1]["version"])


def _has_seen(visitor: Visitor, *, newest: int) -> None:
    """The page itself, windows of predictions, and versions up to one of the last: they are made twice a second."""
    assert "<!doctype html>" in visitor.page[:100].lower()
    assert {"hello", "windows", "versions", "freshness"} <= visitor.heard
    assert visitor.state["pipeline"] == "flights"
    assert visitor.state["windows"] >= 1
    assert sum(column["rows"] for column in visitor.windows["columns"]) > 100
    shown = visitor.versions
    assert max(one["version"] for one in shown["versions"]) == shown["highest"]
    assert 1 <= shown["champion"] <= shown["highest"] <= newest
    assert newest - shown["highest"] < 60, "the newest at the last look"
