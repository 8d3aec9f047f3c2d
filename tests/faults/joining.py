"""Labels that come early, late, twice, corrected or never, while joiner, trainer and broker are killed at random.

Afterwards each label has been taught once or told once, by count of `P.examples` and `P.unmatched`; the trainer has
learned each example once, in one lineage that a replay rebuilds bit for bit.
"""

import json
import random
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from confluent_kafka import Producer

from infra.supervisor import Unit
from infra.units import variables
from stream_trainer.kafka import Admin, topic_plans
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

RATE = 60
_TICK_SECONDS = 0.1
_KINDS = ("joiner", "joiner's JVM", "trainer", "broker")
_SHARES = (4, 2, 2, 2)
_BETWEEN_SECONDS = (2.0, 12.0)
_SETTLE_LOOKS = 300
_FLUSH_SECONDS = 300.0
_ROUND_SECONDS = 15.0

Label = tuple[str, bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of it; every check has passed."""

    seed: int
    kills: Mapping[str, int]
    predictions: int
    labels: int
    taught: int
    duplicates: int
    versions: int
    learned: int
    replayed: str


@dataclass
class Traffic:
    """Writes predictions, some in blocks, and their labels; `taught` and `duplicates` are what has to come of them."""

    settings: Settings
    pipeline: Pipeline
    seed: int
    predictions: int = 0
    labels: int = 0
    taught: Counter[Label] = field(default_factory=Counter)
    duplicates: int = 0
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
            labels = {name: self._outcome(rng, name) for name in names}
            early = [name for name in names if rng.random() < 0.1]
            for name in early:
                self._label(producer, labels.pop(name))
            self._predict(producer, names, rng)
            self._due.extend((tick + rng.randrange(1, 30), later) for later in labels.values())
            self._send_due(producer, tick)
            producer.poll(0)
        self._send_due(producer, tick + 30)

    def _outcome(self, rng: random.Random, name: str) -> list[Label]:
        """Never, once, twice the same, or corrected."""
        value = rng.random() < 0.5
        told = rng.choices([[], [value], [value, value], [value, not value]], [1, 7, 1, 1])[0]
        self.taught.update((name, one) for one in dict.fromkeys(told))
        self.duplicates += len(told) - len(set(told))
        return [(name, one) for one in told]

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
    pipeline = make_pipeline(f"joined-{seed}")
    with Admin(kafka) as admin:
        admin.create_missing(topic_plans(pipeline.name, kafka, joined=True).values())
    lives = [Life(_unit(what, pipeline, settings, folder)) for what in ("join", "train")]
    store = open_store(settings, pipeline.name)
    traffic = Traffic(settings, pipeline, seed)
    try:
        with traffic.flowing():
            _until(lambda: store.highest() > 0, "the first version", lives)
            killed = _disturb(lives, broker, kills, random.Random(seed), say)
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
        counts = (found.predictions, found.labels, found.taught, found.duplicates, found.versions, found.learned)
        kills = [str(found.kills.get(kind, 0)) for kind in _KINDS]
        rows.append([str(seed), *kills, *(f"{n:,}" for n in counts), found.replayed])
    heads = ("predictions", "labels", "taught", "told as duplicates", "versions", "examples learned", "replay")
    return Section(
        title="Labels joined while joiner, trainer and broker are killed",
        headings=["seed", *(f"{kind} killed" for kind in _KINDS), *heads],
        rows=rows,
        notes=[
            f"{RATE} predictions a second, half of them in blocks; of ten, one is never labelled, one twice, one corrected, one early.",
            "Each label is one example or one duplicate, each example was learned once; no id comes twice.",
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
    """Wait until all is joined and learned, end both, and count."""
    kafka, topics = settings.kafka, pipeline.topics
    expected = sum(traffic.taught.values())

    def told(topic: str) -> int:
        return len(read_all(kafka, topic))

    _until(lambda: told(topics.examples) >= expected, "all labels", lives)
    _until(lambda: told(topics.unmatched) >= traffic.duplicates, "all duplicates", lives)
    lives[0].end()
    examples = [message.value for message in read_all(kafka, topics.examples)]
    assert Counter((e["_prediction_id"], e["y"]) for e in examples) == traffic.taught
    assert len({e["_example_id"] for e in examples}) == len(examples)
    unmatched = [message.value for message in read_all(kafka, topics.unmatched)]
    assert Counter(u["reason"] for u in unmatched) == Counter({"duplicate": traffic.duplicates})
    ends = log_ends_of(settings, topics.examples)
    _until(lambda: store.read(store.highest()).manifest.next_offsets == ends, "the last example", lives[1:])
    lives[1].end()
    newest = whole(store, ends)
    _one_lineage(store)
    assert newest.total.trained + newest.total.quarantined == expected, newest.total
    return Outcome(
        seed=traffic.seed,
        kills=killed,
        predictions=traffic.predictions,
        labels=traffic.labels,
        taught=len(examples),
        duplicates=len(unmatched),
        versions=newest.version,
        learned=newest.total.trained + newest.total.quarantined,
        replayed=_replay(pipeline, settings, newest.version),
    )


def _disturb(
    lives: list[Life], broker: Broker, kills: int, rng: random.Random, say: Callable[[str], object]
) -> dict[str, int]:
    """Kill something every few seconds; what is not there is started."""
    done: Counter[str] = Counter()
    idle = threading.Event()
    while done.total() < kills:
        (kind,) = rng.choices(_KINDS, _SHARES)
        end = time.monotonic() + rng.uniform(*_BETWEEN_SECONDS)
        while time.monotonic() < end:
            for life in lives:
                life.look()
            idle.wait(0.2)
        if kind == "broker":
            broker.kill()
        else:
            found = lives[kind == "trainer"].processes()
            jvms = [process for process in found if _named(process, "java")]
            (jvms if jvms and kind == "joiner's JVM" else found)[0].kill()
        done[kind] += 1
        say(f"  killed the {kind}")
    return dict(done)


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
