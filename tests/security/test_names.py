"""S04: no name leads out of the store: not of a pipeline, a version, an attempt, a file, a digest, nor a link."""

import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import msgspec
import pytest
from httpx import Client

from serving import model
from serving.app import create_app
from stream_trainer.errors import Corrupt, NoVersion, UsageError
from stream_trainer.pipeline import Pipeline
from stream_trainer.settings import StoreSettings
from stream_trainer.store import ModelStore, garbage
from stream_trainer.store.storage import LocalStorage
from stream_trainer.store.store import WEIGHTS
from tests.core.test_store import Unsynced
from tests.security.forgery import forge, manifest_path, resealed
from tests.serving.fixtures import CONTRACT, PIPELINE, Harness, commit_version, learned_state, serving

STATE = learned_state()
NAMES = [
    "",
    ".",
    "..",
    "../x",
    "..%2fx",
    "%2e%2e",
    "%2e%2e%2fcanary",
    "%252e%252e",
    "..\\x",
    "/etc/passwd",
    "//etc/passwd",
    "a/../../canary",
    "a\0b",
    "1\0",
    "1\n",
    "1 ",
    "+1",
    "-1",
    "0",
    "01",
    "1.0",
    "1e3",
    "0x1",
    "\u0661",  # a digit, but not ASCII
    "\uff11",
    "\u2024\u2024/x",  # one-dot leaders
    "\uff0e\uff0e/x",
    "CON",
    "nul.txt",
    "a:b",
    "x" * 300,
    "9" * 300,
    "~",
    "$HOME",
    "#",
    "?",
    ";",
]
touched: list[str] = []
_WATCHED = ("open", "os.listdir", "os.scandir", "os.remove", "os.rename", "os.link", "os.mkdir", "os.rmdir")
_watching = False


def _hook(event: str, args: tuple[object, ...]) -> None:
    if _watching and event in _WATCHED:
        touched.extend(os.fsdecode(a) for a in args if isinstance(a, str | bytes | os.PathLike))


sys.addaudithook(_hook)


@contextmanager
def watched() -> Iterator[list[str]]:
    """The paths that Python opens, lists, makes or removes meanwhile."""
    global _watching  # noqa: PLW0603 - an audit hook cannot be removed
    touched.clear()
    _watching = True
    try:
        yield touched
    finally:
        _watching = False


class World:
    """A store, and a tree beside it that nobody may touch."""

    def __init__(self, folder: Path) -> None:
        self.canary = folder / "canary"
        self.canary.mkdir()
        (self.canary / "secret.safetensors").write_bytes(b"secret")
        self.store = ModelStore(LocalStorage(folder / "models", Unsynced()), PIPELINE.name)
        for _ in range(2):
            commit_version(self.store, PIPELINE, STATE)

    def untouched(self) -> None:
        assert [p.name for p in self.canary.iterdir()] == ["secret.safetensors"]
        assert (self.canary / "secret.safetensors").read_bytes() == b"secret"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_s04_the_hook_sees_what_is_opened(world: World) -> None:
    with watched() as paths:
        (world.canary / "secret.safetensors").read_bytes()
    assert any("canary" in path for path in paths)


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("0", "01", "1e3", "0x1")])
def test_s04_a_pipeline_of_that_name_does_not_exist(name: str) -> None:
    with pytest.raises(UsageError, match="pipeline name"):
        Pipeline(name=name, contract=CONTRACT)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, Client]]:
    world = World(tmp_path_factory.mktemp("service"))
    harness = Harness(world.store)
    app = create_app(
        PIPELINE,
        harness.settings,
        log=harness.log,
        follower=harness.follower,
        metrics=harness.metrics,
        store=world.store,
        clock=harness.clock,
    )
    with serving(app) as client:
        yield world, client


@pytest.mark.parametrize("name", NAMES)
def test_s04_no_version_of_that_name_is_looked_for(service: tuple[World, Client], name: str) -> None:
    world, client = service
    with watched() as paths:
        places = [
            "/lineage/{}",
            "/v2/models/{}",
            f"/v2/models/{PIPELINE.name}/versions/{{}}",
            "/v2/models/{}/versions/1",
        ]
        whole, split = quote(name, safe=""), quote(name, safe="/%")
        for path in (place.format(text) for place in places for text in (whole, split)):
            answer = client.get(path)
            if ".." in path.split("/"):
                continue  # the client itself takes it away: see the next test
            assert answer.status_code in (404, 405, 422), (path, answer.text)
            assert "secret" not in answer.text
    assert not [path for path in paths if "canary" in path or "passwd" in path]
    world.untouched()


@pytest.mark.parametrize(
    "place", ["/lineage/..", "/v2/models/..", f"/v2/models/{PIPELINE.name}/versions/..", "/../canary"]
)
def test_s04_dots_that_no_client_took_away_lead_nowhere(service: tuple[World, Client], place: str) -> None:
    world, client = service
    with watched() as paths, socket.create_connection(("127.0.0.1", client.base_url.port or 0), 10) as wire:
        wire.sendall(f"GET {place} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: wire.recv(65_536), b""))
    assert answer.split()[1] in (b"404", b"422"), answer
    assert not [path for path in paths if "canary" in path]
    world.untouched()


def test_s04_a_version_that_is_there_is_told(service: tuple[World, Client]) -> None:
    assert service[1].get("/lineage/1").status_code == 200


BAD_NAMES = ["../../../canary", "..", "/etc", "a/b", "", ".", "a\0b", "\uff0e\uff0e", "00ff\n", "x" * 300, "CON"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_s04_a_manifest_whose_attempt_is_a_path_is_refused(world: World, name: str) -> None:
    forge(world.store, 2, attempt=name)
    with watched() as paths:
        refused(world.store)
        for call in (world.store.prune, world.store.verify):
            with pytest.raises(Corrupt):
                call(2)
        found = garbage.find(world.store, StoreSettings(keep_versions=1), older_than=datetime.max.replace(tzinfo=UTC))
        garbage.collect(world.store, found)
    assert not [path for path in paths if "canary" in path or path.startswith("/etc")]
    world.untouched()


@pytest.mark.parametrize("name", ["../../../../canary/secret.safetensors", *BAD_NAMES[1:9], "x" * 300, ".hidden"])
def test_s04_a_manifest_whose_files_are_paths_is_refused(world: World, name: str) -> None:
    files = world.store.read(2).manifest.files
    forge(world.store, 2, files={})
    put_files(world, {**files, name: files[WEIGHTS]})
    with watched() as paths:
        refused(world.store)
        with pytest.raises(Corrupt):
            world.store.verify(2)
    assert not [path for path in paths if "canary" in path]
    world.untouched()


def put_files(world: World, files: object) -> None:
    fields = json.loads(world.store.storage.get(manifest_path(world.store, 2)))
    fields["files"] = msgspec.to_builtins(files)
    world.store.storage.put(manifest_path(world.store, 2), resealed(fields))


@pytest.mark.parametrize("digest", ["../../canary/secret", "..", "", "A" * 64, "a" * 63, "a" * 64 + "\n"])
def test_s04_a_reference_that_is_a_path_is_refused(world: World, digest: str) -> None:
    forge(world.store, 2, reference=digest)
    with watched() as paths:
        with pytest.raises(Corrupt):
            world.store.verify(2)
        with pytest.raises(Corrupt):
            world.store.reference(digest)
    assert not [path for path in paths if "canary" in path]


def refused(store: ModelStore) -> None:
    with pytest.raises(model.Refused) as error:
        model.load(store, PIPELINE, 2)
    assert error.value.reason == "damaged"
    assert model.load(store, PIPELINE, 1).number == 1


@pytest.mark.parametrize("path", ["../canary/secret.safetensors", "a/../../canary", "/etc/passwd", "..", "a\0b"])
def test_s04_a_storage_has_no_paths_that_lead_out(world: World, path: str) -> None:
    storage = world.store.storage
    calls = (
        lambda: storage.get(path),
        lambda: storage.exists(path),
        lambda: storage.put(path, b"x"),
        lambda: storage.put_if_absent(path, b"x"),
        lambda: storage.delete(path),
        lambda: storage.names(path),
        lambda: storage.walk(path),
        lambda: storage.survey(path),
        lambda: storage.tidy(path),
        lambda: storage.persist(path),
    )
    with watched() as paths:
        for call in calls:
            with pytest.raises(Corrupt):
                call()
    assert not [p for p in paths if "canary" in p or p == "/etc/passwd"]
    world.untouched()


def test_s04_a_file_that_is_a_link_out_of_the_store_is_refused(world: World, tmp_path: Path) -> None:
    version = world.store.read(2)
    place = tmp_path / "models" / PIPELINE.name / "versions" / f"{2:020d}" / version.manifest.attempt / WEIGHTS
    place.unlink()
    place.symlink_to(world.canary / "secret.safetensors")
    with watched() as paths:
        refused(world.store)
        with pytest.raises(Corrupt, match="leads out of the store"):
            world.store.verify(2)
    assert not [path for path in paths if "canary" in path]


def test_s04_a_folder_that_is_a_link_out_of_the_store_is_neither_read_nor_emptied(world: World, tmp_path: Path) -> None:
    version = world.store.read(2)
    place = tmp_path / "models" / PIPELINE.name / "versions" / f"{2:020d}" / version.manifest.attempt
    place.rename(tmp_path / "moved")
    place.symlink_to(world.canary)
    with watched() as paths:
        refused(world.store)
        with pytest.raises(Corrupt):
            world.store.prune(2)
    assert not [path for path in paths if "canary" in path]
    world.untouched()


def test_s04_a_link_within_the_store_and_the_root_itself_may_be_links(world: World, tmp_path: Path) -> None:
    versions = tmp_path / "models" / PIPELINE.name / "versions"
    (versions / f"{2:020d}").rename(versions / "elsewhere")
    (versions / f"{2:020d}").symlink_to(versions / "elsewhere")
    (tmp_path / "alias").symlink_to(tmp_path / "models")
    assert ModelStore(LocalStorage(tmp_path / "alias"), PIPELINE.name).verify(2).number == 2


def test_s04_a_version_that_does_not_exist_is_no_file(world: World) -> None:
    for number in (0, -1, 10**30):
        with pytest.raises((NoVersion, Corrupt)):
            world.store.read(number)
