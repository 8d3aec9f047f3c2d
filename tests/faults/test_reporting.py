"""How sections are run, shown and written, whatever they measure."""

import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from stream_trainer.errors import UsageError
from tests.bench import reporting
from tests.bench.section import Section

Add = Callable[[str, Callable[[Any], Section]], None]


@pytest.fixture
def add(monkeypatch: pytest.MonkeyPatch) -> Iterator[Add]:
    """Puts a module with this `measure` into the package `measured`."""
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setitem(sys.modules, "measured", ModuleType("measured"))

    def added(name: str, measure: Callable[[Any], Section]) -> None:
        module = ModuleType(f"measured.{name}")
        module.__dict__["measure"] = measure
        monkeypatch.setitem(sys.modules, module.__name__, module)

    yield added
    signal.signal(signal.SIGTERM, before)


def section(options: Any) -> Section:
    return Section(title=f"With {options}", headings=("what",), rows=[["this"]])


def run(path: Path, *names: str, options: Any = "these") -> int:
    return reporting.measure_all("measured", names, options, command="again {}".format, path=path, head="# Head\n")


def test_each_section_is_written_with_its_command_and_replaces_its_former_self(add: Add, tmp_path: Path) -> None:
    path = tmp_path / "report.md"
    add("one", section)
    add("two", section)
    assert run(path, "one", "two") == 0
    assert run(path, "one", options="those") == 0
    text = path.read_text()
    assert text.startswith("# Head\n")
    assert (text.count("## With those"), text.count("## With these")) == (1, 1)
    assert text.index("`again one`") < text.index("`again two`")


def test_what_lacks_something_is_passed_over(add: Add, tmp_path: Path) -> None:
    def lacking(_: Any) -> Section:
        raise UsageError("there is no wrk")

    add("one", lacking)
    add("two", section)
    assert run(tmp_path / "report.md", "one", "two") == 2
    assert "<!-- two -->" in (tmp_path / "report.md").read_text()


def test_a_broken_promise_ends_the_run_and_ctrl_c_is_130(add: Add, tmp_path: Path) -> None:
    def broken(_: Any) -> Section:
        raise AssertionError("it repeated a record")

    def interrupted(_: Any) -> Section:
        raise KeyboardInterrupt

    add("one", broken)
    add("two", interrupted)
    with pytest.raises(AssertionError, match="repeated"):
        run(tmp_path / "report.md", "one")
    assert run(tmp_path / "report.md", "two", "one") == 130
    assert not (tmp_path / "report.md").exists()


def test_a_name_that_is_none_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    parser = reporting.parser_of("measured", ("one",), "Measures.")
    assert reporting.parse(parser, ("one",), ["one"]).names == ["one"]
    with pytest.raises(SystemExit):
        reporting.parse(parser, ("one",), ["three"])
    assert "three is none of one" in capsys.readouterr().err
