import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from infra import supervisor as supervising
from infra.supervisor import FINAL_CODES, Child, Supervisor, Unit

STUBBORN = """
import signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open(sys.argv[1], "w").close()
time.sleep(60)
"""
WITH_GRANDCHILD = """
import pathlib, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
inner = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
part = pathlib.Path(sys.argv[1] + ".part")
part.write_text(str(inner.pid))
part.rename(sys.argv[1])
time.sleep(60)
"""
POLITE = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (open(sys.argv[1] + ".drained", "w").close(), sys.exit(0)))
open(sys.argv[1], "w").close()
time.sleep(60)
"""

FLUSHING = """
import pathlib, signal, sys, time
path = pathlib.Path(sys.argv[1])
def end(*_):
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    path.with_suffix(".asked").touch()
    while not path.with_suffix(".go").exists():
        time.sleep(0.01)
    path.with_suffix(".flushed").touch()
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
path.touch()
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def modules(tmp_path: Path) -> Path:
    for name, text in {
        "stubborn_child": STUBBORN,
        "with_grandchild": WITH_GRANDCHILD,
        "polite_child": POLITE,
        "flushing_child": FLUSHING,
        "dying_child": "import sys; print('last words'); sys.exit(int(sys.argv[1]))",
    }.items():
        (tmp_path / f"{name}.py").write_text(text)
    return tmp_path


@pytest.fixture
def unit(modules: Path) -> Iterator[Callable[..., Unit]]:
    """Makes units whose module stands in the folder; whatever is left of them is ended at the end."""

    def make(module: str, *arguments: str, drain: float = 5.0, log: Path | None = None) -> Unit:
        variables = {"PYTHONPATH": str(modules)}
        return Unit(name=module, module=module, arguments=arguments, variables=variables, log=log, drain_seconds=drain)

    before = {p.pid for p in psutil.Process().children(recursive=True)}
    yield make
    left = [p for p in psutil.Process().children(recursive=True) if p.pid not in before]
    for process in left:
        process.kill()
    assert left == []


def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        pause.wait(0.01)


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def looked(child: Child) -> str:
    """The next thing a child's supervisor has to say."""
    found: list[str] = []

    def said() -> bool:
        found.extend(filter(None, [child.look()]))
        return bool(found)

    until(said)
    return found[0]


def test_a_child_that_dies_is_started_again_with_a_message(
    unit: Callable[..., Unit], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervising, "_LONGEST_PAUSE", 0.01)
    child = Child(unit("dying_child", "7", log=tmp_path / "logs" / "child.log"))
    child.start()
    first = looked(child)
    assert "dying_child died (exit code 7)" in first
    assert "child.log" in first
    assert "was started again" in looked(child)
    assert child.restarts == 1
    assert "died" in looked(child)
    assert (tmp_path / "logs" / "child.log").read_text() == "last words\n" * 2


def test_a_killed_child_is_said_to_be_killed(unit: Callable[..., Unit], tmp_path: Path) -> None:
    child = Child(unit("polite_child", str(tmp_path / "up")))
    child.start()
    until((tmp_path / "up").exists)
    assert child.look() is None
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    assert "died (signal 9)" in looked(child)
    child.drain()


@pytest.mark.parametrize("code", [0, *sorted(FINAL_CODES)])
def test_a_child_that_ends_for_good_is_not_started_again(unit: Callable[..., Unit], code: int) -> None:
    said: list[str] = []
    supervisor = Supervisor([unit("dying_child", str(code))], said.append)
    supervisor.run(threading.Event())
    assert said == [f"dying_child ended with exit code {code}"]
    assert supervisor.children[0].restarts == 0
    assert supervisor.children[0].look() is None


@pytest.mark.parametrize("code", sorted(FINAL_CODES))
def test_an_endless_child_whose_first_start_is_refused_ends_for_good(unit: Callable[..., Unit], code: int) -> None:
    supervisor = Supervisor([replace(unit("dying_child", str(code)), endless=True)], lambda _: None)
    supervisor.run(threading.Event())
    assert [child.code for child in supervisor.children] == [code]


@pytest.mark.parametrize("code", sorted(FINAL_CODES))
def test_an_endless_child_whose_new_start_is_refused_is_tried_again_and_its_neighbour_lives(
    unit: Callable[..., Unit], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(supervising, "_LONGEST_PAUSE", 0.01)
    starts = iter(["1", str(code), str(code), "1"])
    dying = replace(unit("dying_child"), arguments=lambda: [next(starts, "1")], endless=True)
    said: list[str] = []
    supervisor = Supervisor([unit("polite_child", str(tmp_path / "up"), drain=20.0), dying], said.append)
    supervisor.start()
    until((tmp_path / "up").exists)
    neighbour, child = supervisor.children
    pid = neighbour.pid
    until(lambda: not supervisor.look() or child.restarts >= 3)
    assert not child.finished
    assert len([word for word in said if f"died (exit code {code})" in word]) == 2
    assert neighbour.pid == pid is not None
    supervisor.drain()


def test_an_endless_child_that_ran_steadily_is_tried_again(
    unit: Callable[..., Unit], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervising, "_STEADY_SECONDS", -1.0)
    child = Child(replace(unit("dying_child", "2"), endless=True))
    child.start()
    assert "died (exit code 2)" in looked(child)
    assert not child.finished


def test_pauses_grow_while_it_dies_quickly(unit: Callable[..., Unit], monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("infra.supervisor.time.monotonic", lambda: now[0])
    child = Child(unit("dying_child", "1"))
    pauses = []
    for _ in range(4):
        child.start()
        assert child._process is not None
        child._process.wait(20)
        child._again_at = 0.0
        assert "died" in (child.look() or "")
        pauses.append(child._again_at - now[0])
    assert pauses == sorted(pauses)
    assert pauses[3] > 4 * pauses[0]
    now[0] += 10_000
    assert "started again" in (child.look() or "")
    assert child._process is not None
    child._process.wait(20)


def test_draining_lets_a_child_finish(unit: Callable[..., Unit], tmp_path: Path) -> None:
    child = Child(unit("polite_child", str(tmp_path / "up")))
    child.start()
    until((tmp_path / "up").exists)
    pid = child.pid
    assert pid is not None
    child.drain()
    assert (tmp_path / "up.drained").exists()
    assert gone(pid)
    assert child.pid is None
    child.drain()


def test_a_child_that_was_asked_to_end_is_not_signalled_again_while_it_writes_its_last(
    unit: Callable[..., Unit], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = Child(unit("flushing_child", str(tmp_path / "up")))
    child.start()
    until((tmp_path / "up").exists)
    child.ask_to_end()
    until((tmp_path / "up.asked").exists)
    process = child._process
    assert process is not None
    real = process.wait

    def wait(seconds: float | None = None) -> int:
        (tmp_path / "up.go").touch()
        return real(seconds)

    monkeypatch.setattr(process, "wait", wait)
    child.drain()
    assert process.returncode == 0
    assert (tmp_path / "up.flushed").exists()


def test_a_child_that_was_started_again_is_asked_anew(unit: Callable[..., Unit], tmp_path: Path) -> None:
    child = Child(unit("polite_child", str(tmp_path / "up"), drain=20.0))
    for _ in range(2):
        child.start()
        until((tmp_path / "up").exists)
        child.ask_to_end()
        until((tmp_path / "up.drained").exists)
        child.drain()
        (tmp_path / "up").unlink()
        (tmp_path / "up.drained").unlink()


def test_a_child_that_does_not_finish_in_time_is_killed(unit: Callable[..., Unit], tmp_path: Path) -> None:
    child = Child(unit("stubborn_child", str(tmp_path / "up"), drain=0.2))
    child.start()
    until((tmp_path / "up").exists)
    pid = child.pid
    assert pid is not None
    child.drain()
    assert gone(pid)


def test_a_killed_child_leaves_no_process_of_its_own_behind(unit: Callable[..., Unit], tmp_path: Path) -> None:
    child = Child(unit("with_grandchild", str(tmp_path / "up"), drain=0.2))
    child.start()
    until((tmp_path / "up").exists)
    inner = int((tmp_path / "up").read_text())
    assert not gone(inner)
    child.drain()
    try:
        until(lambda: gone(inner), 5)
    finally:
        if not gone(inner):
            os.kill(inner, signal.SIGKILL)


def recording(child: Child, name: str, ended: list[str]) -> Callable[[], None]:
    real = child.drain

    def drain() -> None:
        ended.append(name)
        real()

    return drain


def test_stopping_drains_all_the_last_started_first(
    unit: Callable[..., Unit], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor = Supervisor([unit("polite_child", str(tmp_path / n)) for n in ("a", "b")])
    ended: list[str] = []
    for name, child in zip("ab", supervisor.children, strict=True):
        monkeypatch.setattr(child, "drain", recording(child, name, ended))
    stop = threading.Event()
    thread = threading.Thread(target=supervisor.run, args=(stop,))
    thread.start()
    until(lambda: all((tmp_path / n).exists() for n in ("a", "b")))
    pids = [child.pid for child in supervisor.children]
    stop.set()
    thread.join(20)
    assert ended == ["b", "a"]
    assert all(pid is not None and gone(pid) for pid in pids)


def test_a_child_does_not_get_the_supervisors_ctrl_c(unit: Callable[..., Unit], tmp_path: Path) -> None:
    child = Child(unit("polite_child", str(tmp_path / "up")))
    child.start()
    until((tmp_path / "up").exists)
    assert child.pid is not None
    assert os.getsid(child.pid) == child.pid != os.getsid(0)
    child.drain()


SUPERVISING = """
import pathlib, sys, threading
from infra.supervisor import Supervisor, Unit
folder, drain, *modules = sys.argv[1:]
variables = {"PYTHONPATH": folder}
units = [
    Unit(name=m, module=m, arguments=[f"{folder}/{m}"], variables=variables, drain_seconds=float(drain))
    for m in modules
]
supervisor = Supervisor(units)
supervisor.start()
text = " ".join(str(child.pid) for child in supervisor.children)
pathlib.Path(folder, "pids.part").write_text(text)
pathlib.Path(folder, "pids.part").rename(pathlib.Path(folder, "pids"))
threading.Event().wait()
"""


@contextlib.contextmanager
def killed_supervisor(folder: Path, drain: float, *modules: str) -> Iterator[list[int]]:
    """Children that are up, once their supervisor was killed; what is left of them is ended at the end."""
    process = subprocess.Popen([sys.executable, "-c", SUPERVISING, str(folder), str(drain), *modules])
    pids: list[int] = []
    try:
        until(lambda: (folder / "pids").exists() and all((folder / name).exists() for name in modules))
        pids = [int(pid) for pid in (folder / "pids").read_text().split()]
        assert not any(gone(pid) for pid in pids)
        process.kill()
        process.wait(20)
        yield pids
    finally:
        process.kill()
        process.wait(20)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)


def test_children_of_a_killed_supervisor_drain_and_end(modules: Path) -> None:
    with killed_supervisor(modules, 30.0, "polite_child") as (pid,):
        until(lambda: gone(pid))
        assert (modules / "polite_child.drained").exists()


def test_a_child_of_a_killed_supervisor_that_does_not_end_is_killed_with_all_that_it_started(modules: Path) -> None:
    with killed_supervisor(modules, 0.2, "with_grandchild") as (pid,):
        inner = int((modules / "with_grandchild").read_text())
        until(lambda: gone(pid) and gone(inner))


def test_a_child_sees_its_own_arguments_and_module(modules: Path, unit: Callable[..., Unit]) -> None:
    text = "import sys; print(__name__, sys.argv, sys.modules['__main__'].__spec__.name, flush=True)"
    (modules / "telling_child.py").write_text(text)
    child = Child(unit("telling_child", "--one", "two", log=modules / "child.log"))
    child.start()
    assert "ended with exit code 0" in looked(child)
    told = (modules / "child.log").read_text()
    assert told == f"__main__ {[str(modules / 'telling_child.py'), '--one', 'two']} telling_child\n"
