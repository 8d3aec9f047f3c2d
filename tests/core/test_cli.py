import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer
from typer.testing import CliRunner

from stream_trainer import cli
from stream_trainer.errors import (
    Corrupt,
    Fenced,
    InputLost,
    NoVersion,
    RetriesExhausted,
    StoreDamaged,
    StoreUnwritable,
    UsageError,
)
from stream_trainer.settings import Settings
from stream_trainer.store.storage import LocalStorage
from tests.core.test_microbatch import World, fill

ADDRESS = "tests.core.test_microbatch:PIPELINE"
RUNNER = CliRunner()


@pytest.fixture(scope="module")
def three_versions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    made = World(folder)
    for n in range(3):
        fill(made, 40 * n)
        made.learn()
    return folder


@pytest.fixture(autouse=True)
def world(three_versions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Three committed versions in the store that the environment names."""
    folder = shutil.copytree(three_versions, tmp_path / "models")
    monkeypatch.setenv("STREAM_TRAINER_STORE__URL", str(folder))
    monkeypatch.setenv("COLUMNS", "200")
    return World(folder)


def run(*arguments: str) -> tuple[int, str, str]:
    found = RUNNER.invoke(cli.app, arguments)
    return found.exit_code, found.stdout, found.stderr


def run_main(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[Any, str]:
    """The whole front door, its error handling included."""
    monkeypatch.setattr("sys.argv", ["stream-trainer", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return caught.value.code, capsys.readouterr().err


def commands(group: typer.core.TyperGroup, *path: str) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        if isinstance(command, typer.core.TyperGroup):
            yield from commands(command, *path, name)
        else:
            yield (*path, name)


ALL = list(commands(typer.main.get_command(cli.app)))  # type: ignore[arg-type]


def test_the_commands_are_those_of_the_manual() -> None:
    assert {path[0] for path in ALL} >= {
        "demo",
        "train",
        "serve",
        "monitor",
        "run",
        "models",
        "rejected",
        "replay",
        "lineage",
        "broker",
        "doctor",
    }


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_command_explains_itself_with_an_example_that_begins_with_its_name(path: tuple[str, ...]) -> None:
    code, out, _ = run(*path, "--help")
    assert code == 0
    assert f"Example: stream-trainer {' '.join(path)}" in " ".join(out.replace("│", " ").split())


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["models"],
        ["models", "list"],
        ["models", "show", ADDRESS, "two"],
        ["models", "list", ADDRESS, "--last", "-1"],
        ["models", "list", ADDRESS, "--bogus"],
        ["serve", ADDRESS, "--port", "99999"],
        ["replay", ADDRESS, "--to", "0"],
        ["lineage", ADDRESS, "--version", "two"],
        ["demo", "--for", "0"],
    ],
)
def test_a_wrong_call_exits_2(arguments: list[str]) -> None:
    assert run(*arguments)[0] == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["models", "list", "nonsense"], "module:attribute"),
        (["models", "list", "no_such:thing"], "no_such"),
        (["train", ADDRESS, "--from", "yesterday"], "--from yesterday"),
        (["train", ADDRESS, "--strategy", "magic"], "--strategy magic"),
        (["lineage", ADDRESS], "either a prediction's id or"),
    ],
)
def test_what_cannot_be_used_is_one_line_and_exit_code_2(
    arguments: list[str], says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, err = run_main(monkeypatch, capsys, *arguments)
    assert code == 2
    assert err.startswith("error: ")
    assert says in err
    assert err.count("\n") == 1


def test_a_setting_that_is_wrong_is_one_line_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STREAM_TRAINER_KAFKA__PARTITIONS", "none")
    code, err = run_main(monkeypatch, capsys, "models", "list", ADDRESS)
    assert (code, err.count("\n")) == (2, 1)
    assert "kafka.partitions" in err


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (UsageError("x"), 2),
        (Fenced("x"), 3),
        (InputLost("x"), 4),
        (StoreDamaged("x"), 5),
        (StoreUnwritable("x"), 5),
        (RetriesExhausted("x"), 6),
        (Corrupt("x"), 1),
        (NoVersion("x"), 1),
    ],
)
def test_each_kind_of_error_has_its_exit_code(
    error: Exception, expected: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(cli, "app", fail)
    assert run_main(monkeypatch, capsys) == (expected, "error: x\n")


def test_listing_as_json_gives_every_manifest_whole(world: World) -> None:
    code, out, _ = run("models", "list", ADDRESS, "--json", "--last", "1")
    found = json.loads(out)
    assert code == 0
    assert [v["version"] for v in found] == [1, 2, 3]
    for given in found:
        version = world.store.read(given["version"])
        assert given.pop("manifest_sha256") == version.sha256
        assert given.pop("role") == ("champion" if version.number == 3 else None)
        assert given == json.loads(msgspec.json.encode(version.manifest))


def test_listing_as_a_table_shows_the_newest() -> None:
    code, out, _ = run("models", "list", ADDRESS, "--last", "2")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["version", "2", "3"]
    assert re.search(r"log loss +no change +majority +accuracy", out)


def test_an_empty_store_is_said_to_be_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAM_TRAINER_STORE__URL", str(tmp_path / "other"))
    code, out, _ = run("models", "list", ADDRESS)
    assert code == 0
    assert "no versions yet" in out.replace("\n", " ")
    assert json.loads(run("models", "list", ADDRESS, "--json")[1]) == []
    found = RUNNER.invoke(cli.app, ["models", "show", ADDRESS])
    assert isinstance(found.exception, NoVersion)


def test_showing_gives_one_version_the_newest_without_a_number(world: World) -> None:
    assert json.loads(run("models", "show", ADDRESS, "--json")[1])["version"] == 3
    shown = json.loads(run("models", "show", ADDRESS, "2", "--json")[1])
    assert shown["manifest_sha256"] == world.store.read(2).sha256
    code, out, _ = run("models", "show", ADDRESS, "1")
    assert code == 0
    assert "next_offsets" in out


def test_verifying_says_how_many_are_whole() -> None:
    code, out, _ = run("models", "verify", ADDRESS)
    assert code == 0
    assert "3 of 3 versions" in out


@pytest.mark.parametrize(
    "name", ["weights.safetensors", "trainer.safetensors", "learned.arrow", "golden.arrow", "manifest.json"]
)
def test_one_changed_byte_anywhere_is_named_and_exits_5(world: World, name: str) -> None:
    storage = world.store.storage
    (path,) = [p for p in storage.walk(f"flights/versions/{2:020d}") if p.endswith(name)]
    data = storage.get(path)
    storage.put(path, b"\0" + data[1:] if name == "manifest.json" else data[:-1] + bytes([data[-1] ^ 1]))
    code, out, _ = run("models", "verify", ADDRESS)
    assert code == 5
    assert f"version 2: {LocalStorage(Path(storage.url)).url}/{path}" in out
    assert "2 of 3 versions" in out
    code, out, _ = run("models", "verify", ADDRESS, "--json")
    assert code == 5
    assert [(v["version"], v["ok"]) for v in json.loads(out)] == [(1, True), (2, False), (3, True)]
    assert run("models", "verify", ADDRESS, "1")[0] == 0
    assert run("models", "verify", ADDRESS, "2")[0] == 5


def test_listing_goes_on_past_a_damaged_manifest(world: World) -> None:
    world.store.storage.put(f"flights/versions/{2:020d}/manifest.json", b"{}")
    code, out, err = run("models", "list", ADDRESS, "--json")
    assert code == 0
    assert [v["version"] for v in json.loads(out)] == [1, 3]
    assert err.startswith("version 2: ")


def test_configured_servers_are_used_and_no_local_broker_is_started() -> None:
    settings = Settings(kafka={"bootstrap_servers": "there:9092"})
    assert cli.connected(settings) is settings


def test_a_missing_extra_is_said_with_the_command_that_installs_it() -> None:
    with pytest.raises(UsageError, match=r"pip install 'stream-trainer\[serve\]'"):
        cli._needs("serve", "no_such_package")
