"""What the whole demo costs: proportional memory (PSS) of its process tree, and CPU time."""

import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field

import psutil

from tests.bench.demo import RunningDemo, demo
from tests.bench.options import Options
from tests.bench.processes import tree
from tests.bench.section import Goal, Section

_INTERVAL = 1.0
_MIB, _GIB = 2**20, 2**30
_GOAL_GIB, _GOAL_CORES = 4.0, 2.0
# What a command line contains, and what to call its process.
_NAMES = (
    ("kafka.Kafka", "broker (JVM)"),
    ("kafka.tools.StorageTool", "formatting the broker's folder (JVM)"),
    ("org.apache.spark.deploy.SparkSubmit", "Spark (JVM)"),
    ("monitors.report", "drift report (evidently)"),
    ("worker_daemon", "Spark's Python workers"),
    ("pyspark.daemon", "Spark's Python workers"),
    ("examples.flights.replay", "replayer"),
    ("stream_trainer.cli train", "trainer"),
    ("stream_trainer.cli serve", "service"),
    ("stream_trainer.cli demo", "demo (supervisor)"),
    ("infra.broker_guard", "guard of the broker"),
    ("-m tests.bench", "driver (in the bench)"),
)


@dataclass(slots=True)
class Samples:
    """The demo's memory over time. Bytes by name at the moment of the largest sum, and each name's own largest."""

    peak: Counter[str] = field(default_factory=Counter)
    own_peaks: Counter[str] = field(default_factory=Counter)
    cpu: dict[tuple[int, float], float] = field(default_factory=dict)
    wall: float = 0.0

    def take(self, processes: Iterable[psutil.Process]) -> None:
        """One sample; a process that ends meanwhile is left out of it."""
        now: Counter[str] = Counter()
        for process in processes:
            with suppress(psutil.Error):
                name = _name(process)
                now[name] += process.memory_full_info().pss
                times = process.cpu_times()
                self.cpu[process.pid, process.create_time()] = times.user + times.system
        self.own_peaks |= now
        if now.total() > self.peak.total():
            self.peak = now


def measure(options: Options) -> Section:
    """One demo of so many seconds, sampled each second."""
    seconds = options.seconds or 180.0
    with demo(seconds) as running:
        samples = _sample(running)
        reports = len(list(running.folder.rglob("*.html")))
    rows = [
        [name, f"{samples.peak[name] / _MIB:,.0f}", f"{largest / _MIB:,.0f}"]
        for name, largest in samples.own_peaks.most_common()
    ]
    rows.append(["whole demo", f"{samples.peak.total() / _MIB:,.0f}", ""])
    cores = sum(samples.cpu.values()) / samples.wall
    return Section(
        title="Memory and CPU of the demo",
        headings=("process", "MiB at the peak of the sum", "its own peak, MiB"),
        rows=rows,
        notes=[
            f"PSS each second of a demo of {seconds:.0f} s, start and end included; {reports} drift reports were written.",
            (
                f"CPU: {sum(samples.cpu.values()):.0f} s in {samples.wall:.0f} s of wall-clock; "
                "processes that lived less than a second may be missing."
            ),
        ],
        goals=[
            Goal(what="whole demo", limit=_GOAL_GIB, found=samples.peak.total() / _GIB, unit="GiB"),
            Goal(what="mean use", limit=_GOAL_CORES, found=cores, unit="cores"),
        ],
    )


def _sample(running: RunningDemo) -> Samples:
    samples = Samples()
    while running.child.pid is not None:
        due = time.monotonic() + _INTERVAL
        samples.take(tree(running.child.pid))
        time.sleep(max(0.0, due - time.monotonic()))
    samples.wall = time.monotonic() - running.started
    return samples


def _name(process: psutil.Process) -> str:
    line = " ".join(process.cmdline())
    return next((name for part, name in _NAMES if part in line), process.name())
