import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from httpx import Client

from serving import lineage, openapi
from serving.app import create_app
from serving.lineage import FIELDS
from stream_trainer.errors import StoreUnavailable
from stream_trainer.offsets import Loss
from stream_trainer.settings import Settings
from stream_trainer.store import ModelStore, Version
from stream_trainer.store.manifest import HistoryFile
from tests.serving.fixtures import PIPELINE, Harness, commit_version, learned_state, serving

TOPIC_ID = "11111111-2222-3333-4444-555555555555"
RANGES = {"flights.examples": {0: (3, 9), 1: (0, 4)}}
LOSS = Loss(topic="flights.examples", topic_id=TOPIC_ID, partition=0, start=0, next=3, reason="retention")
FILE = HistoryFile(name="flights.parquet", size=3, sha256="b" * 64)


@pytest.fixture
def version(store: ModelStore) -> Version:
    commit_version(store, PIPELINE, learned_state())
    return commit_version(
        store,
        PIPELINE,
        learned_state(seed=1),
        parent_sha256="a" * 64,
        ranges=RANGES,
        cuts=[RANGES],
        quarantined=[RANGES],
        lost=[LOSS],
        next_offsets={"flights.examples": {0: 9, 1: 4}},
        topic_ids={"flights.examples": TOPIC_ID},
        libraries={"torch": "2.15.0"},
        history=[FILE],
    )


def client_of(harness: Harness, profile: str = "development") -> Any:
    settings = Settings(serving={"profile": profile})
    parts: dict[str, Any] = {
        "log": harness.log,
        "follower": harness.follower,
        "metrics": harness.metrics,
        "store": harness.store,
    }
    return serving(create_app(PIPELINE, settings, clock=harness.clock, **parts))


@pytest.fixture
def client(harness: Harness) -> Iterator[Client]:
    with client_of(harness) as client:
        yield client


@pytest.mark.parametrize("profile", ["development", "production"])
def test_a_version_tells_what_it_has_learned_from(harness: Harness, version: Version, profile: str) -> None:
    with client_of(harness, profile) as client:
        answer = client.get("/lineage/2")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    told = answer.json()
    assert set(told) == {*FIELDS, "manifest_sha256"}
    assert (told["version"], told["parent"], told["previous"], told["parent_sha256"]) == (2, 1, 1, "a" * 64)
    assert told["manifest_sha256"] == version.sha256
    ranges = {"flights.examples": {"0": [3, 9], "1": [0, 4]}}
    assert (told["ranges"], told["cuts"], told["quarantined"]) == (ranges, [ranges], [ranges])
    assert told["lost"][0]["reason"] == "retention"
    assert told["next_offsets"] == {"flights.examples": {"0": 9, "1": 4}}
    assert told["rows"]["trained"] == 8
    assert told["libraries"] == {"torch": "2.15.0"}
    assert told["history"] == [{"name": "flights.parquet", "size": 3, "sha256": "b" * 64}]
    jsonschema.Draft202012Validator(openapi.lineage_schema()).validate(told)


def test_a_version_without_files_says_so(client: Client, store: ModelStore) -> None:
    commit_version(store, PIPELINE, learned_state())
    told = client.get("/lineage/1").json()
    assert told["history"] == []
    jsonschema.Draft202012Validator(openapi.lineage_schema()).validate(told)


def test_the_document_describes_the_answer(client: Client) -> None:
    document = client.get("/openapi.json").json()
    assert set(document["paths"]["/lineage/{version}"]["get"]["responses"]) == {"200", "404", "500", "503"}
    assert set(document["components"]["schemas"]["Lineage"]["properties"]) == {*FIELDS, "manifest_sha256"}


@pytest.mark.parametrize(
    "number",
    [
        "3",
        "0",
        "-1",
        "+1",
        "01",
        "1.0",
        "1e0",
        "two",
        " 1",
        "%31%20",
        "\u0661",
        "9" * 18,
        "9" * 5000,
        "..%2f1",
        "1/x",
        "",
    ],
)
def test_what_names_no_version_is_a_404_without_a_path(client: Client, version: Version, number: str) -> None:
    answer = client.get(f"/lineage/{number}")
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
    assert answer.json()["reason"] in ("unknown_version", "not_found")


def test_no_answer_names_the_store(
    harness: Harness, client: Client, version: Version, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = [client.get("/lineage/2"), client.get("/lineage/7")]
    harness.store.storage.put(f"flights/versions/{1:020d}/manifest.json", b"{}")
    damaged = client.get("/lineage/1")
    assert (damaged.status_code, damaged.json()["reason"]) == (500, "damaged_version")

    def silent(number: int) -> Version:
        raise StoreUnavailable(f"{tmp_path} does not answer")

    monkeypatch.setattr(harness.store, "read", silent)
    unavailable = client.get("/lineage/3")
    assert (unavailable.status_code, unavailable.headers["retry-after"]) == (503, "1")
    assert unavailable.json()["reason"] == "store_unavailable"
    for answer in (*told, damaged, unavailable):
        assert str(tmp_path) not in answer.text
        assert "manifest.json" not in answer.text


def test_a_store_that_hangs_delays_nobody_else(
    harness: Harness, version: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()
    real = harness.store.read

    def hanging(number: int) -> Version:
        released.wait(30)
        return real(number)

    monkeypatch.setattr(harness.store, "read", hanging)
    monkeypatch.setattr(lineage, "_MOST_WAITING", 3)
    monkeypatch.setattr(lineage.LineageEndpoint.__init__, "__kwdefaults__", {"seconds": 0.05})
    with client_of(harness) as client:
        try:
            for _ in range(3):
                answer = client.get("/lineage/2")
                assert (answer.status_code, "0.05 s" in answer.json()["detail"]) == (503, True)
            assert client.get("/health/live").status_code == 200
            assert "too many" in client.get("/lineage/2").json()["detail"]
        finally:
            released.set()


def test_what_was_told_once_needs_no_store(
    harness: Harness, client: Client, version: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = client.get("/lineage/2")
    monkeypatch.delattr(type(harness.store), "read")
    assert json.loads(client.get("/lineage/2").text) == first.json()
