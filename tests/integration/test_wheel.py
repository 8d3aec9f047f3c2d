"""What a user gets: the wheel in an empty environment, `doctor`, and the demo on real flights."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
DEMO_SECONDS = 75


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
            if process.poll() is None:
                children |= set(psutil.Process(process.pid).children(recursive=True))
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
