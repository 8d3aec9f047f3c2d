"""Replay over a log in memory: an honest history is identical, and whatever is changed in it is named."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from stream_trainer import lineage as lineages
from stream_trainer import offsets, reference, versions
from stream_trainer.differences import Difference
from stream_trainer.errors import InputLost, NoVersion, StoreDamaged, UsageError
from stream_trainer.evaluation.table import EVALUATION
from stream_trainer.gates import Evidence
from stream_trainer.learner import Batch, LearnReport, State
from stream_trainer.learners import Sgd
from stream_trainer.learning import Cut
from stream_trainer.offsets import Ranges
from stream_trainer.replay import Progress, Replay, replay
from stream_trainer.store import ModelStore, tensors
from stream_trainer.store.manifest import FileEntry, Manifest, Verdict, encode, sha256
from stream_trainer.store.storage import LocalStorage
from stream_trainer.store.store import TRAINER, WEIGHTS
from tests.core.test_microbatch import BAD, PIPELINE, Suspicious, World, fill
from tests.core.worlds import TOPIC, MemoryLog, flight

TOPIC_ID = "11111111-2222-3333-4444-555555555555"
SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "schemas" / "replay.json").read_text())


@dataclass(slots=True)
class Records:
    """What a replay reads: a log in memory, of which the beginning may be gone."""

    log: MemoryLog
    starts: dict[int, int] = field(default_factory=dict)
    reads: int = 0

    def check(self, ranges: Ranges, topic_ids: Mapping[str, str]) -> None:
        assert topic_ids[TOPIC] == TOPIC_ID
        for partition, (start, end) in ranges[TOPIC].items():
            first = self.starts.get(partition, 0)
            if start < min(first, end):
                raise InputLost(f"{TOPIC}[{partition}]: offsets {start} to {min(first, end) - 1} are gone")

    def read(self, ranges: Ranges, topic_ids: Mapping[str, str]) -> pa.Table:
        self.reads += 1
        self.check(ranges, topic_ids)
        return self.log.fetch(Cut(ranges=ranges, covered_at=None), backwards=True)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return trained(World(tmp_path), 4)


def trained(world: World, count: int) -> World:
    for n in range(count):
        fill(world, 40 * n)
        world.learn()
    return world


def replayed(world: World, to: int | None = None, *, records: Records | None = None, **options: Any) -> Replay:
    given_records = records or Records(world.log)
    report = replay(world.pipeline, world.store, given_records.read, to=to or world.store.highest(), **options)
    jsonschema.Draft202012Validator(SCHEMA).validate(json.loads(msgspec.json.encode(report)))
    return report


def difference(world: World, **options: Any) -> Difference:
    found = replayed(world, **options).first_difference
    assert found is not None
    return found


def rewrite(world: World, number: int, **fields: Any) -> None:
    """Change a manifest in the store, as somebody might who wants the history to look otherwise."""
    changed = msgspec.structs.replace(world.store.read(number).manifest, **fields)
    world.store.storage.put(f"flights/versions/{number:020d}/manifest.json", encode(changed))


def test_the_schema_names_the_fields_of_the_report() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert set(SCHEMA["properties"]) == set(SCHEMA["required"]) == set(Replay.__struct_encode_fields__)
    assert set(SCHEMA["$defs"]["difference"]["properties"]) == set(Difference.__struct_encode_fields__)


def test_an_honest_history_is_identical(world: World) -> None:
    said: list[Progress] = []
    report = replayed(world, progress=said.append)
    assert report.identical
    assert (report.start, report.to, report.versions, report.rows) == (None, 4, 4, 160)
    assert (report.first_difference, report.environment) == (None, [])
    assert report.libraries == versions.libraries()
    assert [(p.version, p.done, p.of, p.rows) for p in said] == [(n, n, 4, 40 * n) for n in (1, 2, 3, 4)]


def test_an_older_version_needs_only_what_came_before_it(world: World) -> None:
    records = Records(world.log)
    report = replayed(world, 2, records=records)
    assert (report.identical, report.versions, records.reads) == (True, 2, 2)


def test_cuts_that_made_no_version_of_their_own_are_replayed_one_by_one(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.log.append(0, BAD, BAD)
    world.log.append(1, BAD)
    world.learn()
    trained(world, 2)
    records = Records(world.log)
    assert replayed(world, records=records).identical
    assert records.reads == 3


def test_a_quarantined_batch_is_judged_again(tmp_path: Path) -> None:
    gate = Suspicious()
    world = trained(World(tmp_path, replace(PIPELINE, gates=(gate,))), 1)
    gate.closed = True
    fill(world, 40)
    world.learn()
    rows = world.store.read(2).manifest.rows
    assert rows.quarantined == 36
    judge = ByPosition(world, {2})
    world.pipeline = replace(PIPELINE, gates=(judge,))
    assert replayed(world).identical
    judge.closed_for = set()
    judge.asked = 0
    found = difference(world)
    assert found.version == 2
    assert "a gate judges otherwise: gates differ" in found.reasons
    assert {f.name for f in found.fields} >= {"gates", "quarantined", "rows"}
    assert found.files[0] == WEIGHTS


class ByPosition:
    """A gate that stops the n-th batches that it is asked about."""

    def __init__(self, world: World, closed_for: set[int]) -> None:
        self.closed_for = closed_for
        self.asked = 0

    def judge(self, evidence: Evidence) -> Verdict:
        self.asked += 1
        stop = self.asked in self.closed_for
        return Verdict(gate="suspicious", passed=not stop, detail="told to" if stop else "")


@pytest.mark.parametrize("start", [1, 2, 3])
def test_a_replay_can_begin_with_the_state_of_a_parent(world: World, start: int) -> None:
    records = Records(world.log)
    report = replayed(world, records=records, start=start)
    assert (report.identical, report.start, report.versions, records.reads) == (True, start, 4 - start, 4 - start)


@pytest.mark.parametrize("start", [4, 5, 9])
def test_a_start_that_is_no_parent_is_refused(world: World, start: int) -> None:
    with pytest.raises(UsageError, match=rf"--from {start}: not one of the versions that version 4 .* learned from"):
        replayed(world, start=start)


def test_a_version_that_is_not_there_is_said_to_be_missing(world: World) -> None:
    with pytest.raises(NoVersion, match="no version 9"):
        replayed(world, 9)


def test_weights_follow_the_parent_not_the_version_before(world: World) -> None:
    head = world.store.head()
    assert head is not None
    world.lineage = lineages.load(world.pipeline, world.store, head, world.store.verify(2))
    trained_on = [5, 6]
    for n in trained_on:
        fill(world, 40 * n)
        world.learn()
    assert world.store.read(5).manifest.parent == 2
    records = Records(world.log)
    report = replayed(world, 6, records=records)
    assert (report.identical, report.versions, records.reads) == (True, 4, 4)
    assert replayed(world, 4).versions == 4
    with pytest.raises(UsageError, match="--from 3"):
        replayed(world, 6, start=3)


def test_versions_without_data_are_compared_all_the_same(world: World) -> None:
    for number in (1, 2, 3):
        world.store.prune(number)
    assert replayed(world).identical
    assert replayed(world, 3).identical
    with pytest.raises(UsageError, match="--from 2: retention has deleted its data"):
        replayed(world, start=2)


def test_a_damaged_version_is_not_in_the_chain(world: World) -> None:
    (path,) = [p for p in world.store.storage.walk(f"flights/versions/{4:020d}") if p.endswith(WEIGHTS)]
    world.store.storage.put(path, b"torn")
    world.restart()
    fill(world, 160)
    world.learn()
    assert [world.store.read(n).manifest.parent for n in (5, 6)] == [3, 5]
    report = replayed(world)
    assert (report.identical, report.versions) == (True, 5)


def without_nulls(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if value is not None}


def replace_record(world: World, partition: int, offset: int, value: bytes) -> None:
    world.log.partitions[partition][offset] = value


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"distance": 1.0}, "other records"),
        ({"late": None}, "trained 35 instead of 36, rejected 5 instead of 4"),
        ({"carrier": "BB"}, "other records"),
        ({"unheard_of": 1}, "other records"),
    ],
)
@pytest.mark.parametrize("number", [1, 3])
def test_one_changed_record_is_found(world: World, number: int, change: dict[str, Any], says: str) -> None:
    i = 40 * (number - 1) + 2
    replace_record(world, 0, i // 2, msgspec.json.encode(without_nulls(flight(i) | change)))
    found = difference(world)
    assert found.version == number
    assert says in " ".join(found.reasons)


def test_one_changed_label_is_found_and_laid_to_the_records(world: World) -> None:
    i = 82
    turned = flight(i)
    replace_record(world, 0, i // 2, msgspec.json.encode({**turned, "late": not turned["late"]}))
    found = difference(world)
    assert (found.version, found.file) == (3, WEIGHTS)
    assert "other records" in " ".join(found.reasons)
    assert found.tensor is not None
    assert (found.tensor.elements or 0) > 0


@settings(max_examples=12, deadline=None)
@given(i=st.integers(0, 159).filter(lambda i: i % 10 != 9), distance=st.floats(5_001, 10_000))
def test_any_one_record_counts(tmp_path_factory: pytest.TempPathFactory, i: int, distance: float) -> None:
    world = trained(World(tmp_path_factory.mktemp("any")), 4)
    replace_record(world, i % 2, i // 2, msgspec.json.encode(flight(i, distance=distance)))
    assert difference(world).version == i // 40 + 1


def forge_tensor(world: World, number: int, file: str, name: str) -> None:
    """Change one number of a stored tensor, and the manifest's digest with it."""
    version = world.store.read(number)
    stored = tensors.from_bytes(world.store.file(version, file), "test")
    stored[name] = stored[name].clone()
    stored[name].view(-1)[0] += 0.5
    data = tensors.to_bytes(stored)
    world.store.storage.put(f"flights/versions/{number:020d}/{version.manifest.attempt}/{file}", data)
    entry = FileEntry(size=len(data), sha256=sha256(data))
    rewrite(world, number, files={**version.manifest.files, file: entry})


@pytest.mark.parametrize(("file", "name"), [(WEIGHTS, "net.skip.weight"), (TRAINER, "learner.optimizer.0.exp_avg")])
def test_one_changed_number_of_a_tensor_is_named(world: World, file: str, name: str) -> None:
    forge_tensor(world, 4, file, name)
    found = difference(world)
    assert (found.version, found.file, found.files, found.fields) == (4, file, [file], [])
    assert found.tensor is not None
    assert (found.tensor.name, found.tensor.elements) == (name, 1)
    assert found.tensor.largest == pytest.approx(0.5, rel=1e-3)
    assert found.tensor.of > 1


def test_a_difference_in_data_that_is_gone_is_named_without_a_tensor(world: World) -> None:
    forge_tensor(world, 4, WEIGHTS, "net.skip.weight")
    world.store.prune(4)
    found = difference(world)
    assert (found.file, found.tensor) == (WEIGHTS, None)


def test_a_damaged_file_of_a_version_that_the_log_confirms_is_a_damaged_store(world: World) -> None:
    (path,) = [p for p in world.store.storage.walk(f"flights/versions/{4:020d}") if p.endswith(TRAINER)]
    world.store.storage.put(path, b"torn")
    with pytest.raises(StoreDamaged, match=r"exactly as its manifest says, but .*trainer\.safetensors is not what"):
        replayed(world)
    assert replayed(world, 3).identical


def test_another_library_is_told_whether_or_not_it_matters(world: World) -> None:
    libraries = {**world.store.read(4).manifest.libraries, "torch": "1.0"}
    rewrite(world, 4, libraries=libraries)
    report = replayed(world)
    assert report.identical
    assert [(c.version, c.what, c.recorded) for c in report.environment] == [(4, "library torch", "1.0")]
    forge_tensor(world, 4, WEIGHTS, "net.skip.weight")
    assert difference(world).reasons == [f"library torch was 1.0, here it is {versions.libraries()['torch']}"]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"seed": 7}, "seed was 7, here it is 0"),
        ({"threads": 4}, "threads was 4, here it is 1"),
        ({"cpu_capability": "NONE"}, "cpu_capability was NONE"),
        ({"hyperparameters": {"learner": "tabular"}}, "hyperparameters learner was tabular, here it is sgd"),
    ],
)
def test_what_was_not_as_it_is_here_is_the_reason(world: World, fields: dict[str, Any], says: str) -> None:
    rewrite(world, 4, **fields)
    forge_tensor(world, 4, WEIGHTS, "net.skip.weight")
    assert says in " ".join(difference(world).reasons)


def test_another_contract_is_told_before_anything_is_read(world: World) -> None:
    records = Records(world.log)
    world.pipeline = replace(world.pipeline, contract=replace(world.pipeline.contract, segments=["origin"]))
    found = difference(world, records=records)
    assert (found.version, records.reads) == (1, 0)
    assert found.reasons[0].startswith("the contract was ")


def test_another_seed_is_another_model(world: World) -> None:
    world.pipeline = replace(world.pipeline, seed=1)
    found = difference(world)
    assert found.version == 1
    assert found.reasons == ["seed was 0, here it is 1"]


def test_another_learning_rate_is_another_model(world: World) -> None:
    learner = Sgd(optimizer=partial(torch.optim.AdamW, lr=2e-3 + 1e-9, weight_decay=1e-3, fused=True))
    world.pipeline = replace(world.pipeline, learner=learner)
    found = difference(world)
    assert found.version == 1
    assert found.reasons[0].startswith("hyperparameters param_groups was ")


def test_a_changed_gate_verdict_is_found_though_no_byte_differs(world: World) -> None:
    rewrite(world, 4, gates=[Verdict(gate="finite", passed=False, detail="made up")])
    found = difference(world)
    assert (found.version, found.file, [f.name for f in found.fields]) == (4, None, ["gates"])
    assert found.reasons == ["a gate judges otherwise: gates differ"]


def moved(manifest: Manifest, **which: bool) -> dict[str, Any]:
    """The manifest's ranges with one offset less in partition 1."""
    start, end = manifest.ranges[TOPIC][1]
    ranges: Ranges = {TOPIC: {**manifest.ranges[TOPIC], 1: (start, end - 1)}}
    changed = {"ranges": ranges, "cuts": [ranges], "next_offsets": offsets.ends(ranges)}
    return {name: changed[name] for name in which}


def test_a_changed_range_is_found(world: World) -> None:
    manifest = world.store.read(4).manifest
    rewrite(world, 4, **moved(manifest, cuts=True))
    with pytest.raises(StoreDamaged, match=r"the cuts of version 4 .* together they are not its ranges"):
        replayed(world)
    rewrite(world, 4, cuts=manifest.cuts, **moved(manifest, next_offsets=True))
    assert [f.name for f in difference(world).fields] == ["next_offsets"]
    rewrite(world, 4, **moved(manifest, cuts=True, ranges=True, next_offsets=True))
    found = difference(world)
    assert found.version == 4
    assert found.reasons[0] == (
        "the log gives other rows than were learned: seen 39 instead of 40, rejected 3 instead of 4"
    )


def test_a_manifest_in_the_middle_that_was_changed_breaks_the_chain(world: World) -> None:
    rewrite(world, 2, run_id="another")
    with pytest.raises(StoreDamaged, match=r"manifest of version 2 .* is not the one that version 3 was committed on"):
        replayed(world)
    with pytest.raises(StoreDamaged, match=r"the log gives version 2 exactly .* one of the two was changed"):
        replayed(world, 2)
    assert replayed(world, start=3).identical


class Careless:
    """A learner that also learns from the weather."""

    def __init__(self) -> None:
        self._honest = Sgd()
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._honest, name)

    def learn(self, state: State, batch: Batch) -> tuple[State, LearnReport]:
        self.calls += 1
        learned, report = self._honest.learn(state, batch)
        noise = {name: t + self.calls if name == "net.skip.weight" else t for name, t in learned.serving.items()}
        return replace(learned, serving=noise), report


def test_a_learner_that_is_not_deterministic_is_called_so(world: World) -> None:
    world.pipeline = replace(world.pipeline, learner=Careless())
    reasons = difference(world).reasons
    assert reasons[0].startswith("the learner is not deterministic")


def test_a_changed_model_of_the_same_name_is_the_last_explanation(world: World) -> None:
    def other(spec: Any) -> torch.nn.Module:
        from stream_trainer.learners.sgd import mlp

        return mlp(spec, (32, 16))

    world.pipeline = replace(world.pipeline, learner=Sgd(model=other))
    found = difference(world)
    assert found.version == 1
    assert "the code of the pipeline's model has changed" in found.reasons[0]


@pytest.mark.parametrize("checked", [True, False])
def test_records_that_are_gone_are_named_and_where_a_replay_can_begin(world: World, checked: bool) -> None:
    records = Records(world.log, {0: 25})
    options: dict[str, Any] = {"check": records.check} if checked else {}
    with pytest.raises(InputLost) as caught:
        replayed(world, records=records, **options)
    assert str(caught.value) == (
        f"version 2 cannot be rebuilt: {TOPIC}[0]: offsets 20 to 24 are gone; "
        "from version 2 on a replay is possible: --from 2"
    )
    assert checked is (records.reads == 0)
    assert replayed(world, records=records, start=2, **options).identical
    world.store.prune(2)
    with pytest.raises(InputLost, match="--from 3"):
        replayed(world, records=records, **options)
    world.store.prune(3)
    with pytest.raises(InputLost, match="no later version that leads to 4 has kept its data"):
        replayed(world, records=records, **options)


def test_the_newest_version_whose_records_are_gone_cannot_be_replayed(world: World) -> None:
    records = Records(world.log, {0: 80, 1: 80})
    with pytest.raises(InputLost, match=r"version 4 cannot be rebuilt: .* offsets 60 to 79 are gone; no later version"):
        replayed(world, records=records, check=records.check)


def test_a_store_of_another_folder_gives_the_same_report(world: World, tmp_path: Path) -> None:
    again = ModelStore(LocalStorage(tmp_path), PIPELINE.name)
    assert replay(PIPELINE, again, Records(world.log).read, to=4) == replayed(world)


def made_old(world: World, number: int) -> None:
    """A version as an older release wrote it: scores of another form, which it did not name."""
    version = world.store.read(number)
    manifest = version.manifest
    stored = tensors.from_bytes(world.store.file(version, TRAINER), "test")
    stored |= {f"prequential.{name}.rows": stored[f"prequential.{name}.rows"][:, :8] for name in ("trained", "served")}
    told = reference.table_from_bytes(world.store.file(version, EVALUATION)).slice(1)
    files = {TRAINER: tensors.to_bytes(stored), EVALUATION: reference.table_to_bytes(told)}
    for name, data in files.items():
        world.store.storage.put(f"flights/versions/{number:020d}/{manifest.attempt}/{name}", data)
    entries = {name: FileEntry(size=len(data), sha256=sha256(data)) for name, data in files.items()}
    metrics = {name: value for name, value in manifest.metrics.items() if name != "since_start"}
    above = world.store.read(number - 1).sha256 if number > 1 else None
    rewrite(
        world,
        number,
        parent_sha256=above,
        files=manifest.files | entries,
        metrics=metrics,
        scoring=UNSET,
        negative_rate=UNSET,
    )


@pytest.fixture
def grown_old(tmp_path: Path) -> World:
    """Two versions of an older release, and two that went on with them."""
    world = trained(World(tmp_path), 2)
    made_old(world, 1)
    made_old(world, 2)
    world.restart()
    for n in (2, 3):
        fill(world, 40 * n)
        world.learn()
    return world


def test_a_lineage_of_another_form_of_scores_is_rebuilt_without_comparing_them(grown_old: World) -> None:
    report = replayed(grown_old)
    assert (report.identical, report.versions) == (True, 4)
    assert [(c.version, c.what, c.recorded, c.here) for c in report.environment] == [(1, "scoring", "1", "2")]
    assert grown_old.store.read(3).manifest.metrics["since_start"]["rows"] == 36  # they began anew
    assert replayed(grown_old, start=2).identical
    grown_old.store.prune(1)
    assert replayed(grown_old).identical


@pytest.mark.parametrize(("file", "name"), [(WEIGHTS, "net.skip.weight"), (TRAINER, "learner.optimizer.0.exp_avg")])
def test_all_but_the_scores_of_such_a_lineage_is_compared(tmp_path: Path, file: str, name: str) -> None:
    world = trained(World(tmp_path), 1)
    made_old(world, 1)
    assert replayed(world).identical
    forge_tensor(world, 1, file, name)
    found = difference(world)
    assert (found.version, found.file) == (1, file)
    assert "scoring was 1, here it is 2" in found.reasons


def test_another_rate_of_sampling_than_recorded_is_told(world: World) -> None:
    rewrite(world, 4, negative_rate=0.5)
    report = replayed(world)
    assert report.identical
    assert [str(change) for change in report.environment] == ["negative_rate was 0.5, here it is 1.0"]
