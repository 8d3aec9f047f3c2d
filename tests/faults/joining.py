"""Labels early, late, too late, twice, corrected, of nobody or never, while joiner, trainer and broker are killed.

Once the joiner's checkpoint is deleted, once an older copy takes its place. Afterwards `P.examples` and `P.unmatched` hold
id by id what an oracle says of the append times in the log; the trainer has learned each example once, in one lineage that
a replay rebuilds bit for bit.
"""

import json
import random
import shutil
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from confluent_kafka import Producer
from kafka import TopicPartition

from infra.supervisor import Unit
from infra.units import variables
from stream_trainer.joining.join import milliseconds
from stream_trainer.joining.query import checkpoint_folder
from stream_trainer.kafka import Admin, committed_reader, topic_plans
from stream_trainer.pipeline import Pipeline
from stream_trainer.settings import KafkaSettings, Settings
from stream_trainer.store import ModelStore, open_store
from stream_trainer.topic_reading import read_all
from tests.bench.section import Section
from tests.faults.options import Options
from tests.faults.producing import producing
from tests.faults.soak import Broker, Life, _named, _one_lineage, _replay
from tests.faults.spark_child import JVM_OPTIONS
from tests.faults.spark_pipeline import address, make_pipeline
from tests.faults.spark_scene import log_ends_of, whole
from tests.joining.oracle import Told, expected

RATE = 60
_TICK_SECONDS = 0.1
_KINDS = ("joiner", "joiner's JVM", "trainer", "broker")
_REASONS = ("duplicate", "late", "orphan")
_SHARES = (4, 2, 2, 2)
_BETWEEN_SECONDS = (2.0, 12.0)
_SETTLE_LOOKS = 300
_FLUSH_SECONDS = 300.0
_ROUND_SECONDS = 15.0

_TOO_LATE_TICKS = 300
DELETED, RESTORED = "checkpoint deleted", "checkpoint restored"

Label = tuple[str, bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of it; every check has passed."""

    seed: int
    kills: Mapping[str, int]
    predictions: int
    labels: int
    taught: int
    timeouts: int
    reasons: Mapping[str, int]
    versions: int
    learned: int
    replayed: str


@dataclass
class Traffic:
    """Writes predictions, some in blocks, and their labels; what has to come of them stands in the log."""

    settings: Settings
    pipeline: Pipeline
    seed: int
    predictions: int = 0
    labels: int = 0
    failed: list[Any] = field(default_factory=list)
    _due: deque[tuple[int, list[Label]]] = field(default_factory=deque)

    @contextmanager
    def flowing(self) -> Iterator[None]:
        """For the length of the block; at its end all labels that were due are written and acknowledged."""
        with producing(self.settings, self._write, _FLUSH_SECONDS):
            yield
        assert not self.failed, self.failed

    def _write(self, producer: Producer, done: threading.Event) -> None:
        rng = random.Random(self.seed)
        tick = 0
        while not done.wait(_TICK_SECONDS):
            tick += 1
            names = [f"p{self.predictions + i}" for i in range(int(RATE * _TICK_SECONDS))]
            self.predictions += len(names)
            labels = {name: _outcome(rng, name) for name in names}
            early = [name for name in names if rng.random() < 0.1]
            for name in early:
                self._label(producer, labels.pop(name))
            self._predict(producer, names, rng)
            self._due.extend((tick + rng.randrange(1, 30), later) for later in labels.values())
            if rng.random() < 0.2:
                self._due.append((tick + _TOO_LATE_TICKS, [(rng.choice(names), True)]))
                self._label(producer, [(f"nobody{tick}", True)])
            self._send_due(producer, tick)
            producer.poll(0)
        self._send_due(producer, tick + _TOO_LATE_TICKS)

    def _send_due(self, producer: Producer, tick: int) -> None:
        waiting = deque(one for one in self._due if one[0] > tick)
        for at, labels in self._due:
            if at <= tick:
                self._label(producer, labels)
        self._due = waiting

    def _label(self, producer: Producer, labels: list[Label]) -> None:
        for name, value in labels:
            self.labels += 1
            record = json.dumps({"prediction_id": name, "label": value}).encode()
            producer.produce(self.pipeline.topics.labels, record, key=name, on_delivery=self._delivered)

    def _predict(self, producer: Producer, names: list[str], rng: random.Random) -> None:
        shared = {"requested_at": "2026-01-01T00:00:00Z", "model_version": None, "role": "champion"}
        topic = self.pipeline.topics.predictions
        xs = [rng.gauss(0, 1) for _ in names]
        if rng.random() < 0.5:
            columns = {"prediction_id": names, "output": [None] * len(names)}
            nested = {
                "segments": {"colour": ["red"] * len(names)},
                "features": {"x": xs, "colour": ["red"] * len(names)},
            }
            value = json.dumps({"rows": len(names), **shared, **columns, **nested}, separators=(",", ":")).encode()
            producer.produce(topic, value, key=names[0], on_delivery=self._delivered)
            return
        for name, x in zip(names, xs, strict=True):
            record = {
                "prediction_id": name,
                **shared,
                "segments": {"colour": "red"},
                "features": {"x": x, "colour": "red"},
            }
            producer.produce(topic, json.dumps(record).encode(), key=name, on_delivery=self._delivered)

    def _delivered(self, error: Any, _: Any) -> None:
        if error is not None:
            self.failed.append(error)


def run(folder: Path, kills: int, seed: int, say: Callable[[str], object] = print) -> Outcome:
    """Kill so many times, let it settle, and count.

    Raises:
        AssertionError: a promise was broken; the seed was said.
    """
    say(f"{kills} kills while labels are joined, seed {seed}")
    broker = Broker(folder / "broker")
    kafka = KafkaSettings(bootstrap_servers=broker.info.bootstrap_servers)
    settings = Settings(data_dir=folder, kafka=kafka)
    pipeline = make_pipeline(f"timed-{seed}")
    with Admin(kafka) as admin:
        admin.create_missing(topic_plans(pipeline.name, kafka, joined=True).values())
    lives = [Life(_unit(what, pipeline, settings, folder)) for what in ("join", "train")]
    store = open_store(settings, pipeline.name)
    traffic = Traffic(settings, pipeline, seed)
    try:
        with traffic.flowing():
            _until(lambda: store.highest() > 0, "the first version", lives)
            checkpoint = Path(checkpoint_folder(pipeline, settings))
            killed = _disturb(lives, broker, checkpoint, kills, random.Random(seed), say)
        return _judge(pipeline, settings, store, lives, traffic, killed)
    finally:
        for process in [process for life in lives if life.running for process in life.processes()]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        broker.stop()


def measure(options: Options) -> Section:
    """The section of the report: a row a seed."""
    rows = []
    for seed in range(options.seed, options.seed + (options.seeds or 1)):
        with tempfile.TemporaryDirectory(prefix="stream-trainer-joining-") as folder:
            found = run(Path(folder), max(1, int(options.seconds / _ROUND_SECONDS)), seed)
        told = [found.reasons.get(reason, 0) for reason in _REASONS]
        counts = (found.predictions, found.labels, found.taught, found.timeouts, *told, found.versions, found.learned)
        kills = [str(found.kills.get(kind, 0)) for kind in (*_KINDS, DELETED, RESTORED)]
        rows.append([str(seed), *kills, *(f"{n:,}" for n in counts), found.replayed])
    heads = ("predictions", "labels", "labels taught", "timeouts taught", *(f"told as {r}" for r in _REASONS))
    heads = (*heads, "versions", "examples learned", "replay")
    return Section(
        title="Labels joined while joiner, trainer and broker are killed",
        headings=["seed", *(f"{kind} killed" for kind in _KINDS), DELETED, RESTORED, *heads],
        rows=rows,
        notes=[
            (
                f"{RATE} predictions a second, half of them in blocks; of ten, one is never labelled, one twice, one corrected, one early. "
                "Twice a second a label comes after the horizon (20 s), and one whose prediction there never was."
            ),
            (
                "Ids and values of all examples, and positions and reasons of all that was told, are those that an oracle reads off "
                "the append times in the log; no id comes twice, and each example was learned once."
            ),
        ],
    )


def _judge(
    pipeline: Pipeline,
    settings: Settings,
    store: ModelStore,
    lives: list[Life],
    traffic: Traffic,
    killed: Mapping[str, int],
) -> Outcome:
    """Wait until all is joined and learned, end both, and compare with the oracle."""
    kafka, topics = settings.kafka, pipeline.topics
    due = expected_of(kafka, pipeline)

    def told() -> int:
        return len(read_all(kafka, topics.examples)) + len(read_all(kafka, topics.unmatched))

    _until(lambda: told() >= len(due), "all labels and timeouts", lives)
    lives[0].end()
    examples = [message.value for message in read_all(kafka, topics.examples)]
    unmatched = [message.value for message in read_all(kafka, topics.unmatched)]
    found = [(e["_example_id"], e["y"]) for e in examples]
    found += [(f"{u['topic']}/{u['partition']}/{u['offset']}", u["reason"]) for u in unmatched]
    assert Counter(found) == Counter(due.items())
    timeouts = sum(example["_example_id"].endswith(":timeout") for example in examples)
    ends = log_ends_of(settings, topics.examples)
    _until(lambda: store.read(store.highest()).manifest.next_offsets == ends, "the last example", lives[1:])
    lives[1].end()
    newest = whole(store, ends)
    _one_lineage(store)
    assert newest.total.trained + newest.total.quarantined == len(examples), newest.total
    return Outcome(
        seed=traffic.seed,
        kills=killed,
        predictions=traffic.predictions,
        labels=traffic.labels,
        taught=len(examples) - timeouts,
        timeouts=timeouts,
        reasons=Counter(one["reason"] for one in unmatched),
        versions=newest.version,
        learned=newest.total.trained + newest.total.quarantined,
        replayed=_replay(pipeline, settings, newest.version),
    )


def expected_of(kafka: KafkaSettings, pipeline: Pipeline) -> dict[str, Any]:
    """What the oracle says of the log as Kafka has it, its append times included."""
    assert pipeline.join is not None
    predictions: dict[str, int] = {}
    labels: list[Told] = []
    for topic in (pipeline.topics.predictions, pipeline.topics.labels):
        for record in _log_of(kafka, topic):
            value = json.loads(record.value)
            if topic == pipeline.topics.labels:
                position = f"{topic}/{record.partition}/{record.offset}"
                labels.append(Told(position, value["prediction_id"], record.timestamp, value["label"]))
                continue
            names = value["prediction_id"]
            for name in names if isinstance(names, list) else [names]:
                predictions[name] = min(record.timestamp, predictions.get(name, record.timestamp))
    horizon, kept = milliseconds(pipeline.join.horizon), milliseconds(pipeline.join.kept)
    return expected(predictions, labels, horizon=horizon, kept=kept, on_timeout=pipeline.join.on_timeout)


def _log_of(kafka: KafkaSettings, topic: str) -> list[Any]:
    """The records of a topic, by partition and offset."""
    with closing(committed_reader(kafka)) as consumer:
        places = [TopicPartition(topic, p) for p in sorted(consumer.partitions_for_topic(topic) or ())]
        ends = consumer.end_offsets(places)
        consumer.assign(places)
        consumer.seek_to_beginning(*places)
        found: list[Any] = []
        while any(consumer.position(place) < ends[place] for place in places):
            found += [record for records in consumer.poll(timeout_ms=1_000).values() for record in records]
        return sorted(found, key=lambda record: (record.partition, record.offset))


def _outcome(rng: random.Random, name: str) -> list[Label]:
    """Never, once, twice the same, or corrected."""
    value = rng.random() < 0.5
    told = rng.choices([[], [value], [value, value], [value, not value]], [1, 7, 1, 1])[0]
    return [(name, one) for one in told]


def _disturb(
    lives: list[Life], broker: Broker, checkpoint: Path, kills: int, rng: random.Random, say: Callable[[str], object]
) -> dict[str, int]:
    """Kill something every few seconds; what is not there is started."""
    done: Counter[str] = Counter()
    idle = threading.Event()
    copy = checkpoint.with_name("copy")
    kept, deleted, restored = (int(kills * share) for share in (0.1, 0.35, 0.7))
    while done.total() < kills:
        (kind,) = rng.choices(_KINDS, _SHARES)
        end = time.monotonic() + rng.uniform(*_BETWEEN_SECONDS)
        while time.monotonic() < end:
            for life in lives:
                life.look()
            idle.wait(0.2)
        number = done.total()
        if number in (kept, deleted, restored):
            _kill_all(lives[0])
            kind = {deleted: DELETED, restored: RESTORED}.get(number, "joiner")
            _change(checkpoint, copy, kind)
        elif kind == "broker":
            broker.kill()
        else:
            found = lives[kind == "trainer"].processes()
            jvms = [process for process in found if _named(process, "java")]
            (jvms if jvms and kind == "joiner's JVM" else found)[0].kill()
        done[kind] += 1
        say(f"  {kind if kind in (DELETED, RESTORED) else f'killed the {kind}'}")
    return dict(done)


def _change(checkpoint: Path, copy: Path, kind: str) -> None:
    """Delete the checkpoint, put the copy in its place, or else make the copy."""
    if kind == "joiner":
        shutil.rmtree(copy, ignore_errors=True)
        if checkpoint.exists():
            shutil.copytree(checkpoint, copy)
        return
    shutil.rmtree(checkpoint, ignore_errors=True)
    if kind == RESTORED and copy.exists():
        shutil.copytree(copy, checkpoint)


def _kill_all(life: Life) -> None:
    """A command and all that it has started, until nothing of it writes any more."""
    found = life.processes()
    for process in found:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    _, left = psutil.wait_procs(found[1:], timeout=60)
    assert not left, left
    while life.running:  # waited for by psutil, the exit code of a child of this process would be lost
        threading.Event().wait(0.05)


def _unit(what: str, pipeline: Pipeline, settings: Settings, folder: Path) -> Unit:
    temporary = folder / f"tmp-{what}"
    temporary.mkdir()
    more = {
        **JVM_OPTIONS,
        "TMPDIR": str(temporary),
        "STREAM_TRAINER_TRAINER__TRIGGER_SECONDS": "0.2",
        "STREAM_TRAINER_JOIN__TRIGGER_SECONDS": "0.2",
        "STREAM_TRAINER_JOIN__METRICS_PORT": "0",
    }
    return Unit(
        name={"join": "joiner", "train": "trainer"}[what],
        module="stream_trainer.cli",
        arguments=[what, address(pipeline)],
        variables={**variables(settings), **more},
        log=folder / f"{what}.log",
    )


def _until(condition: Callable[[], object], what: str, lives: list[Life]) -> None:
    """Wait, counted in looks: a machine that stands still for a while is no failure."""
    for _ in range(_SETTLE_LOOKS):
        if condition():
            return
        for life in lives:
            life.look()
        threading.Event().wait(1.0)
    raise AssertionError(f"looked {_SETTLE_LOOKS} times for {what}:\n" + "\n".join(life.log for life in lives))
