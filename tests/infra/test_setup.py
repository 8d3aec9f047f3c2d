"""The Makefile's list of targets, and how a damaged environment is noticed."""

import re
import subprocess
from pathlib import Path

import pytest

from infra import setup_state

ROOT = Path(__file__).parents[2]


def test_make_without_a_target_lists_them_all() -> None:
    listing = subprocess.run(["make", "-C", ROOT, "-s"], capture_output=True, text=True, check=True).stdout

    listed = {line.split()[0] for line in listing.splitlines() if line.startswith("  ")}
    declared = next(line for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith(".PHONY:"))
    assert listed == set(declared.split()[1:])


def test_the_installer_is_pinned_as_in_the_lock() -> None:
    assert (ROOT / "requirements-uv.lock").read_text() in (ROOT / "requirements.lock").read_text()


def test_the_locks_name_no_index() -> None:
    for lock in ROOT.glob("requirements*.lock"):
        assert "index" not in [line.split()[0].strip("-") for line in lock.read_text().splitlines()]
        assert "://" not in lock.read_text()


@pytest.mark.parametrize("name", ["uvicorn", "httptools"])
def test_of_what_the_server_stands_on_no_older_one_is_allowed_than_is_tested(name: str) -> None:
    allowed = re.search(rf'"{name}(?:\[\w+\])?>=([0-9.]+)"', (ROOT / "pyproject.toml").read_text())
    locked = re.search(rf"^{name}==(\d+\.\d+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert allowed is not None
    assert locked is not None
    assert allowed[1] == locked[1]


def test_no_python_ends_with_one_line_that_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "infra").mkdir()
    script = tmp_path / "infra" / "setup.sh"
    script.write_text((ROOT / "infra" / "setup.sh").read_text())
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("dirname", "rm"):
        (tools / name).symlink_to(f"/bin/{name}" if Path(f"/bin/{name}").exists() else f"/usr/bin/{name}")

    done = subprocess.run(["/bin/sh", script], capture_output=True, text=True, check=False, env={"PATH": str(tools)})

    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "apt install python3 python3-venv" in done.stderr


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "sound").mkdir()
    (tmp_path / "sound" / "a.py").write_text("12345")
    (tmp_path / "sound-1.dist-info").mkdir()
    (tmp_path / "sound-1.dist-info" / "RECORD").write_text(
        "sound/a.py,sha256=x,5\nsound/a.pyc,,\nsound-1.dist-info/RECORD,,\n"
    )
    monkeypatch.setattr(setup_state, "_PACKAGES", tmp_path)
    return tmp_path


def test_a_whole_package_is_not_called_damaged(packages: Path) -> None:
    assert setup_state.damaged() == []


@pytest.mark.parametrize("damage", ["file gone", "file cut", "installation cut short"])
def test_damage_is_found_and_forgotten(packages: Path, damage: str, capsys: pytest.CaptureFixture[str]) -> None:
    if damage == "file gone":
        (packages / "sound" / "a.py").unlink()
    elif damage == "file cut":
        (packages / "sound" / "a.py").write_text("1")
    else:
        (packages / "sound-1.dist-info" / "RECORD").unlink()

    with pytest.raises(SystemExit, match=r"damaged: sound-1\.dist-info"):
        setup_state.main("check", "pyproject.toml")
    setup_state.main("mend")

    assert not (packages / "sound-1.dist-info").exists()


def test_the_digest_follows_the_lock(packages: Path, tmp_path: Path) -> None:
    lock = tmp_path / "a.lock"
    lock.write_text("one")
    before = setup_state.digest([str(lock)])
    lock.write_text("two")

    assert setup_state.digest([str(lock)]) != before
