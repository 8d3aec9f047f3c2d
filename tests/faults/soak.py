"""A while of everything at once: a producer that never stops, and SIGKILLs of the trainer, its JVM and the broker.

Afterwards every record that a producer was told is written has been trained or rejected exactly once, in one lineage
that a replay rebuilds bit for bit, and no process is left.
"""

import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from confluent_kafka import Producer

from infra import broker as local_broker
from infra.broker import BrokerInfo
from infra.jars import ensure_jars
from infra.java import find_java
from infra.supervisor import FINAL_CODES, Child, Unit
from infra.units import variables
from stream_trainer.kafka import Admin, topic_plans
from stream_trainer.pipeline import Pipeline
from stream_trainer.settings import KafkaSettings, Settings, environment
from stream_trainer.store import ModelStore, open_store
from stream_trainer.topic_reading import read_all
from tests.bench.processes import tree
from tests.bench.section import Section
from tests.faults.options import Options
from tests.faults.producing import producing
from tests.faults.spark_child import JVM_OPTIONS
from tests.faults.spark_pipeline import address, make_pipeline
from tests.faults.spark_scene import POISON, Log, log_ends_of, whole

RATE = 200
_BAD_EVERY = 23
_START_SECONDS = 300.0  # of the broker: the machine may stand still for a while
_SETTLE_SECONDS = 240.0
_KINDS = ("trainer", "jvm", "broker")
_SHARES = (4, 3, 3)
_BETWEEN_SECONDS = (2.0, 9.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a soak came to; every check has passed.

    `rss` and `fds` are those of the last trainer at the end: memory in bytes with its JVM, open files without.
    """

    seed: int
    seconds: float
    kills: Mapping[str, int]
    trainers: int
    versions: int
    trained: int
    quarantined: int
    rejected: int
    replayed: str
    rss: int
    fds: int


@dataclass
class Traffic:
    """Writes records until told to stop, the broker being there or not; `log` counts what was acknowledged."""

    settings: Settings
    pipeline: Pipeline
    seed: int
    log: Log = field(default_factory=Log)
    sent: int = 0

    @contextmanager
    def flowing(self) -> Iterator[None]:
        """For the length of the block; at its end everything is acknowledged."""
        with producing(self.settings, self._write, _SETTLE_SECONDS):
            yield
        assert self.log.good + len(self.log.bad) == self.sent

    def _write(self, producer: Producer, done: threading.Event) -> None:
        rng = random.Random(self.seed)
        while not done.wait(0.1):
            for _ in range(RATE // 10):
                self.sent += 1
                good = bool(self.sent % _BAD_EVERY)
                x = rng.gauss(0, 1)
                key = f"r{self.sent}"
                record = {"id": key, "x": x, "colour": "red", "at": "2013-01-01T00:00:00Z", "y": x > 0}
                value = json.dumps(record).encode() if good else POISON[self.sent // _BAD_EVERY % len(POISON)]
                producer.produce(self.pipeline.topics.examples, value, key=key, on_delivery=self.log.note(good=good))
            producer.poll(0)


class Life:
    """A command, such as train, started again whenever it has died of something that starting again helps against."""

    def __init__(self, unit: Unit) -> None:
        self._child = Child(unit)
        self._seen: list[psutil.Process] = []
        self.started = 0

    def look(self) -> int:
        """Start it unless it runs; its process id."""
        if self._child.pid is None:
            code = self._child._process.returncode if self._child._process else None
            assert code not in {0, *FINAL_CODES}, f"{self.name} ended with exit code {code}: {self.log}"
            self._child.start()
            self.started += 1
        assert self._child.pid is not None
        return self._child.pid

    def processes(self) -> list[psutil.Process]:
        """It, its JVM and its workers, as far as they live now; all are remembered."""
        found = tree(self.look())
        self._seen += [process for process in found if process not in self._seen]
        return found

    def end(self) -> None:
        """SIGTERM; then nothing that it or its predecessors started is left."""
        self.processes()
        self._child.drain()
        _, left = psutil.wait_procs(self._seen, timeout=60)
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        assert not left, f"left behind: {left}"
        assert self._child._process is not None
        assert self._child._process.returncode == 0, self.log

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._child.pid is not None

    @property
    def name(self) -> str:
        """What it is."""
        return self._child.unit.name

    @property
    def log(self) -> str:
        """The last of what it said."""
        assert self._child.unit.log is not None
        return self._child.unit.log.read_text(errors="replace")[-4_000:]


class Broker:
    """A local broker in its own folder; killed, it is started again at once, on the same port."""

    def __init__(self, folder: Path) -> None:
        self._java = find_java(Settings().cache_dir)
        self._jars = ensure_jars(Settings(), "kafka")
        self._folder = folder
        self.info = self._start()

    def kill(self) -> None:
        """SIGKILL, and a start."""
        before = self.info
        process = psutil.Process(before.pid)
        process.kill()
        process.wait(30)
        self.info = self._start()
        assert self.info.port == before.port

    def stop(self) -> None:
        """For good."""
        local_broker.stop(self._folder)
        assert not psutil.pid_exists(self.info.pid)

    def _start(self) -> BrokerInfo:
        return local_broker.start(self._folder, self._java, self._jars, wait_seconds=_START_SECONDS, detach=False)


def run(folder: Path, seconds: float, seed: int, say: Callable[[str], object] = print) -> Outcome:
    """Soak for so many seconds, let it settle, and look at what came of it.

    Raises:
        AssertionError: a promise was broken; the seed was said.
    """
    say(f"soak of {seconds:.0f} s, seed {seed}")
    broker = Broker(folder / "broker")
    kafka = KafkaSettings(bootstrap_servers=broker.info.bootstrap_servers)
    settings = Settings(data_dir=folder, kafka=kafka)
    pipeline = make_pipeline(f"soak-{seed}")
    with Admin(kafka) as admin:
        admin.create_missing(topic_plans(pipeline.name, kafka).values())
    trainer = Life(_unit(pipeline, settings, folder))
    store = open_store(settings, pipeline.name)
    traffic = Traffic(settings, pipeline, seed)
    try:
        with traffic.flowing():
            _until(lambda: trainer.look() and store.highest() > 0, "the first version", trainer)
            kills = _disturb(trainer, broker, seconds, random.Random(seed), say)
        ends = log_ends_of(settings, pipeline.topics.examples)
        _until(lambda: trainer.look() and _position(store) == ends, "the end of the log", trainer)
        last = trainer.processes()
        rss, fds = sum(p.memory_info().rss for p in last), last[0].num_fds()
        trainer.end()
        newest = whole(store, ends)
        _one_lineage(store)
        total = newest.total
        found, written = (total.trained + total.quarantined, total.rejected), (traffic.log.good, len(traffic.log.bad))
        assert found == written, f"good and bad records: {found} were counted, {written} were written"
        assert {m.key for m in read_all(kafka, pipeline.topics.rejected)} == traffic.log.bad
        replayed = _replay(pipeline, settings, newest.version)
    finally:
        for process in trainer.processes() if trainer.running else []:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        broker.stop()
    return Outcome(
        seed=seed,
        seconds=seconds,
        kills=kills,
        trainers=trainer.started,
        versions=newest.version,
        trained=newest.total.trained,
        quarantined=newest.total.quarantined,
        rejected=newest.total.rejected,
        replayed=replayed,
        rss=rss,
        fds=fds,
    )


def measure(options: Options) -> Section:
    """The section of the report: a row a seed."""
    rows = []
    for seed in range(options.seed, options.seed + (options.seeds or 1)):
        with tempfile.TemporaryDirectory(prefix="stream-trainer-soak-") as folder:
            found = run(Path(folder), options.seconds, seed)
        kills = [str(found.kills.get(kind, 0)) for kind in _KINDS]
        counts = [f"{n:,}" for n in (found.versions, found.trained, found.quarantined, found.rejected)]
        size = f"{found.rss / 2**20:.0f} MB, {found.fds} files"
        rows.append([str(seed), f"{found.seconds:.0f} s", *kills, str(found.trainers), *counts, found.replayed, size])
    return Section(
        title="Soak: a producer that never stops, and SIGKILLs of everything else",
        headings=[
            *("seed", "disturbed for", "trainer killed", "JVM killed", "broker killed", "trainers started"),
            *(
                "versions",
                "trained",
                "quarantined",
                "rejected",
                "replay of the whole lineage",
                "the last trainer, JVM included",
            ),
        ],
        rows=rows,
        notes=[
            (
                f"{RATE} records a second, one in {_BAD_EVERY} of them bad; something is killed every "
                f"{_BETWEEN_SECONDS[0]:.0f} to {_BETWEEN_SECONDS[1]:.0f} s, drawn from the seed."
            ),
            (
                "Every record that the broker acknowledged was trained, quarantined by a gate or rejected exactly once, in one lineage; "
                "no process was left."
            ),
        ],
    )


def _disturb(
    trainer: Life, broker: Broker, seconds: float, rng: random.Random, say: Callable[[str], object]
) -> dict[str, int]:
    """Kill something every few seconds; a trainer that is not there is started."""
    kills: Counter[str] = Counter()
    end = time.monotonic() + seconds
    idle = threading.Event()
    while time.monotonic() < end:
        (kind,) = rng.choices(_KINDS, _SHARES)
        pause = rng.uniform(*_BETWEEN_SECONDS)
        for _ in range(int(pause / 0.2)):
            trainer.look()
            idle.wait(0.2)
        found = trainer.processes()
        jvms = [process for process in found if _named(process, "java")]
        if kind == "jvm" and not jvms:
            kind = "trainer"
        if kind == "broker":
            broker.kill()
        else:
            (jvms if kind == "jvm" else found)[0].kill()
        kills[kind] += 1
        say(f"  killed the {kind}")
    return dict(kills)


def _named(process: psutil.Process, name: str) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.name() == name
    return False


def _position(store: ModelStore) -> object:
    return store.read(store.highest()).manifest.next_offsets


def _one_lineage(store: ModelStore) -> None:
    before = None
    for number in store.numbers():
        version = store.verify(number)
        assert version.manifest.parent_sha256 == (before.sha256 if before else None), number
        before = version


def _replay(pipeline: Pipeline, settings: Settings, to: int) -> str:
    """Rebuild the whole lineage with the command that users have."""
    command = [sys.executable, "-m", "stream_trainer.cli", "replay", address(pipeline), "--to", str(to), "--json"]
    told = {**environment(), **variables(settings)}
    done = subprocess.run(command, env=told, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    assert json.loads(done.stdout)["identical"] is True
    return "bit-identical"


def _unit(pipeline: Pipeline, settings: Settings, folder: Path) -> Unit:
    temporary = folder / "tmp"
    temporary.mkdir()
    more = {**JVM_OPTIONS, "TMPDIR": str(temporary), "STREAM_TRAINER_TRAINER__TRIGGER_SECONDS": "0.2"}
    return Unit(
        name="trainer",
        module="stream_trainer.cli",
        arguments=["train", address(pipeline)],
        variables={**variables(settings), **more},
        log=folder / "trainer.log",
    )


def _until(condition: Callable[[], object], what: str, trainer: Life) -> None:
    deadline = time.monotonic() + _SETTLE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited {_SETTLE_SECONDS} s for {what}:\n{trainer.log}"
        threading.Event().wait(0.2)
