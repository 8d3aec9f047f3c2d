"""Ends a process, or a test, at a named point of the code.

`crash_points` finds the points in the source itself: a new one is known without being listed.
"""

import ast
import importlib
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from stream_trainer import crashpoints


class Crash(BaseException):
    """The process would have ended here; not an `Exception`, so that no handler keeps it alive."""


def crash_points(*packages: str) -> dict[str, str]:
    """Every `crashpoint("name")` of the packages (default: the core) by its name: `file:line`.

    Raises:
        ValueError: a name is no literal, or stands in two places.
    """
    found: dict[str, str] = {}
    for package in packages or ("stream_trainer",):
        root = Path(next(iter(importlib.import_module(package).__path__)))
        for file in sorted(root.rglob("*.py")):
            for name, line in _points(file):
                where = f"{file.relative_to(root.parent)}:{line}"
                if name in found:
                    raise ValueError(f"crash point {name!r} stands in {found[name]} and in {where}: names are unique")
                found[name] = where
    return found


def _points(file: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(file.read_text(), str(file))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "crashpoint":
            argument = node.args[0]
            if not isinstance(argument, ast.Constant) or not isinstance(argument.value, str):
                raise ValueError(f"{file}:{node.lineno}: the name of a crash point must be a literal")
            yield argument.value, node.lineno


@contextmanager
def crash_at(name: str, nth: int = 1) -> Iterator[None]:
    """Inside the block the `nth` arrival at the point raises `Crash`."""

    def crash() -> None:
        raise Crash(name)

    crashpoints.watch(_at(name, nth, crash))
    try:
        yield
    finally:
        crashpoints.watch(None)


def kill_at(name: str, nth: int = 1) -> None:
    """From now on the `nth` arrival at the point ends this process as `kill -9` does: for child processes only."""
    crashpoints.watch(_at(name, nth, lambda: os.kill(os.getpid(), signal.SIGKILL)))


@contextmanager
def counted() -> Iterator[dict[str, int]]:
    """How often each point is reached inside the block."""
    found: dict[str, int] = {}

    def count(name: str) -> None:
        found[name] = found.get(name, 0) + 1

    crashpoints.watch(count)
    try:
        yield found
    finally:
        crashpoints.watch(None)


def _at(name: str, nth: int, act: Callable[[], None]) -> Callable[[str], None]:
    left = nth

    def reached(at: str) -> None:
        nonlocal left
        if at == name:
            left -= 1
            if left == 0:
                act()

    return reached
