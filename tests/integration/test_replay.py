"""Replay and lineage on real Kafka, against what the trainer has learned through real Spark."""

import io
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from confluent_kafka import Producer
from kafka import KafkaAdminClient, TopicPartition
from typer.testing import CliRunner, Result

from serving.metrics import Metrics
from serving.prediction_ids import PredictionIds
from serving.prediction_log import PredictionLog, kafka_producer
from serving.prediction_records import Answered
from stream_trainer import log_reader, offsets
from stream_trainer.decode import ARROW_CONTENT_TYPE
from stream_trainer.errors import BrokerUnavailable, InputLost, UsageError
from stream_trainer.kafka import Admin, client_options, librdkafka_options, topic_plans
from stream_trainer.log_reader import LogReader
from stream_trainer.offsets import Ranges
from stream_trainer.query import ExamplesReader
from stream_trainer.replay import replay
from stream_trainer.schema import struct_type
from tests.core.test_decode import POISON
from tests.integration.world import CONTRACT, World, until


def arrow_message(world: World, rows: int = 20) -> bytes:
    records = [{**world.example(), "at": datetime(2013, 1, 1, tzinfo=UTC)} for _ in range(rows)]
    records[3]["x"] = float("nan")
    table = pa.Table.from_pylist(records)
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def transact(world: World, *, commit: bool, count: int = 10) -> None:
    """Records of one transaction, and its marker."""
    producer = Producer(
        {
            **librdkafka_options(world.settings.kafka),
            "transactional.id": f"{world.topic}-{time.monotonic_ns()}",
            "partitioner": "murmur2_random",
        }
    )
    producer.init_transactions(30)
    producer.begin_transaction()
    for i in range(count):
        producer.produce(world.topic, json.dumps(world.example()).encode(), partition=i % 3)
    producer.flush(30)
    if commit:
        producer.commit_transaction(30)
    else:
        producer.abort_transaction(30)


def send_everything(world: World) -> None:
    """Good records, everything that the decoder has ever refused, Arrow, headers, and transactions."""
    world.send_good(40)
    world.send([value for value, _ in POISON.values()])
    world.send([arrow_message(world), b"garbage"], headers=[("content-type", ARROW_CONTENT_TYPE)])
    world.send([json.dumps(world.example()).encode()], headers=[("trace", b"\xff"), ("empty", None), ("trace", b"2")])
    transact(world, commit=True)
    transact(world, commit=False)
    world.send_good(10)
    transact(world, commit=False, count=30)  # the log ends in records that nobody may read


def topic_ids(world: World) -> dict[str, str]:
    with Admin(world.settings.kafka) as admin:
        return {world.topic: admin.topic_id(world.topic)}


def ends(world: World) -> dict[int, int]:
    with reading(world) as reader:
        return {p: reader._bounds((world.topic, p))[1] for p in range(3)}


@contextmanager
def reading(world: World) -> Iterator[LogReader]:
    with LogReader(world.pipeline.contract, world.settings.kafka) as reader:
        yield reader


def in_order(table: pa.Table) -> pa.Table:
    return table.sort_by([(n, "ascending") for n in ("_topic", "_partition", "_offset", "_row")]).combine_chunks()


def test_it_reads_what_spark_reads_bit_for_bit(world: World) -> None:
    send_everything(world)
    whole: Ranges = {world.topic: {p: (0, end) for p, end in ends(world).items()}}
    spark = ExamplesReader(world.spark, CONTRACT, world.topic, world.settings)
    with reading(world) as reader:
        began = time.monotonic()
        mine = in_order(reader.read(whole, topic_ids(world)))
        assert time.monotonic() - began < 5  # the end of each partition is aborted: nothing waits for a record there
    theirs = in_order(spark.read(whole))
    assert mine.schema == theirs.schema
    assert mine.equals(theirs)
    assert mine.num_rows > 100
    assert offsets.size(whole) > mine.num_rows


def test_any_way_of_cutting_gives_the_same_records(world: World) -> None:
    send_everything(world)
    last = ends(world)
    ids = topic_ids(world)
    with reading(world) as reader:
        whole = in_order(reader.read({world.topic: {p: (0, end) for p, end in last.items()}}, ids))
        for step in (1, 7, 50):
            at = dict.fromkeys(last, 0)
            pieces = []
            while at != last:
                following = {p: min(at[p] + step, last[p]) for p in at}
                ranges: Ranges = {world.topic: {p: (at[p], following[p]) for p in at}}
                piece = reader.read(ranges, ids)
                for row in piece.select(["_partition", "_offset"]).to_pylist():
                    start, end = ranges[world.topic][row["_partition"]]
                    assert start <= row["_offset"] < end
                pieces.append(piece)
                at = following
            assert in_order(pa.concat_tables(pieces)).equals(whole), step
        # Backwards and with holes: every jump is a seek.
        for first in (20, 5, 11):
            ranges = {world.topic: {1: (first, first + 4)}}
            expected = [r for r in whole.to_pylist() if r["_partition"] == 1 and first <= r["_offset"] < first + 4]
            assert in_order(reader.read(ranges, ids)).to_pylist() == expected
        assert reader.read({world.topic: {0: (3, 3)}}, ids).num_rows == 0


def test_a_partition_far_ahead_of_the_others_is_held_back_and_loses_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_reader, "AHEAD_RECORDS", 100)
    world.send_good(6_000)
    last, ids = ends(world), topic_ids(world)
    found: list[tuple[int, int]] = []
    with reading(world) as reader:
        at = dict.fromkeys(last, 0)
        for turn in (2, 0, 1):
            following = at | {turn: last[turn]}
            for batch in reader.records({world.topic: {p: (at[p], following[p]) for p in at}}, ids):
                found += [(r["partition"], r["offset"]) for r in batch.to_pylist()]
            at = following
    assert found == [(p, o) for p in (2, 0, 1) for o in range(last[p])]


def test_lost_records_a_lost_topic_and_a_lost_partition_are_told_apart(world: World) -> None:
    world.send_good(90)
    ids, last = topic_ids(world), ends(world)
    with (
        reading(world) as reader,
        pytest.raises(InputLost, match=r"\[1\] ends at offset \d+: offsets \d+ to 9999 are gone"),
    ):
        reader.read({world.topic: {1: (0, 10_000)}}, ids)
    delete_before(world, {1: 7})
    gone = rf"{world.topic}\[1\]: offsets 2 to 6 are gone"
    with reading(world) as reader:
        assert reader.read({world.topic: {0: (0, 5), 1: (7, 9)}}, ids).num_rows == 7
        with pytest.raises(InputLost, match=gone):
            reader.read({world.topic: {0: (5, 6), 1: (2, 9)}}, ids)
        with pytest.raises(InputLost, match=gone):
            reader.check({world.topic: {0: (0, 1), 1: (2, 9)}}, ids)
        assert reader.read({world.topic: {0: (5, last[0])}}, ids).num_rows == last[0] - 5
        with pytest.raises(InputLost, match=rf"{world.topic} was re-created: .*\[0\] 1 to 1"):
            reader.read({world.topic: {0: (1, 2)}}, {world.topic: "another"})
        with pytest.raises(InputLost, match=r"\[9\] has vanished"):
            reader.read({world.topic: {9: (0, 2)}}, ids)


def test_a_broker_that_does_not_answer_is_told_so(world: World, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    world.send_good(9)
    ids = topic_ids(world)
    with reading(world) as reader:
        monkeypatch.setattr(reader, "_patience", 0.0)
        monkeypatch.setattr(reader, "_poll", lambda waiting: False)
        with pytest.raises(BrokerUnavailable, match=rf"{world.topic}\[0\] did not answer within 0 s at 127"):
            reader.read({world.topic: {0: (0, 1)}}, ids)
        monkeypatch.undo()
        assert reader.read({world.topic: {0: (0, 1)}}, ids).num_rows == 1


def test_a_prediction_that_no_broker_answers_for(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAM_TRAINER_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:1")
    monkeypatch.setenv("STREAM_TRAINER_KAFKA__REQUEST_TIMEOUT_SECONDS", "0.3")
    (asked,) = PredictionIds(lambda: datetime.now(UTC)).take(1)
    assert isinstance(command("lineage", address, asked).exception, BrokerUnavailable)


def delete_before(world: World, positions: dict[int, int]) -> None:
    """What retention does."""
    admin = KafkaAdminClient(**client_options(world.settings.kafka))
    admin.delete_records({TopicPartition(world.topic, p): o for p, o in positions.items()})
    admin.close()


def trained(world: World) -> None:
    """Three versions and more, with rejected records and aborted transactions."""
    world.send_good(60)
    world.send([b"{", None])
    world.train()
    transact(world, commit=True)
    transact(world, commit=False)
    world.send([arrow_message(world)], headers=[("content-type", ARROW_CONTENT_TYPE)])
    world.train()
    world.send_good(30)
    world.train()


@pytest.fixture
def address(world: World, monkeypatch: pytest.MonkeyPatch) -> str:
    """The pipeline as a command finds it."""
    name = f"{world.pipeline.name.replace('-', '_')}_replayed"
    (world.settings.data_dir / f"{name}.py").write_text(
        "from stream_trainer import Pipeline\nfrom tests.integration.world import CONTRACT\n"
        f"pipeline = Pipeline(name={world.pipeline.name!r}, contract=CONTRACT, reference_rows=100)\n"
    )
    monkeypatch.chdir(world.settings.data_dir)
    monkeypatch.syspath_prepend(str(world.settings.data_dir))
    monkeypatch.setenv("STREAM_TRAINER_KAFKA__BOOTSTRAP_SERVERS", str(world.settings.kafka.bootstrap_servers))
    monkeypatch.setenv("STREAM_TRAINER_DATA_DIR", str(world.settings.data_dir))
    return f"{name}:pipeline"


def command(*arguments: str) -> Result:
    from stream_trainer.cli import app

    return CliRunner().invoke(app, arguments)


def test_what_was_learned_is_rebuilt_to_the_bit(world: World, address: str) -> None:
    trained(world)
    newest = world.store.highest()
    assert newest >= 3
    found = command("replay", address, "--json")
    assert (found.exit_code, found.exception) == (0, None), found.output
    report = json.loads(found.stdout)
    assert (report["identical"], report["to"], report["versions"]) == (True, newest, newest)
    assert report["rows"] == world.store.read(newest).manifest.total.seen
    said = command("replay", address, "--to", str(newest), "--from", "1")
    assert said.exit_code == 0
    assert said.stdout.startswith(f"identical: every byte of version {newest} of {world.pipeline.name}")
    world.train(origin="1")
    world.send_good(20)
    world.train(origin="1")
    branch = world.store.highest()
    assert world.store.read(branch).manifest.parent == 1
    assert json.loads(command("replay", address, "--json").stdout)["versions"] == 2


def test_records_that_retention_has_deleted_end_it_with_4_and_advice(world: World, address: str) -> None:
    trained(world)
    cut = offsets.ends(world.store.read(1).manifest.ranges)[world.topic]
    delete_before(world, cut)
    found = command("replay", address)
    assert isinstance(found.exception, InputLost)
    assert (found.exception.exit_code, found.stdout) == (4, "")
    assert str(found.exception).startswith(f"version 1 cannot be rebuilt: {world.topic}[")
    assert str(found.exception).endswith("from version 1 on a replay is possible: --from 1")
    assert command("replay", address, "--from", "1").exit_code == 0


def test_a_topic_created_again_ends_it_with_4(world: World, address: str) -> None:
    world.send_good(30)
    world.train()
    plan = topic_plans(world.pipeline.name, world.settings.kafka)["examples"]
    with Admin(world.settings.kafka) as admin:
        admin.delete(world.topic)
        until(lambda: admin.create_missing([plan]), "the topic to be gone and created again")
    world.send_good(60)
    found = command("replay", address)
    assert isinstance(found.exception, InputLost)
    assert "was re-created" in str(found.exception)
    assert "no later version" in str(found.exception)


def test_another_learner_is_shown_to_give_something_else(world: World, address: str) -> None:
    trained(world)
    path = world.settings.data_dir / f"{address.split(':', maxsplit=1)[0]}.py"
    path.write_text(path.read_text().replace("reference_rows=100", "reference_rows=100, seed=5"))
    found = command("replay", address)
    assert found.exit_code == 1
    assert found.stdout.startswith(f"different: version 1 of {world.pipeline.name} is not what the log gives")
    assert "seed was 0, here it is 5" in found.stdout
    assert "weights.safetensors" in found.stdout


def predict(
    world: World, version: int | None, at: datetime | None = None, count: int = 40, *, at_once: int = 1
) -> list[str]:
    """What the service writes for predictions, so many rows a request."""
    now = at or datetime.now(UTC)
    ids = PredictionIds(lambda: now).take(count)
    row = struct_type(CONTRACT, "request")
    rows = [row(f0=0.5, f1=None, f2="red", f3=f"k{i}", f4=None) for i in range(count)]
    log = PredictionLog(
        CONTRACT, world.pipeline.topics.predictions, kafka_producer(world.settings), Metrics(), max_rows=1000
    )
    log.start()
    for start in range(0, count, at_once):
        part = slice(start, start + at_once)
        outputs = None if version is None else [0.25] * len(ids[part])
        log.record(Answered(ids=ids[part], requested_at=now, rows=rows[part], outputs=outputs, model_version=version))
    log.close(20)
    return ids


@pytest.mark.parametrize("at_once", [1, 20])
def test_a_prediction_leads_to_the_records_behind_it(world: World, address: str, at_once: int) -> None:
    trained(world)
    ids = predict(world, 2, at_once=at_once)
    for prediction_id in (ids[0], ids[-1].upper()):
        found = command("lineage", address, prediction_id, "--json")
        assert (found.exit_code, found.exception) == (0, None), found.output
        told = json.loads(found.stdout)
        assert told["prediction"]["prediction_id"] == prediction_id.lower()
        assert (told["prediction"]["model_version"], told["version"]["version"]) == (2, 2)
        assert told["version"]["parents"] == [1]
        assert {s["start"] for s in told["version"]["since_start"]["learned"]} == {0}
    shown = command("lineage", address, ids[1])
    assert shown.exit_code == 0
    for text in (
        ids[1],
        "version 2 (champion)",
        "0.25",
        "colour=red",
        f"{world.topic}[0]",
        "rows trained, in 2 versions",
    ):
        assert text in shown.stdout, text


def test_the_records_of_a_step_are_shown_as_they_are(world: World, address: str) -> None:
    world.send_good(5)
    world.send([b"{not json", None, b"\xff"])
    world.send([arrow_message(world)], headers=[("content-type", ARROW_CONTENT_TYPE)])
    world.train()
    newest = world.store.highest()
    steps = [command("lineage", address, "--version", str(n), "--records", "--json") for n in range(1, newest + 1)]
    records = [record for step in steps for record in json.loads(step.stdout)["records"]]
    assert len(records) == 9
    assert sum(r["rows"] for r in records) == world.store.read(newest).manifest.total.seen == 28
    assert sorted(r["json"]["id"] for r in records if r["json"]) == [f"r{i}" for i in range(1, 6)]
    reasons = sorted(r["rejected"][0]["reason"].split(":")[0] for r in records if r["rejected"])
    assert reasons == ["invalid_json", "invalid_json", "null_value", "out_of_range"]
    shown = command("lineage", address, "--version", "1", "--records")
    assert shown.exit_code == 0
    assert f"{world.topic}[" in shown.stdout


def test_a_prediction_without_a_version_is_explained(world: World, address: str) -> None:
    (prediction_id,) = predict(world, None, count=1)
    shown = command("lineage", address, prediction_id)
    assert shown.exit_code == 0
    assert "No version was there yet" in " ".join(shown.stdout.split())
    assert json.loads(command("lineage", address, prediction_id, "--json").stdout)["version"] is None


def test_a_prediction_that_is_unknown_or_gone_is_told_so(world: World, address: str) -> None:
    known = predict(world, 1)
    (unknown,) = PredictionIds(lambda: datetime.now(UTC)).take(1)
    found = command("lineage", address, unknown)
    assert isinstance(found.exception, UsageError)
    assert f"no prediction {unknown}" in str(found.exception)
    (old,) = PredictionIds(lambda: datetime.now(UTC) - timedelta(hours=1)).take(1)
    admin = KafkaAdminClient(**client_options(world.settings.kafka))
    topic = world.pipeline.topics.predictions
    admin.delete_records({TopicPartition(topic, p): 1 for p in range(3)})
    assert isinstance(command("lineage", address, old).exception, InputLost)
    admin.delete_records({TopicPartition(topic, p): -1 for p in range(3)})
    admin.close()
    gone = command("lineage", address, known[0])
    assert isinstance(gone.exception, InputLost)
    assert "is gone: " in str(gone.exception)


@pytest.mark.parametrize("arguments", [[], ["--version", "1", "id"], ["not-an-id"]])
def test_lineage_wants_one_prediction_or_one_version(world: World, address: str, arguments: list[str]) -> None:
    assert isinstance(command("lineage", address, *arguments).exception, UsageError)


def test_from_python_it_takes_any_way_of_reading(world: World) -> None:
    trained(world)
    with reading(world) as reader:
        report = replay(world.pipeline, world.store, reader.read, to=2)
    assert report.identical
