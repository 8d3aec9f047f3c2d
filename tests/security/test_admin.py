"""The admin port: the same decisions as the commands, by whom the key says, and what it refuses."""

import json
import logging
from typing import Any

import pytest

from serving.announcements import KafkaAnnouncements
from stream_trainer import championing
from stream_trainer.errors import StoreUnavailable
from stream_trainer.settings import KafkaSettings
from stream_trainer.store import ModelStore
from stream_trainer.store.aliases import CHAMPION
from tests.security.callers import Asker, Callers, Doors, bearer, client, doors
from tests.serving.fixtures import PIPELINE, commit_version, learned_state


@pytest.fixture
def there(store: ModelStore, callers: Callers) -> Doors:
    return doors(store, callers.ring())


@pytest.fixture
def order(there: Doors, callers: Callers) -> Any:
    asker = Asker(there.admin)

    def send(path: str, **body: Any) -> Any:
        return asker.post(path, headers=bearer(callers.texts["admin"]), json=body)

    return send


def test_each_order_appends_what_the_command_would_and_says_who(
    order: Any, there: Doors, store: ModelStore, callers: Callers, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "serving.admin")
    told = order("/rollback", reason="answers look wrong").json()
    assert (told["champion"], told["hold"], told["alias"], told["announced"]) == (1, True, 1, False)
    assert told["reason"] == "answers look wrong"
    key = callers.keys["admin"].id
    assert told["by"].startswith(f"key {key} (admin) through the admin port of ")
    number, alias = store.alias_entry(CHAMPION)
    assert alias is not None
    assert (number, alias.version, alias.hold, alias.by) == (1, 1, True, told["by"])
    assert order("/release").json()["champion"] == 2
    assert order("/pin", version=1).json()["hold"] is True
    promoted = order("/promote", version=2, hold=True).json()
    assert (promoted["champion"], promoted["hold"], promoted["alias"]) == (2, True, 4)
    assert len(there.looks) == 4
    said = [r.getMessage() for r in caplog.records if r.levelname == "INFO"]
    assert [line.split(" by ")[0] for line in said] == ["rollback", "release", "pin", "promote"]
    assert all(key in line for line in said)
    assert all(text not in caplog.text for text in callers.texts.values())


def test_status_says_what_serves_and_what_should(order: Any, there: Doors, callers: Callers) -> None:
    asker, key = client(there.admin), bearer(callers.texts["admin"])
    before = asker.get("/status", headers=key).json()
    assert (before["model_name"], before["model_version"], before["newest_version"], before["champion"]) == (
        "flights",
        2,
        2,
        None,
    )
    order("/pin", version=1)
    there.harness.follower.look()
    after = asker.get("/status", headers=key).json()
    assert (after["model_version"], after["champion"]["version"], after["champion"]["hold"]) == (1, 1, True)
    assert asker.get("/health/live").json() == {"status": "live"}


def test_a_reload_asks_for_a_look_at_the_store(order: Any, there: Doors) -> None:
    answer = order("/reload")
    assert (answer.status_code, answer.json()["status"], len(there.looks)) == (202, "looking", 1)


def test_a_reload_ends_the_wait_for_announcements_once() -> None:
    polled: list[float] = []

    class Silent:
        def poll(self, timeout: float) -> None:
            polled.append(timeout)

    source = KafkaAnnouncements(KafkaSettings(bootstrap_servers="127.0.0.1:1"), "flights.models", lambda: None)
    source._consumer = Silent()  # type: ignore[assignment]
    source.hurry()
    assert source.poll(3600) == []
    assert len(polled) == 1
    source.poll(0.0)
    assert not source._asked.is_set()


def test_what_the_versions_do_not_allow_is_said_without_a_path(
    order: Any, store: ModelStore, caplog: pytest.LogCaptureFixture
) -> None:
    store.prune(1)
    third = commit_version(store, PIPELINE, learned_state())
    store.storage.delete(f"flights/versions/{3:020d}/{third.manifest.attempt}/weights.safetensors")
    for path, body, reason in (
        ("/promote", {"version": 99}, "unknown_version"),
        ("/pin", {"version": 1}, "pruned"),
        ("/rollback", {"version": 3}, "damaged_version"),
        ("/release", {}, "nothing_held"),
    ):
        answer = order(path, **body)
        assert (answer.status_code, answer.json()["reason"]) == (409, reason)
        assert store.storage.url not in answer.text
    assert store.storage.url in caplog.text
    assert store.alias_entry(CHAMPION) == (0, None)


@pytest.mark.parametrize(
    "body",
    [
        {"version": 0},
        {"version": -1},
        {"version": 1.5},
        {"version": "1"},
        {"version": 10**18},
        {"version": 1, "by": "me"},
        {"version": 1, "reason": "x" * 501},
        {"version": 1, "reason": "a\nb"},
        {"version": 1, "reason": "\x1b[31m"},
        {},
    ],
)
def test_an_order_that_makes_no_sense_is_refused(order: Any, store: ModelStore, body: dict[str, Any]) -> None:
    answer = order("/promote", **body)
    assert (answer.status_code, answer.json()["reason"]) == (422, "invalid_value")
    assert store.alias_entry(CHAMPION) == (0, None)


def test_a_form_a_large_body_and_deep_nesting_are_refused(there: Doors, callers: Callers) -> None:
    asker, key = client(there.admin), bearer(callers.texts["admin"])
    as_json = key | {"content-type": "application/json; charset=utf-8"}
    assert asker.post("/rollback", headers=key, data={"version": "1"}).status_code == 415
    assert asker.post("/reload", headers=key).status_code == 415
    assert asker.post("/rollback", headers=as_json, content=b" " * 20_000).status_code == 413
    assert asker.post("/rollback", headers=as_json, content=b"[" * 10_000).status_code == 422
    assert asker.post("/rollback", headers=as_json).status_code == 200


def test_a_store_that_does_not_answer_is_not_the_callers_fault(order: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: Any, **__: Any) -> None:
        raise StoreUnavailable("s3://secret-bucket did not answer")

    monkeypatch.setattr(championing, "rollback", gone)
    answer = order("/rollback")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert "secret-bucket" not in json.dumps(answer.json())


def test_why_others_were_not_told_stays_in_the_log(order: Any, caplog: pytest.LogCaptureFixture) -> None:
    answer = order("/rollback")
    assert answer.json()["announced"] is False
    assert "no Kafka is configured" in caplog.text
    assert "Kafka" not in answer.text
