import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from infra import ivy, jars
from infra.jars import Jar, ensure_jars, installed, jar_folder, pinned
from infra.truststore import write_truststore
from stream_trainer.errors import SetupError
from stream_trainer.settings import Settings

NAMES = ("first", "second")


class Repository:
    """A fetcher that serves the jars of the lock below; counts what is asked, and can misbehave."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.tamper_with: str | None = None
        self.die_before: str | None = None

    def __call__(self, wanted: Sequence[Jar], folder: Path) -> None:
        self.asked.append([jar.artifact for jar in wanted])
        for jar in wanted:
            if jar.artifact == self.die_before:
                raise KeyboardInterrupt
            body = b"something else" if jar.artifact == self.tamper_with else jar.artifact.encode()
            (folder / jar.filename).write_bytes(body)


@pytest.fixture
def repository(monkeypatch: pytest.MonkeyPatch) -> Repository:
    lock = [
        Jar(group="g", artifact=name, version="1.0", sha256=hashlib.sha256(name.encode()).hexdigest()) for name in NAMES
    ]
    monkeypatch.setattr(jars, "pinned", lambda which: lock)
    return Repository()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(cache_dir=tmp_path / "cache", data_dir=tmp_path / "data")


def test_the_second_call_fetches_nothing(settings: Settings, repository: Repository) -> None:
    first = ensure_jars(settings, "kafka", fetch=repository)
    second = ensure_jars(settings, "kafka", fetch=repository)

    assert first == second
    assert [path.read_text() for path in first] == list(NAMES)
    assert repository.asked == [list(NAMES)]


@pytest.mark.parametrize("damage", ["delete", "change", "truncate"])
def test_a_damaged_cache_repairs_itself_with_the_least_fetching(
    settings: Settings, repository: Repository, damage: str
) -> None:
    path = ensure_jars(settings, "kafka", fetch=repository)[1]
    if damage == "delete":
        path.unlink()
    else:
        path.write_bytes(b"second!" if damage == "change" else b"")
    assert not installed(settings, "kafka")

    ensure_jars(settings, "kafka", fetch=repository)

    assert path.read_text() == "second"
    assert repository.asked[1:] == [["second"]]


def test_a_jar_with_another_digest_is_refused_and_nothing_is_installed(
    settings: Settings, repository: Repository
) -> None:
    repository.tamper_with = "second"

    with pytest.raises(SetupError, match=r"second-1\.0\.jar refused: its SHA-256 is .*nothing was installed"):
        ensure_jars(settings, "kafka", fetch=repository)

    assert not jar_folder(settings, "kafka").exists()


def test_an_interrupted_fetch_leaves_nothing_and_the_next_call_completes(
    settings: Settings, repository: Repository
) -> None:
    repository.die_before = "second"
    with pytest.raises(KeyboardInterrupt):
        ensure_jars(settings, "kafka", fetch=repository)
    assert not jar_folder(settings, "kafka").exists()
    killed = jar_folder(settings, "kafka").parent / f".{jar_folder(settings, 'kafka').name}-killed"
    killed.mkdir()

    repository.die_before = None
    ensure_jars(settings, "kafka", fetch=repository)

    assert installed(settings, "kafka")
    assert not killed.exists()


def test_a_jar_that_does_not_arrive_is_named(settings: Settings, repository: Repository) -> None:
    with pytest.raises(SetupError, match=r"first-1\.0\.jar did not arrive"):
        ensure_jars(settings, "kafka", fetch=lambda wanted, folder: None)


def test_the_lock_pins_what_the_design_names() -> None:
    kafka = {jar.artifact: jar.version for jar in pinned("kafka")}
    spark = {jar.artifact: jar.version for jar in pinned("spark")}

    assert kafka["kafka_2.13"] == "4.4.0"
    assert kafka["log4j-slf4j-impl"] == kafka["log4j-core"]
    assert spark["spark-sql-kafka-0-10_2.13"] == "4.2.0"
    assert all(len(jar.sha256) == 64 for which in jars.ROOTS for jar in pinned(which))
    shipped = {path.name for path in ivy.pyspark_jars().glob("*.jar")}
    assert not shipped & {jar.filename for jar in pinned("spark")}


def test_ivys_report_is_cut_down_to_what_went_wrong() -> None:
    report = "found a\n\t:: g#first;1.0: not found\n\tServer access error at url x (timed out)\nUSE VERBOSE"

    assert ivy._reason(report) == ":: g#first;1.0: not found | Server access error at url x (timed out)"


def test_the_trust_store_holds_its_own_digest(tmp_path: Path) -> None:
    store = tmp_path / "trusted.jks"
    if not write_truststore(store):
        pytest.skip("this Python knows no authorities")

    body, digest = store.read_bytes()[:-20], store.read_bytes()[-20:]

    assert body[:4] == b"\xfe\xed\xfe\xed"
    assert digest == hashlib.sha1("changeit".encode("utf-16-be") + b"Mighty Aphrodite" + body).digest()  # noqa: S324


def test_two_processes_fetch_once(settings: Settings, tmp_path: Path) -> None:
    program = """
import hashlib, json, pathlib, sys, time
from infra import jars
from stream_trainer.settings import Settings
lock = [jars.Jar(group="g", artifact="a", version="1", sha256=hashlib.sha256(b"a").hexdigest())]
jars.pinned = lambda which: lock
asked = []
def fetch(wanted, folder):
    time.sleep(0.5)
    asked.append(1)
    (folder / "a-1.jar").write_bytes(b"a")
jars.ensure_jars(Settings(cache_dir=pathlib.Path(sys.argv[1])), "kafka", fetch=fetch)
print(json.dumps(len(asked)))
"""
    command = [sys.executable, "-c", program, str(tmp_path / "shared")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with (
        subprocess.Popen(command, env=env, stdout=subprocess.PIPE) as one,
        subprocess.Popen(command, env=env, stdout=subprocess.PIPE) as two,
    ):
        outputs = [one.communicate(timeout=60)[0], two.communicate(timeout=60)[0]]

    assert sorted(json.loads(output) for output in outputs) == [0, 1]
