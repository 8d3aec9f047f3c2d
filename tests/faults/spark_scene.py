"""A log on a real broker whose every record is known, trainers in processes of their own, and what must hold afterwards."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaError, Message, Producer

from infra.units import variables
from stream_trainer import kafka, offsets
from stream_trainer.kafka import librdkafka_options
from stream_trainer.offsets import Offsets
from stream_trainer.outbox import rejected_key
from stream_trainer.settings import Settings, StoreSettings
from stream_trainer.store import Manifest, ModelStore, Rows, open_store
from stream_trainer.topic_reading import read_all
from tests.faults.spark_child import Fault, SparkChild
from tests.faults.spark_pipeline import address
from tests.integration.world import World, make_world

ROWS_A_BATCH = 20
POISON = [b"{not json", None, b'{"id": "no label"}', b"\xff\xfe", b'{"id": 3, "x": "text"}']


@dataclass
class Log:
    """What was written: where the bad records are, and how many good ones there are."""

    good: int = 0
    bad: set[str] = field(default_factory=set)

    def note(self, *, good: bool) -> Callable[[KafkaError | None, Message], None]:
        """A delivery callback that counts one record."""

        def delivered(error: KafkaError | None, message: Message) -> None:
            assert error is None, error
            if good:
                self.good += 1
            else:
                topic, partition, offset = message.topic(), message.partition(), message.offset()
                assert topic is not None
                assert partition is not None
                assert offset is not None
                self.bad.add(rejected_key(topic, partition, offset, 0))

        return delivered


@dataclass
class Scene:
    """A world without Spark in this process; children learn from its log, each lineage in a folder of its own."""

    world: World
    folder: Path
    log: Log = field(default_factory=Log)
    keep_versions: int = 0

    def fill(self, batches: int) -> None:
        """A log of so many micro-batches: good records, one bad one in eleven, an aborted transaction in the middle."""
        for batch in range(batches):
            if batch == batches // 2:
                self.abort_transaction()
            self.send(ROWS_A_BATCH)

    def send(self, count: int, *, bad_every: int = 11) -> None:
        """Records of which every so-manieth is bad."""
        world = self.world
        for _ in range(count):
            record = world.example()
            good = bool(world.sent % bad_every)
            value = json.dumps(record).encode() if good else POISON[world.sent // bad_every % len(POISON)]
            world.producer.produce(world.topic, value, key=record["id"], on_delivery=self.log.note(good=good))
        assert world.producer.flush(30) == 0

    def abort_transaction(self, records: int = 10, *, commit: bool = False) -> None:
        """Records that a read-committed reader never sees (or does, with `commit`), and a marker."""
        in_transaction(self.world, records, commit=commit)
        self.log.good += records if commit else 0

    def settings(self, lineage: str) -> Settings:
        """Those of the trainers of one lineage."""
        kept = StoreSettings(keep_versions=self.keep_versions, keep_every=1_000)
        return self.world.settings.model_copy(update={"data_dir": self.folder / lineage, "store": kept})

    def store(self, lineage: str) -> ModelStore:
        """Where its versions are."""
        return open_store(self.settings(lineage), self.world.pipeline.name)

    def child(self, lineage: str, fault: Fault | None = None, *arguments: str) -> SparkChild:
        """A trainer that ends at the end of the log, unless the fault ends it before."""
        settings = self.settings(lineage)
        settings.data_dir.mkdir(exist_ok=True)
        sections = {"TRAINER": settings.trainer, "STORE": settings.store}
        told = {
            f"STREAM_TRAINER_{section}__{name.upper()}": str(value)
            for section, values in sections.items()
            for name, value in values.model_dump(exclude_defaults=True).items()
        }
        words = ["train", address(self.world.pipeline), *(arguments or ["--until-caught-up"])]
        return SparkChild(words, {**variables(settings), **told}, settings.data_dir, fault)

    def rejected(self) -> list[str]:
        """The keys in `P.rejected`, as often as they were written."""
        found = read_all(self.world.settings.kafka, self.world.pipeline.topics.rejected)
        return [message.key for message in found]


def make_scene(bootstrap_servers: str, folder: Path, **trainer: Any) -> Scene:
    """An empty log."""
    limits = {"max_rows_per_batch": ROWS_A_BATCH, **trainer}
    return Scene(make_world(None, bootstrap_servers, folder, **limits), folder)  # type: ignore[arg-type]


def log_ends(world: World) -> Offsets:
    """Where the log ends for a read-committed reader."""
    return log_ends_of(world.settings, world.topic)


def log_ends_of(settings: Settings, topic: str) -> Offsets:
    """Where a topic ends for a read-committed reader."""
    bounds = kafka.Log(settings.kafka)
    try:
        with kafka.Admin(settings.kafka) as admin:
            return {topic: bounds.ends(topic, admin.partitions(topic))}
    finally:
        bounds.close()


def in_transaction(world: World, records: int, *, commit: bool) -> None:
    """Good records in one transaction."""
    options = {"transactional.id": f"{world.topic}-{world.sent}", "partitioner": "murmur2_random"}
    producer = Producer({**librdkafka_options(world.settings.kafka), **options})
    producer.init_transactions(30)
    producer.begin_transaction()
    for _ in range(records):
        producer.produce(world.topic, json.dumps(world.example()).encode())
    producer.flush(30)
    if commit:
        producer.commit_transaction(30)
    else:
        producer.abort_transaction(30)


@contextmanager
def one_after_the_other(make: Sequence[Callable[[], SparkChild]]) -> Iterator[Iterator[SparkChild]]:
    """Children in turn: while one learns, the next one's Spark starts and waits. All are gone at the end."""
    begun: list[SparkChild] = []

    def each() -> Iterator[SparkChild]:
        for i in range(len(make)):
            begun.extend(make_one() for make_one in make[len(begun) : i + 2])
            yield begun[i]

    try:
        yield each()
    finally:
        for child in begun:
            child.end()


def whole(store: ModelStore, ends: Offsets) -> Manifest:
    """The newest manifest, after making sure that the cuts of all tile the log and that the counts add up.

    Lost ranges, which a person has allowed, are part of the tiling.
    """
    numbers = store.numbers()
    assert numbers == list(range(1, len(numbers) + 1))
    start: Offsets = {topic: dict.fromkeys(partitions, 0) for topic, partitions in ends.items()}
    at = start
    total = Rows()
    newest = None
    for number in numbers:
        manifest = store.read(number).manifest
        at = offsets.skip(at, manifest.lost, start)
        for cut in manifest.cuts:
            at = offsets.advance(at, cut)
        assert {t: {p: at[t][p] for p in ps} for t, ps in manifest.next_offsets.items()} == manifest.next_offsets, (
            number
        )
        rows = manifest.rows
        assert rows.seen == rows.trained + rows.rejected + rows.skipped + rows.quarantined, number
        total += rows
        assert manifest.total == total, number
        assert manifest.previous == (number - 1 or None)
        newest = manifest
    assert newest is not None
    assert newest.next_offsets == ends, f"the newest version ends at {newest.next_offsets}, the log at {ends}"
    return newest


def digests(manifest: Manifest) -> dict[str, str]:
    """SHA-256 of the files that hold the model."""
    return {name: manifest.files[name].sha256 for name in ("weights.safetensors", "trainer.safetensors")}
