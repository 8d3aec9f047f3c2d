"""How long the store's part of a trainer's start takes, however many versions there are."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import msgspec
import pyarrow as pa

from examples.flights.pipeline import pipeline
from stream_trainer import lineage as lineages
from stream_trainer import microbatch, offsets
from stream_trainer.decode import decode
from stream_trainer.opening import open_lineage
from stream_trainer.promotion import appoint
from stream_trainer.settings import StoreSettings
from stream_trainer.store import ModelStore, Version, retention
from stream_trainer.store import manifest as manifests
from stream_trainer.store.aliases import CHAMPION, Alias
from stream_trainer.store.storage import LocalStorage
from stream_trainer.store.store import Intent
from tests.bench.alone import START, check_trained, context_of, next_cut
from tests.bench.decode import records
from tests.bench.machine import file_system
from tests.bench.options import Options
from tests.bench.section import Goal, Section
from tests.bench.timing import seconds

_COUNTS = (10, 10_000, 100_000)
_ROWS = 2_000
_MEMORY = Path("/dev/shm")  # noqa: S108 - a name of our own in it, made by tempfile
_ROOM = 4 * 2**30  # what 100,000 versions and some more take
_RUNS, _GOAL = 15, 1.5


def measure(options: Options) -> Section:
    """Medians over stores opened anew in this process, with what the kernel has cached."""
    runs = options.runs or _RUNS
    rows, opening = [], {}
    for count in _COUNTS:
        with _folder() as folder:
            kind = file_system(folder)
            data = _build(folder, count)
            for hint in ("right", "missing"):
                if hint == "missing":
                    (folder / pipeline.name / "CURRENT").unlink()
                found = [seconds(partial(_afresh, action, folder), runs) for action in _ACTIONS.values()]
                opening[count, hint] = found[0]
                rows.append([f"{count:,}", hint, *(f"{1000 * spent:.2f}" for spent in found)])
    least, most = (opening[count, "right"] for count in (_COUNTS[0], _COUNTS[-1]))
    return Section(
        title="Opening a store of many versions",
        headings=("versions", "`CURRENT`", *(f"{name}, ms" for name in _ACTIONS)),
        rows=rows,
        notes=[
            f"Medians of {runs}, each by a store object that knows nothing yet; folder on {kind}, all of it cached.",
            (
                "open: head verified file by file, damaged versions above it, intents, lineage loaded, alias of the "
                "champion, alerts; a run has died after planning a cut. numbers: the list of `models list`."
            ),
            f"Older versions are pruned as by default: {data:,} of {_COUNTS[-1]:,} still have data.",
        ],
        goals=[
            Goal(what=f"{_COUNTS[-1]:,} versions against {_COUNTS[0]}", limit=_GOAL, found=most / least, unit="times")
        ],
    )


def _open(store: ModelStore) -> None:
    """What a trainer does before it looks at Kafka, in the same order."""
    context = context_of(pipeline, store)
    opened = open_lineage(context, "earliest", START, START)
    appoint(store, None, context.promotion, context.clock)
    head = opened.lineage.head
    if head is None or len(opened.planned) != 1 or opened.damaged:
        raise RuntimeError("the store was not built as it should be: the figures would mean nothing")
    microbatch.alerts_of(store, head)


_ACTIONS: dict[str, Callable[[ModelStore], object]] = {
    "open": _open,
    "highest": ModelStore.highest,
    "champion": ModelStore.champion,
    "numbers": ModelStore.numbers,
}


def _afresh(action: Callable[[ModelStore], object], folder: Path) -> None:
    action(_store(folder))


def _store(folder: Path) -> ModelStore:
    return ModelStore(LocalStorage(folder), pipeline.name)


@contextmanager
def _folder() -> Iterator[Path]:
    """In memory if there is room: it is the look-ups that are measured, and no disk is worn by the building."""
    roomy = _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > _ROOM
    with tempfile.TemporaryDirectory(prefix="stream-trainer-bench-", dir=_MEMORY if roomy else None) as folder:
        yield Path(folder)


def _build(folder: Path, count: int) -> int:
    """A chain of versions as a trainer and its retention would have left it, and a planned cut after the newest.

    The first one is real; the others are copies of it with numbers, offsets and digests of their own, written without
    fsync. How many have data.
    """
    store = _store(folder)
    table = pa.Table.from_batches([decode(pipeline.contract, records(_ROWS))])
    lineage = lineages.fresh(pipeline, START)
    lineage = microbatch.run(context_of(pipeline, store), lineage, next_cut(lineage, _ROWS), lambda: table)
    assert lineage.head is not None
    check_trained(lineage, _ROWS)
    newest, kept = lineage.head, 1
    data = folder / store.pipeline / "versions" / f"{newest.number:020d}" / newest.manifest.attempt
    for number in range(2, count + 1):
        newest, old = _after(newest), retention.outlived(number, count, StoreSettings())
        _write(newest, data, pruned=old)
        kept += not old
    if retention.outlived(1, count, StoreSettings()):
        store.prune(1)
        kept -= 1
    store.storage.put(f"{store.pipeline}/CURRENT", manifests.canonical_json({"version": count}))
    cut = next_cut(replace(lineage, position=newest.manifest.next_offsets), _ROWS)
    store.fix_cut(Intent(version=count + 1, cut=0, ranges=cut.ranges, strategy="local", seed=0, run_id="bench"))
    store.set_alias(CHAMPION, Alias(version=count, reason="measured", by="bench", at=datetime.now(UTC)), 0)
    return kept


def _after(version: Version) -> Version:
    """The version that follows: as many records further, everything else the same."""
    last = version.manifest
    ranges = {t: {p: (at, at + _ROWS) for p, at in ps.items()} for t, ps in last.next_offsets.items()}
    manifest = msgspec.structs.replace(
        last,
        version=last.version + 1,
        previous=last.version,
        parent=last.version,
        parent_sha256=version.sha256,
        next_offsets=offsets.advance(last.next_offsets, ranges),
        ranges=ranges,
        cuts=[ranges],
        total=last.total + last.rows,
    )
    return Version(manifest, manifests.sha256(manifests.encode(manifest)))


def _write(version: Version, data: Path, *, pruned: bool) -> None:
    """Beside the folder of the first version, with links to its data: the bytes are the same."""
    home = data.parent.parent / f"{version.number:020d}"
    home.mkdir()
    (home / "manifest.json").write_bytes(manifests.encode(version.manifest))
    if pruned:
        (home / "pruned.json").write_bytes(manifests.canonical_json({"version": version.number}))
        return
    (home / data.name).mkdir()
    for name in version.manifest.files:
        (home / data.name / name).hardlink_to(data / name)
