"""Every crash point of the code once, with real Spark and the real broker, in one lineage.

A child is killed at the first point, its successor at the second, and so on; what the last one ends with is compared
with a lineage that nobody disturbed. A point that this log cannot reach stands in `ELSEWHERE` with the reason.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from infra import broker as local_broker
from infra.jars import ensure_jars
from infra.java import find_java
from stream_trainer.errors import SparkLost
from stream_trainer.settings import Settings
from stream_trainer.store import Manifest, ModelStore
from stream_trainer.testing import crash_points
from tests.bench.section import Section
from tests.faults.options import Options
from tests.faults.spark_child import Fault, SparkChild
from tests.faults.spark_scene import digests, log_ends, make_scene, one_after_the_other, whole

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# What this scenario cannot reach, and which test does.
ELSEWHERE: dict[str, str] = {}
# Reached once in a lineage, or once in a process; all others at the second arrival, which is in the stream.
_FIRST = {"microbatch.reference_written", "trainer.opened", "trainer.relearned"}
# In this order an intent is left behind for those that need one.
_ORDER = [
    "microbatch.reference_written",
    "microbatch.cut_fixed",
    "trainer.opened",
    "microbatch.fetched",
    "trainer.relearned",
]
_FEW = [
    "trainer.opened",
    "microbatch.cut_fixed",
    "microbatch.learned",
    "microbatch.files_written",
    "microbatch.committed",
]
_KILLED = {"kill": "the trainer", "jvm": "Spark's JVM", "worker": "a Python worker"}
_BATCHES_A_CHILD = 1
_BATCHES = 13


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How one child ended, and the newest version then."""

    fault: Fault
    code: int
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run of kills came to; every check has passed."""

    ends: Sequence[Ended]
    versions: int
    trained: int
    rejected: int


def every_point() -> list[Fault]:
    """One fault a crash point, then the JVM and a worker."""
    points = [name for name in crash_points() if name not in ELSEWHERE]
    ordered = [name for name in _ORDER if name in points] + [name for name in points if name not in _ORDER]
    return [*map(_at, ordered), Fault(what="jvm"), Fault(what="worker")]


def few_points() -> list[Fault]:
    """Before and after the intent, learned, files written, manifest published, JVM, worker."""
    return [*map(_at, _FEW), Fault(what="jvm"), Fault(what="worker")]


def measure(options: Options) -> Section:
    """The section of the report: a row a kill."""
    settings = Settings()
    with tempfile.TemporaryDirectory(prefix="stream-trainer-kills-") as folder:
        java, jars = find_java(settings.cache_dir), ensure_jars(settings, "kafka")
        info = local_broker.start(Path(folder) / "broker", java, jars, detach=False)
        try:
            found = run(info.bootstrap_servers, Path(folder), every_point())
        finally:
            local_broker.stop(info.folder)
    codes = {-9: "killed", 0: "went on by itself"}
    return Section(
        title="Kills with real Spark and the real broker, in one lineage",
        headings=["killed", "at", "arrival", "exit code", "newest version then"],
        rows=[
            [
                _KILLED[e.fault.what],
                e.fault.point or "decoding",
                str(e.fault.nth),
                codes.get(e.code, str(e.code)),
                str(e.version),
            ]
            for e in found.ends
        ],
        notes=[
            (
                f"{found.versions} versions, {found.trained:,} records trained, {found.rejected:,} rejected: weights, optimiser "
                "and cuts bit for bit those of a lineage that nobody disturbed."
            ),
            *(f"`{point}` is not reached here: `{where}`" for point, where in ELSEWHERE.items()),
        ],
    )


def run(bootstrap_servers: str, folder: Path, faults: Sequence[Fault], spark: "SparkSession | None" = None) -> Outcome:
    """Disturb one lineage, leave another in peace, and compare; with `spark` the other one is learned in this process.

    Raises:
        AssertionError: a promise was broken.
    """
    scene = make_scene(bootstrap_servers, folder)
    scene.keep_versions = 4  # so that retention has something to delete
    scene.fill(_BATCHES + _BATCHES_A_CHILD * len(faults))
    disturbed, peaceful = scene.store("disturbed"), scene.store("peaceful")
    lineage = [partial(scene.child, "disturbed", fault) for fault in faults]
    ends = []
    if spark is None:
        lineage.append(partial(scene.child, "peaceful"))
    with one_after_the_other(lineage) as children:
        for child in children:
            _ended(child)
            if child.fault is not None:
                ends.append(Ended(fault=child.fault, code=child.wait(), version=disturbed.highest()))
                rejected = scene.rejected()
    if spark is not None:
        scene.world.spark, scene.world.settings = spark, scene.settings("peaceful")
        scene.world.train()
    newest, expected = whole(disturbed, log_ends(scene.world)), whole(peaceful, log_ends(scene.world))
    assert digests(newest) == digests(expected)
    assert [m.cuts for m in _manifests(disturbed)] == [m.cuts for m in _manifests(peaceful)]
    assert (newest.total.trained, newest.total.rejected) == (scene.log.good, len(scene.log.bad))
    assert set(rejected) == scene.log.bad
    return Outcome(ends=ends, versions=newest.version, trained=newest.total.trained, rejected=newest.total.rejected)


def _at(point: str) -> Fault:
    return Fault(what="kill", point=point, nth=1 if point in _FIRST else 2)


def _ended(child: SparkChild) -> None:
    """Wait for a child, and make sure that it ended as its fault says."""
    code, said = child.run(), child.said()
    match child.fault.what if child.fault else None:
        case "kill":
            assert code == -9, (
                f"{child.fault} was not reached: give it a place in ELSEWHERE, or this log a reason\n{said}"
            )
        case "jvm":
            assert code == SparkLost.exit_code, said
            assert "Traceback" not in said
            assert said.splitlines()[-1].startswith("error: Spark's JVM"), said
        case "worker":
            assert code == 0, said
            assert "restarting from the newest version" in said
        case _:
            assert code == 0, said
            assert "Traceback" not in said


def _manifests(store: ModelStore) -> list[Manifest]:
    return [store.read(number).manifest for number in store.numbers()]
