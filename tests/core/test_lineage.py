import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import msgspec
import numpy as np
import pytest

from stream_trainer import lineage as lineages
from stream_trainer import offsets, reference, retraining
from stream_trainer.errors import Corrupt, UsageError
from stream_trainer.evaluation.table import EVALUATION
from stream_trainer.features import encode
from stream_trainer.learning import Cut
from stream_trainer.lineage import BASELINE, CHOOSES, GOLDEN_ROWS, Pending
from stream_trainer.store import FileEntry, tensors
from stream_trainer.store.manifest import sha256
from stream_trainer.store.store import GOLDEN, LEARNED, TRAINER, WEIGHTS
from tests.core.test_microbatch import PIPELINE, START, World, fill
from tests.core.worlds import NOW, TOPIC, bits, flight


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    for n in range(3):
        fill(made, 40 * n)
        made.learn()
    return made


def test_what_is_loaded_is_what_was_known(world: World) -> None:
    version = world.store.read(3)
    loaded = lineages.load(PIPELINE, world.store, version)
    assert bits(loaded) == bits(world.lineage)
    assert loaded.position == world.lineage.position
    assert loaded.total == world.lineage.total
    assert loaded.number == 4
    assert loaded.prequential.metrics() == world.lineage.prequential.metrics()
    assert loaded.seen.digest == world.lineage.seen.digest is not None
    assert loaded.seen.reference == world.lineage.seen.reference
    assert loaded.seen.learned.to_bytes() == world.lineage.seen.learned.to_bytes()
    assert {k: v for k, v in lineages.to_files(PIPELINE, loaded).items() if k != GOLDEN} == {
        name: world.store.file(version, name) for name in (WEIGHTS, TRAINER, LEARNED, EVALUATION)
    }


def test_the_baseline_is_kept_until_the_bins_are_frozen(world: World) -> None:
    files = [world.store.read(n).manifest for n in (1, 2, 3)]
    assert [BASELINE in m.files for m in files] == [True, False, False]
    assert [m.reference is not None for m in files] == [False, True, True]
    bins = reference.Reference.from_bytes(world.store.reference(files[1].reference or ""))
    [counted] = {sum(b.counts) for b in bins.bins}
    assert counted == pytest.approx(PIPELINE.reference_rows / 2, abs=10)
    learned = reference.Learned.from_bytes(world.store.file(world.store.read(3), LEARNED), bins).total(bins)
    for feature in ("distance", reference.LABEL, reference.OUTPUT):
        rows = learned[bins.places[feature, ""]].sum()
        assert rows == world.store.read(3).manifest.total.trained - PIPELINE.reference_rows + counted


def test_first_rows_that_an_older_release_kept_without_a_coin_are_collected_anew(tmp_path: Path) -> None:
    world = World(tmp_path)
    fill(world, 0)
    world.learn()
    head = world.store.read(1)
    assert lineages.load(PIPELINE, world.store, head).seen.baseline is not None
    path = f"flights/versions/{1:020d}/{head.manifest.attempt}/{BASELINE}"
    kept = reference.table_from_bytes(world.store.storage.get(path)).drop_columns([CHOOSES])
    before = reference.table_to_bytes(kept)
    world.store.storage.put(path, before)
    files = {**head.manifest.files, BASELINE: FileEntry(size=len(before), sha256=sha256(before))}
    old = replace(head, manifest=msgspec.structs.replace(head.manifest, files=files))
    assert lineages.load(PIPELINE, world.store, old).seen.baseline is None


def test_what_is_learned_again_counts_no_row_that_may_have_chosen_the_bins(world: World) -> None:
    bins = world.lineage.seen.reference
    assert bins is not None
    place = bins.places["distance", ""]
    every = Cut(ranges=offsets.ranges_between(START, world.log.ends()), covered_at=NOW)
    again, why = retraining.retrained(PIPELINE, world.lineage, world.log.fetch(every))
    assert why == ""
    known, before = (one.seen.learned.total(bins)[place] for one in (again, world.lineage))
    assert np.all(known <= before)
    assert sum(bins.of("distance").counts) <= known.sum() < before.sum()
    world.lineage = again
    fill(world, 120)
    taught = world.learn()
    assert taught.seen.learned.total(bins)[place].sum() == known.sum() + world.store.read(4).manifest.rows.trained


def test_event_times_ahead_of_kafka_count_when_kafka_got_them_and_make_nothing_forgotten(world: World) -> None:
    bins = world.lineage.seen.reference
    assert bins is not None
    before = world.lineage.seen.learned
    world.log.append(0, *(flight(i, scheduled_at=(NOW + timedelta(hours=23)).isoformat()) for i in range(500, 520)))
    after = world.learn().seen.learned
    assert max(after.slots) <= NOW.timestamp() * 1_000_000
    assert sum((after.total(bins) - before.total(bins))[bins.places["distance", ""]]) == 20


def test_the_golden_rows_give_their_stored_outputs(world: World) -> None:
    version = world.store.read(3)
    golden = reference.table_from_bytes(world.store.file(version, GOLDEN))
    assert golden.num_rows == GOLDEN_ROWS
    columns = {name: golden.column(name).combine_chunks() for name in golden.column_names}
    state = world.store.load(version, PIPELINE.spec, training=False)
    assert state.training == {}
    outputs = PIPELINE.learner.predict(state, encode(PIPELINE.contract, columns)).tolist()
    assert outputs == pytest.approx([row[0] for row in golden.column("_output").to_pylist()], rel=1e-6)


def test_another_parent_gives_its_weights_at_the_heads_offsets(world: World) -> None:
    head, parent = world.store.read(3), world.store.read(1)
    found = lineages.load(PIPELINE, world.store, head, parent)
    assert found.position == head.manifest.next_offsets
    assert (found.number, found.total) == (4, head.manifest.total)
    assert found.parent == parent
    first = lineages.load(PIPELINE, world.store, parent)
    assert bits(found) == bits(first)
    fill(world, 120)
    world.lineage = found
    world.learn()
    manifest = world.store.verify(4).manifest
    assert (manifest.previous, manifest.parent, manifest.parent_sha256) == (3, 1, parent.sha256)


def test_a_version_of_an_older_release_goes_on_with_its_weights_and_its_scores_begin_anew(world: World) -> None:
    head = world.store.read(3)
    path = f"flights/versions/{3:020d}/{head.manifest.attempt}/{TRAINER}"
    stored = tensors.from_bytes(world.store.storage.get(path), "here")
    before = tensors.to_bytes({n: t for n, t in stored.items() if not n.startswith("prequential.")})
    files = {name: entry for name, entry in head.manifest.files.items() if name != EVALUATION}
    files[TRAINER] = FileEntry(size=len(before), sha256=sha256(before))
    world.store.storage.put(path, before)
    old = replace(head, manifest=msgspec.structs.replace(head.manifest, files=files))
    loaded = lineages.load(PIPELINE, world.store, old)
    assert loaded.state.serving.keys() == world.lineage.state.serving.keys()
    assert loaded.total == world.lineage.total
    assert loaded.prequential.metrics()["rows"] == 0
    fill(world, 120)
    world.lineage = loaded
    world.learn()
    manifest = world.store.verify(4).manifest
    assert manifest.metrics["rows"] == manifest.rows.trained > 0


def test_a_changed_contract_is_refused_with_what_to_do(world: World) -> None:
    changed = replace(PIPELINE, contract=replace(PIPELINE.contract, segments=()))
    with pytest.raises(UsageError, match="give the changed pipeline a new name"):
        lineages.load(changed, world.store, world.store.read(3))


def test_a_tampered_file_is_not_loaded(world: World) -> None:
    version = world.store.read(3)
    path = f"flights/versions/{3:020d}/{version.manifest.attempt}/{TRAINER}"
    data = world.store.storage.get(path)
    world.store.storage.put(path, data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(Corrupt, match=TRAINER):
        lineages.load(PIPELINE, world.store, version)


def test_the_cuts_of_a_damaged_head_are_learned_again_by_the_next_version(world: World) -> None:
    world.store.storage.put(f"flights/versions/{3:020d}/manifest.json", b"{}")
    world.restart()
    manifest = world.store.verify(4).manifest
    assert (manifest.previous, manifest.parent) == (3, 2)
    assert manifest.ranges == {TOPIC: {0: (40, 60), 1: (40, 60)}}


def test_the_ranges_of_pending_cuts_are_their_union() -> None:
    pending = Pending(cuts=({TOPIC: {0: (3, 5)}}, {TOPIC: {0: (5, 9), 1: (0, 2)}}))
    assert pending.ranges == {TOPIC: {0: (3, 9), 1: (0, 2)}}
    assert Pending().ranges == {}


def test_the_manifest_says_how_it_was_made(world: World) -> None:
    manifest = world.store.read(3).manifest
    assert manifest.contract == PIPELINE.contract.fingerprint
    assert manifest.topic_ids == {TOPIC: "11111111-2222-3333-4444-555555555555"}
    assert (manifest.strategy, manifest.world_size, manifest.threads, manifest.seed) == ("local", 1, 1, 0)
    assert manifest.hyperparameters["optimizer"] == "AdamW"
    assert set(manifest.libraries) == {"python", "stream-trainer", "torch", "pyarrow", "numpy", "msgspec", "pyspark"}
    json.dumps(manifest.metrics, allow_nan=False)


def test_bins_of_an_older_release_are_frozen_anew_and_all_else_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def outdated(_: bytes) -> reference.Reference:
        raise reference.Outdated("ten bins")

    with monkeypatch.context() as patch:
        patch.setattr(reference.Reference, "from_bytes", outdated)
        loaded = lineages.load(PIPELINE, world.store, world.store.read(3))
    assert bits(loaded) == bits(world.lineage)
    assert (loaded.seen.reference, loaded.seen.digest, loaded.seen.baseline) == (None, None, None)
    world.lineage = loaded
    digests = []
    for n in range(3, 5):
        fill(world, 40 * n)
        world.learn()
        digests.append(world.store.read(n + 1).manifest.reference)
    assert digests[0] is None
    assert digests[1] not in (None, world.store.read(3).manifest.reference)
    again = lineages.load(PIPELINE, world.store, world.store.read(5))
    assert again.seen.learned.to_bytes() == world.lineage.seen.learned.to_bytes()
