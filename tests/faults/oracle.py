"""What must be true of a history however many processes died in it."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from stream_trainer import offsets
from stream_trainer.errors import Corrupt
from stream_trainer.offsets import Offsets, Ranges
from stream_trainer.outbox import rejected_key
from stream_trainer.planning import acting_versions
from stream_trainer.replay import replay
from stream_trainer.store import ModelStore, Rows, Version
from stream_trainer.store.store import TRAINER, WEIGHTS
from stream_trainer.testing import ScriptedLog
from tests.faults.scenario import KEEP, PIPELINE, REQUESTS, script, sent_by, store_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """What a history holds, by construction: its rows, the keys of its unusable records, and where it ends.

    `needed` is where a lineage has to stand at least: what follows holds no records, and makes no version.
    """

    rows: int
    rejected: frozenset[str]
    needed: Offsets
    end: Offsets


@cache
def truth(seed: int) -> Truth:
    """Read the whole log at once, as nobody in production does."""
    log = ScriptedLog(PIPELINE, script(seed))
    topic, partitions = log.topic_name, log.partitions("")
    ends = log.ends("", partitions)
    table = log.read({topic: {p: (0, end) for p, end in ends.items()}})
    bad = [r for r in table.select(["_topic", "_partition", "_offset", "_row", "_reason"]).to_pylist() if r["_reason"]]
    keys = frozenset(rejected_key(r["_topic"], r["_partition"], r["_offset"], r["_row"]) for r in bad)
    newest = table.group_by(["_partition"]).aggregate([("_offset", "max")]).to_pylist()
    needed = {topic: {row["_partition"]: row["_offset_max"] + 1 for row in newest}}
    return Truth(rows=table.num_rows, rejected=keys, needed=needed, end={topic: ends})


def after_a_kill(folder: Path) -> list[str]:
    """What is wrong with the folder right after a process died: no version is visible that is not whole."""
    store = store_of(folder)
    wrong = []
    for number in store.numbers():
        try:
            version = store.read(number)
            if number > store.highest() - KEEP.keep_versions or not store.pruned(version):
                store.verify(number)
        except Corrupt as error:
            wrong.append(f"version {number} is visible, but {error}")
    return wrong


def at_the_end(folder: Path, seed: int) -> list[str]:
    """What is wrong with a history that was learned to its end."""
    store, true = store_of(folder), truth(seed)
    versions = [store.read(number) for number in store.numbers()]
    wrong = [*after_a_kill(folder), *_chain(versions), *_counts(versions, true), *_acts(store)]
    reached = versions[-1].manifest.next_offsets if versions else {}
    if not _between(true.needed, reached, true.end):
        wrong.append(f"the log ends at {true.end}, the lineage at {reached}")
    sent = sent_by(folder)
    rejected = {line["rejected"] for line in sent if "rejected" in line}
    if rejected != true.rejected:
        wrong.append(
            f"rejected by key: {len(rejected - true.rejected)} too many, {len(true.rejected - rejected)} missing"
        )
    known = {(version.number, version.sha256) for version in versions}
    wrong += [
        f"announced, but not committed: {x}"
        for x in sent
        if "announced" in x and (x["announced"], x["sha256"]) not in known
    ]
    return wrong


def _acts(store: ModelStore) -> list[str]:
    """Everything that was asked was decided on once, and carried out."""
    acts = [act for v in acting_versions(store, store.head()) for of in v.manifest.acts for act in of.acts]
    wanted = {request.action_id for _, request in REQUESTS}
    refused = [f"{act.asked.action.kind} was refused: {act.refused}" for act in acts if not act.is_done]
    if sorted(act.asked.action_id for act in acts) != sorted(wanted):
        return [
            *refused,
            f"{len(wanted)} actions were asked, decided on were {[act.asked.action.kind for act in acts]}",
        ]
    return refused


def differences(folder: Path, undisturbed: Path) -> list[str]:
    """How a history differs from one in which nobody died: weights, optimiser, gates' and metrics' state, cuts."""
    mine, calm = store_of(folder), store_of(undisturbed)
    first, second = mine.head(), calm.head()
    if first is None or second is None:
        return ["there is no version"]
    wrong = [
        f"{name} of the head differs"
        for name in (WEIGHTS, TRAINER)
        if first.manifest.files[name].sha256 != second.manifest.files[name].sha256
    ]
    if _cuts(mine) != _cuts(calm):
        wrong.append("the cuts differ")
    return wrong


def _between(low: Offsets, found: Offsets, high: Offsets) -> bool:
    return all(low[t][p] <= found.get(t, {}).get(p, -1) <= end for t, ps in high.items() for p, end in ps.items())


def replayed(folder: Path, seed: int) -> list[str]:
    """Whether the whole lineage is what learning its cuts again gives, from nothing."""
    store, log = store_of(folder), ScriptedLog(PIPELINE, script(seed))
    report = replay(PIPELINE, store, lambda ranges, _: log.read(ranges), to=store.highest())
    return [] if report.identical else [f"a replay differs: {report.first_difference}"]


def _cuts(store: ModelStore) -> list[Ranges]:
    return [cut for number in store.numbers() for cut in store.read(number).manifest.cuts]


def _chain(versions: list[Version]) -> list[str]:
    wrong = []
    numbers = [version.number for version in versions]
    if numbers != list(range(1, len(versions) + 1)):
        wrong.append(f"the numbers are not dense: {numbers}")
    position: Offsets = {}
    for version in versions:
        manifest = version.manifest
        for cut in manifest.cuts:
            try:
                position = offsets.advance(position, cut)
            except ValueError as error:
                wrong.append(f"version {version.number}: {error}")
        if position != manifest.next_offsets:
            wrong.append(
                f"version {version.number}: its cuts end at {position}, next_offsets are {manifest.next_offsets}"
            )
    return wrong


def _counts(versions: list[Version], true: Truth) -> list[str]:
    total = Rows()
    wrong = []
    for version in versions:
        rows = version.manifest.rows
        total = total + rows
        if rows.seen != rows.trained + rows.rejected + rows.skipped + rows.quarantined:
            wrong.append(f"version {version.number}: {rows} do not add up")
    if (total.seen, total.rejected) != (true.rows, len(true.rejected)):
        wrong.append(
            f"{total} over all versions; the log holds {true.rows} rows, {len(true.rejected)} of them unusable"
        )
    if versions and versions[-1].manifest.total != total:
        wrong.append(f"the head's total {versions[-1].manifest.total} is not the sum {total}")
    return wrong
