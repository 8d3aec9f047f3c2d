"""Faults of the input on real Spark and the real broker: poison, lost and re-created logs, partitions, gaps, schemas.

Every test is named after its entry in the catalogue of faults.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, NewPartitions
from pyspark.sql import SparkSession

from infra.broker import BrokerInfo
from stream_trainer import Numeric, Pipeline, offsets
from stream_trainer.errors import InputLost, UsageError
from stream_trainer.kafka import Admin, topic_plans
from stream_trainer.offsets import Ranges
from stream_trainer.store import Manifest
from stream_trainer.store.store import Intent
from stream_trainer.topic_reading import read_all
from tests.faults.spark_scene import in_transaction, log_ends, whole
from tests.integration.world import CONTRACT, World, make_world, until


@pytest.fixture
def world(spark: SparkSession, broker: BrokerInfo, tmp_path: Path) -> World:
    return make_world(spark, broker.bootstrap_servers, tmp_path)


def without(record: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key != name}


def newest(world: World) -> Manifest:
    return world.store.read(world.store.highest()).manifest


def test_f16_each_bad_record_is_rejected_once_with_its_reason_and_the_rest_is_trained(world: World) -> None:
    good = world.example()
    poison: list[tuple[str, bytes | None]] = [
        ("invalid_json", b"{not json"),
        ("invalid_json", json.dumps(good).replace('"x": ', '"x": NaN, "_": ').encode()),
        ("null_value", None),
        ("missing_field", json.dumps(without(good, "x")).encode()),
        ("missing_field", json.dumps({"schema_version": 99, "payload": good}).encode()),
        ("wrong_type", json.dumps({**good, "x": "1"}).encode()),
        ("wrong_type", json.dumps({**good, "x": {"x": {"x": 1}}}).encode()),
        ("out_of_range", json.dumps({**good, "x": 101}).encode()),
        ("null_field", json.dumps({**good, "x": None}).encode()),
        ("bad_utf8", json.dumps({**good, "id": "@"}).encode().replace(b"@", b"\xff")),
        ("too_large", b"x" * 10_000_000),
    ]
    for _, value in poison:
        world.send_good(20)
        world.send([value, value], key=b"the same key")
    world.send([b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"])
    world.send([json.dumps(good).encode()] * 2, key=b"the same key")

    world.train()

    total = whole(world.store, log_ends(world)).total
    assert (total.trained, total.rejected, total.quarantined) == (222, 23, 0)
    reasons = sorted(value["reason"].split(":")[0] for value in world.rejected().values())
    nested = [reason for reason in reasons if reasons.count(reason) % 2]
    assert len(nested) % 2, "the deeply nested record has a reason of its own or of another's"
    assert len(reasons) == 23
    for reason in {reason for reason, _ in poison}:
        assert reasons.count(reason) >= 2 * [r for r, _ in poison].count(reason)


def test_f16_above_the_threshold_the_batch_is_quarantined_and_people_are_told(world: World) -> None:
    world.send_good(120)
    world.train()
    weights = newest(world).files["weights.safetensors"].sha256
    world.send_good(50)
    world.send([b"{not json"] * 150)
    world.train()
    kept = newest(world)
    assert kept.files["weights.safetensors"].sha256 == weights
    assert (kept.rows.trained, kept.rows.rejected, kept.rows.quarantined) == (0, 150, 50)
    assert kept.quarantined == kept.cuts
    champions = [m.value["version"] for m in world.announcements() if m.key == "champion"]
    assert kept.version not in champions
    assert alerts(world)["gate/rejected_rate"]["status"] == "opened"
    world.send_good(120)
    world.train()
    assert alerts(world)["gate/rejected_rate"]["status"] == "resolved"
    assert whole(world.store, log_ends(world)).total.trained == 240


def alerts(world: World) -> dict[str, Any]:
    return {m.key: m.value for m in read_all(world.settings.kafka, world.pipeline.topics.alerts)}


def expire(world: World, before: dict[int, int]) -> None:
    """Retention, at once."""
    client = KafkaAdminClient(bootstrap_servers=world.settings.kafka.bootstrap_servers)
    try:
        client.delete_records({TopicPartition(world.topic, p): offset for p, offset in before.items()})
    finally:
        client.close()


def plan(world: World, version: int, ranges: Ranges) -> None:
    intent = Intent(version=version, cut=0, ranges=ranges, strategy="local", seed=0, run_id="crashed")
    assert world.store.fix_cut(intent) == intent


def goes_on_without(world: World, *, known: int, records: int, gone: int) -> Manifest:
    """The trainer refuses until it may lose records; afterwards the books balance."""
    number = world.store.highest()
    with pytest.raises(InputLost, match=rf"{world.topic}\[0\]: offsets {known} to {known + gone - 1} are gone") as lost:
        world.train()
    assert lost.value.exit_code == 4
    assert world.store.highest() == number
    world.train(accept_data_loss=True)
    manifest = whole(world.store, log_ends(world))
    assert manifest.total.trained == records - gone
    losses = [loss for n in world.store.numbers() for loss in world.store.read(n).manifest.lost]
    assert [(x.partition, x.start, x.next, x.reason) for x in losses] == [(0, known, known + gone, "retention")]
    world.send_good(30)
    world.train()
    assert whole(world.store, log_ends(world)).total.trained == records - gone + 30
    return manifest


def test_f17_retention_that_passed_the_position_stops_the_trainer_until_a_person_allows_it(world: World) -> None:
    world.send_good(60)
    world.train()
    known = newest(world).next_offsets[world.topic][0]
    world.send_good(60)
    expire(world, {0: known + 4})
    goes_on_without(world, known=known, records=120, gone=4)


def test_f17_an_unfinished_intent_over_the_lost_range_ends_with_it(world: World) -> None:
    world.send_good(60)
    world.train()
    at = newest(world).next_offsets
    known = at[world.topic][0]
    world.send_good(60)
    plan(world, world.store.highest() + 1, {world.topic: {p: (o, o + 6) for p, o in at[world.topic].items()}})
    expire(world, {0: known + 4})
    goes_on_without(world, known=known, records=120, gone=4)


def test_f17_before_the_first_version_an_intent_counts_as_a_position(world: World) -> None:
    world.send_good(60)
    plan(world, 1, {world.topic: dict.fromkeys(range(3), (0, 6))})
    expire(world, {0: 4})
    goes_on_without(world, known=0, records=60, gone=4)


def create_again(world: World) -> None:
    with Admin(world.settings.kafka) as admin:
        admin.delete(world.topic)
        until(lambda: _created_again(admin, world), "the topic to be gone and created again")


def _created_again(admin: Admin, world: World) -> bool:
    return bool(admin.create_missing([topic_plans(world.pipeline.name, world.settings.kafka)["examples"]]))


def test_f17_a_topic_created_again_is_learned_from_its_start_once_a_person_allows_it(world: World) -> None:
    world.send_good(60)
    world.train()
    before = newest(world)
    create_again(world)
    world.send_good(90)
    with pytest.raises(InputLost, match="re-created"):
        world.train()
    world.train(accept_data_loss=True)
    after = newest(world)
    lost = [loss for n in world.store.numbers() for loss in world.store.read(n).manifest.lost]
    assert [(x.partition, x.start, x.next, x.reason) for x in lost] == [
        (p, o, None, "recreated") for p, o in sorted(before.next_offsets[world.topic].items())
    ]
    assert after.next_offsets == log_ends(world)
    assert after.topic_ids != before.topic_ids
    assert after.total.trained == 150
    world.send_good(10)
    world.train()
    assert newest(world).total.trained == 160


def test_f18_a_topic_created_again_with_more_records_stops_the_trainer_at_its_start(world: World) -> None:
    world.send_good(10)
    world.train()
    create_again(world)
    world.send_good(50)
    with pytest.raises(InputLost, match="re-created"):
        world.train()
    assert world.store.highest() == 1


def test_f18_a_topic_created_again_under_a_running_query_stops_the_trainer(world: World) -> None:
    world.send_good(10)
    with pytest.raises(InputLost, match=r"re-created|is not there"):
        _be_replaced(world)
    assert newest(world).total.trained == 10


def _be_replaced(world: World) -> None:
    with world.training() as trainer:
        until(lambda: trainer.lineage and trainer.lineage.total.trained == 10, "10 rows to be learned")
        create_again(world)
        world.send_good(100)
        until(lambda: not trainer.running, "the trainer to end")


def add_partitions(world: World, total: int) -> None:
    client = KafkaAdminClient(bootstrap_servers=world.settings.kafka.bootstrap_servers)
    try:
        client.create_partitions({world.topic: NewPartitions(total)})
    finally:
        client.close()


def send_to(world: World, partition: int, count: int) -> None:
    def written() -> bool:
        known = world.producer.list_topics(world.topic, timeout=10).topics[world.topic].partitions
        return partition in known

    until(written, f"partition {partition} to be known")
    world.send([json.dumps(world.example()).encode() for _ in range(count)], partition=partition)


def test_f19_partitions_added_between_runs_and_under_a_running_query_join_from_their_start(world: World) -> None:
    world.send_good(30)
    world.train()
    add_partitions(world, 4)
    send_to(world, 3, 20)
    with world.training() as trainer:
        until(lambda: trainer.lineage and trainer.lineage.total.trained == 50, "the fourth partition")
        add_partitions(world, 5)
        send_to(world, 4, 20)
        until(lambda: trainer.lineage and trainer.lineage.total.trained == 70, "the fifth partition")
    manifest = whole(world.store, log_ends(world))
    assert sorted(manifest.next_offsets[world.topic]) == [0, 1, 2, 3, 4]
    joined = [offsets.starts(world.store.read(n).manifest.ranges)[world.topic] for n in world.store.numbers()]
    assert {p: starts[p] for starts in reversed(joined) for p in starts} == dict.fromkeys(range(5), 0)


def test_f19_a_partition_added_while_a_cut_was_planned_does_not_change_the_cut(world: World) -> None:
    world.send_good(30)
    world.train()
    number, before = world.store.highest() + 1, newest(world).next_offsets
    world.send_good(30)
    cut = {world.topic: {p: (o, o + 5) for p, o in before[world.topic].items()}}
    plan(world, number, cut)
    add_partitions(world, 4)
    send_to(world, 3, 20)
    world.train()
    assert world.store.read(number).manifest.ranges == cut
    assert newest(world).total.trained == 80
    whole(world.store, log_ends(world))


def test_f21_aborted_records_and_markers_are_passed_and_are_no_loss(world: World) -> None:
    world.send_good(30)
    in_transaction(world, 10, commit=False)
    in_transaction(world, 10, commit=True)
    world.send_good(5)
    world.train()
    in_transaction(world, 10, commit=False)
    world.train()
    assert newest(world).total.trained == 45
    world.send_good(5)
    world.train()
    manifest = whole(world.store, log_ends(world))
    assert manifest.total.trained == 50
    assert sum(manifest.next_offsets[world.topic].values()) > 70


def compact(world: World) -> None:
    """From now on the topic keeps the newest record of a key, as soon as the broker comes round to it."""
    configs = {"cleanup.policy": "compact", "segment.ms": "100", "min.cleanable.dirty.ratio": "0.01"}
    client = KafkaAdminClient(bootstrap_servers=world.settings.kafka.bootstrap_servers)
    try:
        client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, world.topic, configs=configs)])
    finally:
        client.close()


@pytest.mark.slow
def test_f21_compacted_records_are_passed_and_are_no_loss(world: World) -> None:
    world.send_good(30)
    world.train()
    compact(world)

    def compacted() -> bool:
        world.send([json.dumps(world.example()).encode()], key=b"the same key")
        return len(read_all(world.settings.kafka, world.topic)) < world.sent - 20

    until(compacted, "the broker to compact the topic")
    world.train()
    manifest = whole(world.store, log_ends(world))
    assert 30 < manifest.total.trained < world.sent - 15


def test_f23_a_field_that_was_added_is_fine_and_a_breaking_one_is_rejected_with_its_reason(world: World) -> None:
    for _ in range(30):
        old = world.example()
        renamed = {**without(old, "x"), "x_scaled": old["x"]}
        retyped = {**old, "y": "yes"}
        for record in (old, {**world.example(), "added": 1}):
            world.send([json.dumps(record).encode()])
        if world.sent % 3 == 0:
            world.send([json.dumps(renamed).encode(), json.dumps(retyped).encode()])
    world.train()
    total = whole(world.store, log_ends(world)).total
    assert total.trained == 60
    assert sum(world.store.read(n).manifest.unknown_fields for n in world.store.numbers()) >= 30
    reasons = sorted({value["reason"] for value in world.rejected().values()})
    assert [reason.split(":")[0] for reason in reasons] == ["missing_field", "wrong_type"]
    assert total.rejected == len(world.rejected()) > 0


def test_f23_a_changed_contract_does_not_extend_the_lineage(world: World) -> None:
    world.send_good(30)
    world.train()
    changed = replace(CONTRACT, features=[*CONTRACT.features, Numeric("added", optional=True)])
    other = replace(world, pipeline=Pipeline(name=world.pipeline.name, contract=changed, reference_rows=100))
    with pytest.raises(UsageError, match=r"learned under contract .* give the changed pipeline a new name") as refused:
        other.train()
    assert refused.value.exit_code == 2
    assert world.store.highest() == 1
