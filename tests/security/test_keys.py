"""The file of keys, the commands that change it, and how a running service follows it."""

import json
import os
import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from serving.keys import KeyRing
from serving.metrics import Metrics
from stream_trainer import api_keys, cli
from stream_trainer.api_keys import change_keys, decode, digest, lifetime_hours, make_key, read_keys
from stream_trainer.errors import UsageError
from tests.security.callers import THEN, Callers

RUNNER = CliRunner()
ROOT = os.geteuid() == 0


def run(*arguments: str) -> Any:
    found = RUNNER.invoke(cli.app, ["keys", *arguments])
    assert found.exit_code == 0, found.output
    return found


def refused_count(metrics: Metrics) -> float:
    return metrics.registry.get_sample_value("stream_trainer_serving_keys_refused_total") or 0.0


def test_s05_the_file_holds_digests_and_no_key_and_only_its_owner_reads_it(callers: Callers) -> None:
    data = callers.path.read_text()
    assert stat.S_IMODE(callers.path.stat().st_mode) == 0o600
    for name, text in callers.texts.items():
        assert text not in data
        assert text.split("_")[2] not in data
        assert callers.keys[name].sha256 == digest(text.encode()).hex()
        assert callers.keys[name].sha256 in data
    assert read_keys(callers.path) == tuple(callers.keys.values())
    assert list(callers.path.parent.glob(".*")) == []


def test_s05_a_key_has_256_random_bits_and_no_two_are_alike(callers: Callers) -> None:
    secrets = [text.split("_")[2] for text in callers.texts.values()]
    assert {len(bytes.fromhex(secret)) for secret in secrets} == {32}
    assert len(set(secrets)) == len(secrets)
    asked: list[int] = []

    def random(size: int) -> bytes:
        asked.append(size)
        return bytes(size)

    text, key = make_key("n", ["predict"], created=THEN, random=random)
    assert (asked, text, key.id) == ([6, 32], f"st_{'0' * 12}_{'0' * 64}", "0" * 12)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o602, 0o620, 0o666])
def test_s05_a_file_that_others_may_read_or_write_is_refused(callers: Callers, mode: int) -> None:
    callers.path.chmod(mode)
    with pytest.raises(UsageError, match="chmod 600"):
        read_keys(callers.path)


@pytest.mark.parametrize(
    ("owner", "mode", "fine"), [(0, 0o440, True), (0, 0o640, True), (0, 0o460, False), (1, 0o600, False)]
)
def test_s05_a_mounted_secret_of_root_may_be_read_through_its_group(owner: int, mode: int, fine: bool) -> None:
    class Found:
        st_mode = stat.S_IFREG | mode
        st_uid = owner

    def check() -> None:
        api_keys._refuse_exposed(Path("keys.json"), Found())  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: 1000)
        if fine:
            check()
        else:
            with pytest.raises(UsageError):
                check()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        '{"format": 2, "keys": []}',
        '{"keys": [], "more": 1}',
        '{"keys": [{"id": "../x", "name": "n", "scopes": ["predict"], "created": "2026-01-01T00:00:00Z", "sha256": "aa"}]}',
    ],
)
def test_s05_a_file_that_holds_something_else_is_refused(callers: Callers, text: str) -> None:
    callers.path.write_text(text)
    with pytest.raises(UsageError, match="not a usable file of API keys"):
        read_keys(callers.path)


def test_s05_two_keys_of_one_id_a_folder_and_no_file_are_refused(callers: Callers, tmp_path: Path) -> None:
    document = json.loads(callers.path.read_text())
    document["keys"].append(document["keys"][0])
    with pytest.raises(ValueError, match="same id"):
        decode(json.dumps(document).encode())
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError):
        read_keys(tmp_path / "folder")
    with pytest.raises(UsageError, match="keys create"):
        read_keys(tmp_path / "none.json")
    callers.path.write_bytes(b" " * (api_keys.MOST_BYTES + 1))
    with pytest.raises(UsageError, match="larger"):
        read_keys(callers.path)


def test_s05_a_change_that_fails_leaves_the_file_and_nothing_else(
    callers: Callers, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = callers.path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UsageError, match="No space left"):
        change_keys(callers.path, lambda _: ())
    assert callers.path.read_bytes() == before
    assert [p.name for p in callers.path.parent.iterdir() if "keys" in p.name] == ["keys.json"]


def test_s05_of_two_who_add_keys_at_once_none_is_lost(tmp_path: Path) -> None:
    callers = Callers(tmp_path / "keys.json")

    def add(name: str) -> None:
        for n in range(10):
            callers.add(f"{name}{n}", "predict")

    threads = [threading.Thread(target=add, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_keys(callers.path)) == 20


def test_s05_a_key_ends_at_its_instant(callers: Callers) -> None:
    now = [0.0]
    ring = callers.ring(now=lambda: now[0])
    expired = callers.texts["expired"].encode()
    end = (THEN + timedelta(days=1)).timestamp()
    for instant, valid in ((end - 1, True), (end, False), (end + 1, False)):
        now[0] = instant
        assert (ring.verify(expired) is not None) is valid


def test_s05_what_is_revoked_or_added_counts_when_the_file_is_looked_at(callers: Callers) -> None:
    ring = callers.ring()
    gone, stays = callers.texts["admin"].encode(), callers.texts["predict"].encode()
    bucket = ring.verify(stays)
    assert ring.verify(gone) is not None
    assert bucket is not None
    change_keys(callers.path, lambda keys: tuple(k for k in keys if k.id != callers.keys["admin"].id))
    added = callers.add("later", "predict").encode()
    ring.look()
    after = ring.verify(stays)
    assert ring.verify(gone) is None
    assert ring.verify(added) is not None
    assert after is not None
    assert after.bucket is bucket.bucket


@pytest.mark.parametrize("harm", ["broken", "exposed", "deleted"])
def test_s05_a_file_that_becomes_unusable_leaves_the_last_good_keys_and_is_counted(callers: Callers, harm: str) -> None:
    metrics = Metrics()
    ring = callers.ring(metrics)
    good = callers.texts["predict"].encode()
    data = callers.path.read_bytes()
    if harm == "broken":
        callers.path.write_bytes(b"{")
    elif harm == "exposed":
        callers.path.chmod(0o666)
    else:
        callers.path.unlink()
    ring.look()
    assert ring.verify(good) is not None
    assert refused_count(metrics) == 1
    ring.look()
    assert refused_count(metrics) == 1, "the same harm counts once"
    callers.path.write_bytes(data)
    callers.path.chmod(0o600)
    ring.look()
    assert ring.verify(good) is not None
    assert refused_count(metrics) == 1


def test_s05_the_file_is_watched_by_a_thread(callers: Callers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.keys.LOOK_SECONDS", 0.01)
    ring = callers.ring()
    taken = threading.Event()
    real = KeyRing._made_of

    def made_of(self: KeyRing, keys: Any) -> Any:
        taken.set()
        return real(self, keys)

    monkeypatch.setattr(KeyRing, "_made_of", made_of)
    ring.start()
    callers.add("later", "predict")
    assert taken.wait(10)
    ring.stop()
    assert not ring._thread.is_alive()


def test_s05_no_keys_in_the_file_means_nobody_not_everybody(callers: Callers) -> None:
    change_keys(callers.path, lambda _: ())
    ring = callers.ring()
    assert [ring.verify(text.encode()) for text in callers.texts.values()] == [None] * 4


def test_create_prints_the_key_once_and_a_service_takes_it(tmp_path: Path) -> None:
    path = str(tmp_path / "new" / "keys.json")
    text = run("create", "web-shop", "--file", path).stdout.strip()
    told = json.loads(
        run(
            *("create", "ops", "--scope", "admin", "--scope", "predict", "--expires", "90d", "--rate", "5"),
            *("--file", path, "--json"),
        ).stdout
    )
    assert told["key"].startswith(f"st_{told['id']}_")
    assert (told["scopes"], told["rate"], told["burst"], told["expired"]) == (["predict", "admin"], 5.0, None, False)
    listed = run("list", "--file", path)
    listed_json = json.loads(run("list", "--file", path, "--json").stdout)
    assert [key["name"] for key in listed_json] == ["web-shop", "ops"]
    for shown in (listed.stdout, json.dumps(listed_json), Path(path).read_text()):
        assert text not in shown
        assert told["key"] not in shown
    assert "sha256" not in listed_json[0]
    ring = KeyRing(Path(path), Metrics(), rate=1, burst=1)
    known = ring.verify(text.encode())
    assert known is not None
    assert known.caller.scopes == {"predict"}
    left = datetime.fromisoformat(told["expires"]) - datetime.now(UTC)
    assert timedelta(days=89) < left <= timedelta(days=90)


def test_revoke_takes_one_away_and_says_when_there_is_none(callers: Callers) -> None:
    path, key_id = str(callers.path), callers.keys["admin"].id
    assert json.loads(run("revoke", key_id, "--file", path, "--json").stdout) == {"revoked": key_id, "left": 3}
    assert key_id not in callers.path.read_text()
    again = RUNNER.invoke(cli.app, ["keys", "revoke", key_id, "--file", path]).exception
    assert isinstance(again, UsageError)
    missing = RUNNER.invoke(cli.app, ["keys", "revoke", key_id, "--file", path + "x"]).exception
    assert isinstance(missing, UsageError)
    assert not Path(path + "x").exists()
    assert "expired" in run("list", "--file", path).stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["create", "n", "--scope", "root"],
        ["create", "n", "--expires", "soon"],
        ["create", "n", "--expires", "0d"],
        ["create", "n\n", "--scope", "predict"],
        ["create", "", "--scope", "predict"],
        ["create", "n" * 101],
        ["create", "n", "--rate", "0"],
        ["create", "n", "--burst", "0"],
        ["create", "n", "--rate", "nan"],
    ],
)
def test_a_key_that_makes_no_sense_is_refused_and_nothing_written(tmp_path: Path, arguments: list[str]) -> None:
    found = RUNNER.invoke(cli.app, ["keys", *arguments, "--file", str(tmp_path / "keys.json")])
    assert isinstance(found.exception, UsageError), found.output
    assert list(tmp_path.iterdir()) == []


def test_the_setting_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = RUNNER.invoke(cli.app, ["keys", "list"]).exception
    assert "STREAM_TRAINER_SERVING__KEYS_FILE" in str(missing)
    monkeypatch.setenv("STREAM_TRAINER_SERVING__KEYS_FILE", str(tmp_path / "keys.json"))
    run("create", "n")
    assert len(json.loads(run("list", "--json").stdout)) == 1


@pytest.mark.parametrize(("text", "hours"), [("1h", 1), ("90d", 2160)])
def test_lifetimes(text: str, hours: int) -> None:
    assert lifetime_hours(text) == hours
