"""Each wire format has a JSON Schema that real objects satisfy and broken ones do not."""

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from stream_trainer import lineage as lineages
from stream_trainer.contract import RESERVED_FIELDS
from stream_trainer.decode import decode
from stream_trainer.errors import Corrupt
from stream_trainer.joining.commits import digest
from stream_trainer.joining.matching import unmatched
from stream_trainer.joining.recovery import Marker
from stream_trainer.outbox import announcement, rejected_key, rejected_value
from stream_trainer.store import manifest as manifests
from stream_trainer.store.aliases import Alias
from stream_trainer.store.challenges import Challenge
from stream_trainer.store.manifest import Manifest
from stream_trainer.store.store import Intent
from tests.core.test_decode import POISON, table
from tests.core.test_microbatch import PIPELINE, World, fill
from tests.core.worlds import CONTRACT, GOOD, NOW, arrow_bytes, code, decoded, flight, kafka_batch

FOLDER = Path(__file__).parents[2] / "docs" / "schemas"
Change = Callable[[dict[str, Any]], object]


@cache
def validator(name: str) -> Any:
    return jsonschema.Draft202012Validator(json.loads((FOLDER / f"{name}.json").read_text()))


def accepts(name: str, value: Any) -> bool:
    return bool(validator(name).is_valid(value))


def check(name: str, value: Any) -> None:
    validator(name).validate(value)


def as_json(value: Any) -> Any:
    return json.loads(msgspec.json.encode(msgspec.to_builtins(value, str_keys=True)))


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json")), ids=lambda p: p.stem)
def test_every_schema_is_one(path: Path) -> None:
    schema = json.loads(path.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$schema"].endswith("2020-12/schema")
    assert schema["title"]


def test_there_is_a_schema_for_each_format() -> None:
    names = {p.stem for p in FOLDER.glob("*.json")}
    assert names >= {
        "example",
        "prediction",
        "rejected",
        "announcement",
        "alert",
        "manifest",
        "intent",
        "alias",
        "action",
    }


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    made = World(tmp_path_factory.mktemp("models"))
    for n in range(2):
        fill(made, 40 * n)
        made.learn()
    return made


def manifest_of(world: World, number: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(world.store.storage.get(f"flights/versions/{number:020d}/manifest.json"))
    return found


@pytest.mark.parametrize("number", [1, 2])
def test_a_committed_manifest_fits(world: World, number: int) -> None:
    check("manifest", manifest_of(world, number))


def test_the_manifests_schema_names_the_fields_of_the_manifest() -> None:
    schema = validator("manifest").schema
    fields = set(Manifest.__struct_fields__)
    assert (set(schema["properties"]), set(schema["required"])) == (
        fields,
        fields - {"checksum", "history", "signature", "actions", "asked", "acted_before", "negative_rate", "scoring"},
    )


BROKEN_MANIFESTS: dict[str, Change] = {
    "a field more": lambda m: m.update(extra=1),
    "no offsets": lambda m: m.pop("next_offsets"),
    "version 0": lambda m: m.update(version=0),
    "a newer format": lambda m: m.update(format_version=2),
    "a short digest": lambda m: m["files"]["weights.safetensors"].update(sha256="abc"),
    "no weights": lambda m: m["files"].pop("weights.safetensors"),
    "a file outside": lambda m: m["files"].update({"../x.arrow": {"size": 1, "sha256": "a" * 64}}),
    "a negative offset": lambda m: m["next_offsets"].update(t={"0": -1}),
    "a partition that is no number": lambda m: m["next_offsets"].update(t={"x": 1}),
    "a range of one end": lambda m: m["ranges"].update(t={"0": [1]}),
    "a range of three": lambda m: m["ranges"].update(t={"0": [1, 2, 3]}),
    "a loss without a reason": lambda m: m.update(
        lost=[{"topic": "t", "topic_id": "", "partition": 0, "start": 1, "next": 2}]
    ),
    "a local time": lambda m: m.update(created_at="2026-01-01T12:00:00+01:00"),
    "rows that lack a count": lambda m: m["rows"].pop("seen"),
    "a gate without a verdict": lambda m: m["gates"].append({"gate": "x"}),
    "no scores": lambda m: m.update(metrics={}),
}


@pytest.mark.parametrize("change", BROKEN_MANIFESTS.values(), ids=BROKEN_MANIFESTS.keys())
def test_a_broken_manifest_does_not_fit(world: World, change: Change) -> None:
    broken = manifest_of(world, 2)
    change(broken)
    assert not accepts("manifest", broken)


def test_a_stored_intent_fits_and_a_broken_one_does_not(world: World) -> None:
    stored = json.loads(world.store.storage.get(f"flights/intents/{2:020d}/0.json"))
    check("intent", stored)
    assert set(stored) == set(Intent.__struct_fields__) - {"asked"}
    for change in ({"version": 0}, {"cut": -1}, {"ranges": {"t": {"0": [0, -1]}}}, {"more": 1}, {"run_id": ""}):
        assert not accepts("intent", stored | change)
    assert not accepts("intent", {k: v for k, v in stored.items() if k != "ranges"})


def test_an_alias_fits_and_a_broken_one_does_not() -> None:
    alias = as_json(Alias(version=3, reason="better", by="me", at=NOW, hold=True))
    check("alias", alias)
    assert set(alias) == set(Alias.__struct_fields__) - {"action"}
    check("alias", alias | {"action": "0" * 32})
    assert json.loads(manifests.canonical_json(alias)) == alias
    for change in ({"version": 0}, {"at": "yesterday"}, {"hold": 1}, {"more": 1}, {"promotion": "never"}):
        assert not accepts("alias", alias | change)


@pytest.mark.parametrize("promotion", ["auto", "manual", "gated", None])
@pytest.mark.parametrize("hold", [True, False])
def test_an_alias_without_a_version_fits_where_the_store_can_read_it(
    tmp_path: Path, promotion: str | None, hold: bool
) -> None:
    alias = {"version": None, "reason": "", "by": "", "at": "2026-01-01T00:00:00Z", "hold": hold}
    alias |= {} if promotion is None else {"promotion": promotion}
    store = World(tmp_path).store
    store.storage.put("flights/aliases/champion/1.json", json.dumps(alias).encode())
    try:
        read = store.alias("champion") is not None
    except Corrupt:
        read = False
    if promotion is not None:  # JSON Schema's `const` says nothing of a field that is missing
        assert accepts("alias", alias) is read
    assert read is (promotion in ("manual", "gated") and not hold)


def test_a_challenger_fits_and_a_broken_one_does_not(tmp_path: Path) -> None:
    store = World(tmp_path).store
    canary = Challenge(version=3, reason="wider", by="me", at=NOW, mode="canary", share=0.1, decide="manual")
    nobody = Challenge(version=None, reason="worse", by="trial", at=NOW)
    for number, challenge in enumerate((canary, nobody)):
        assert store.challenges.append(challenge, number) == number + 1
        value = json.loads(store.storage.get(f"flights/aliases/challenger/{number + 1}.json"))
        check("challenger", value)
        assert set(value) == set(validator("challenger").schema["required"]) == set(Challenge.__struct_fields__)
        for change in (
            {"version": 0},
            {"at": "yesterday"},
            {"share": 1.1},
            {"mode": "both"},
            {"more": 1},
            {"decide": ""},
        ):
            assert not accepts("challenger", value | change), change


@pytest.mark.parametrize("mode", ["shadow", "canary"])
@pytest.mark.parametrize("share", [-0.1, 0, 0.0, 1e-9, 1, 1.5])
def test_a_share_fits_the_mode_where_the_store_can_read_it(tmp_path: Path, mode: str, share: float) -> None:
    value = {"version": 3, "mode": mode, "share": share, "reason": "", "by": "", "at": "2026-01-01T00:00:00Z"}
    value |= {"decide": "auto"}
    store = World(tmp_path).store
    store.storage.put("flights/aliases/challenger/1.json", json.dumps(value).encode())
    try:
        read = store.challenges.newest().version == 3
    except Corrupt:
        read = False
    assert accepts("challenger", value) is read is (0 < share <= 1 if mode == "canary" else share == 0)


def test_the_mark_of_a_pruned_version_fits(tmp_path: Path) -> None:
    made = World(tmp_path)
    fill(made)
    made.learn()
    made.store.prune(1)
    check("pruned", json.loads(made.store.storage.get(f"flights/versions/{1:020d}/pruned.json")))
    assert not accepts("pruned", {"version": 0})


def test_an_announcement_fits_and_a_broken_one_does_not(world: World) -> None:
    value = as_json(announcement(world.store.read(2), NOW, NOW + timedelta(seconds=1), alias=3))
    check("announcement", value)
    assert (value["alias"], set(value)) == (3, set(validator("announcement").schema["properties"]))
    for change in ({"version": 0}, {"manifest_sha256": "x"}, {"at": None}, {"alias": -1}):
        assert not accepts("announcement", value | change)


def rejected_rows() -> list[dict[str, Any]]:
    values = [value for value, _ in POISON.values()]
    rows: list[dict[str, Any]] = decode(CONTRACT, kafka_batch(values)).to_pylist()
    arrow = arrow_bytes(table(2, late=[2, 3]))
    rows += decode(CONTRACT, kafka_batch([arrow, b"garbage"], arrow=True)).to_pylist()
    return rows


def test_every_kind_of_rejected_record_fits() -> None:
    rows = rejected_rows()
    assert len(rows) == len(POISON) + 3
    for row in rows:
        value = as_json(rejected_value(row, NOW))
        check("rejected", value)
        assert len(base64.b64decode(value["bytes"])) == min(value["length"], 65_536)


def test_the_key_of_a_rejected_row_is_its_place() -> None:
    assert rejected_key("flights.examples", 1, 22, 3) == "flights.examples-1-22-3"


def test_a_broken_rejected_record_does_not_fit() -> None:
    value = as_json(rejected_value(rejected_rows()[0], NOW))
    for change in (
        {"offset": -1},
        {"row": "0"},
        {"reason": "because"},
        {"reason": "unheard_of: x"},
        {"sha256": "A" * 64},
        {"bytes": "not base64!"},
        {"bytes": "AAAA" * 21_847},
        {"rejected_at": "2026-01-01 12:00"},
        {"more": 1},
    ):
        assert not accepts("rejected", value | change), change
    assert not accepts("rejected", {k: v for k, v in value.items() if k != "topic"})


def test_an_example_that_the_decoder_reads_fits() -> None:
    examples = [GOOD, *(flight(i) for i in range(5)), GOOD | {"scheduled_at": 1e9, "late": 1, "flight_id": 7}]
    examples.append(GOOD | dict.fromkeys(RESERVED_FIELDS))
    examples.append(GOOD | {"_prediction_id": "p", "_model_version": 3, "_output": 0.5, "_weight": 1.0})
    for example in examples:
        check("example", example)
        assert [code(row) for row in decoded(example)] == [None]


def test_a_broken_example_does_not_fit() -> None:
    for broken in (
        None,
        [GOOD],
        {},
        GOOD | {"place": ["x"]},
        GOOD | {"place": []},
        GOOD | {"distance": {"km": 3}},
        GOOD | {"_model_version": 0},
        GOOD | {"_mine": 1},
        GOOD | {"_label_time": "2026-01-01T10:00:00"},
        GOOD | {"flight_id": "x" * 1025},
    ):
        assert not accepts("example", broken), broken


def test_reserved_names_are_those_of_the_example_schema() -> None:
    assert set(validator("example").schema["properties"]) == set(RESERVED_FIELDS)


def test_the_files_of_a_version_are_those_of_the_schema(world: World) -> None:
    required = set(validator("manifest").schema["properties"]["files"]["required"])
    assert required == set(lineages.to_files(PIPELINE, world.lineage))


def test_records_of_the_joiner() -> None:
    at, value = datetime(2026, 1, 1, tzinfo=UTC), b'{"prediction_id": "a", "label": true}'
    check("label", json.loads(value))
    assert not accepts("label", {"prediction_id": "a"})
    milliseconds = int(at.timestamp() * 1000)
    for reason, detail in (("late", None), ("unreadable", "invalid_json: malformed")):
        check("unmatched", json.loads(unmatched("a", "p.labels/0/3", milliseconds, reason, value, detail).value))
    ends = {"p.examples": {0: 3}}
    marker = Marker(
        query_id="q",
        batch_id=0,
        next_offsets=ends,
        digest=digest(["a"]),
        at=1,
        compare_from=ends,
        compare_to=ends,
        settled=1,
        waiting={0: 2},
        waited={0: 1},
    )
    check("join_commit", as_json(marker))
    assert msgspec.json.decode(msgspec.json.encode(marker), type=Marker) == marker
