"""How a version becomes champion: what the trainer appends to the alias after a commit; pure, but for `appoint`.

The rule by which an entry is read is the store's: `store.aliases.champion_of`.
In mode `auto` nothing is written: the newest version that passed its gates is champion by the rule. In `manual` only a
person promotes. In `gated` the trainer does, when `does_well` says so. An entry that holds is never moved.
"""

import logging
import math
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import msgspec

from stream_trainer.errors import Corrupt, NoVersion
from stream_trainer.store import Manifest, ModelStore, Version
from stream_trainer.store.aliases import CHAMPION, Alias, Entry, Promotion

logger = logging.getLogger(__name__)

TRAINER = "trainer"
PROMOTION_AFTER = 5
TOLERANCE = 1.05
_LOSSES = ("log_loss", "mse")
_BASELINES = ("no_change", "majority")


def next_alias(
    entry: Entry,
    version: Version,
    mode: Promotion,
    recent: Sequence[Manifest],
    champion: Manifest | None,
    clock: Callable[[], datetime],
    *,
    promotion_after: int = PROMOTION_AFTER,
) -> Alias | None:
    """The champion entry to append after a commit, based on `entry.number`; None when there is nothing to say.

    `auto`: an entry only to record the mode, when the newest one has another. `manual`: the same, keeping the
    champion there was, or none. `gated`: the new version when `does_well`, else as `manual`. What is held stays held.

    Args:
        entry: the newest entry, as `ModelStore.alias_entry` gives it.
        version: the version that was just committed.
        mode: the trainer's.
        recent: manifests of the newest versions, oldest first, the last one that of `version`.
        champion: the champion before this commit, as the rule says; None when there was none.
        clock: now, UTC.
        promotion_after: so many versions in a row must have passed their gates.
    """
    alias = entry.alias
    held = alias is not None and alias.hold
    if mode == "gated" and not held and does_well(recent, champion, promotion_after=promotion_after):
        reason = f"passed its gates {promotion_after} times in a row, {_scores(version.manifest, champion)}"
        return Alias(version=version.number, reason=reason, by=TRAINER, at=clock(), promotion=mode)
    return record_mode(entry, mode, champion or (version.manifest if mode == "auto" else None), clock)


def record_mode(
    entry: Entry, mode: Promotion, champion: Manifest | None, clock: Callable[[], datetime]
) -> Alias | None:
    """The entry that says that the mode is another one now; None when it is the same, or auto as it is without entries.

    It keeps the champion there is, and whether it is held. Append it at the start of a run too: otherwise the first
    version after a change from auto is champion by the old rule until `next_alias` has been appended.
    """
    alias = entry.alias
    if mode == (alias.promotion if alias is not None else "auto"):
        return None
    reason = f"promotion is {mode} now"
    if alias is not None and alias.hold:
        return msgspec.structs.replace(alias, reason=reason, by=TRAINER, at=clock(), promotion=mode)
    if mode == "auto" and champion is None:
        return None  # with the first version there is one to name
    number = champion.version if champion is not None else None
    return Alias(version=number, reason=reason, by=TRAINER, at=clock(), promotion=mode)


def appoint(store: ModelStore, version: Version | None, mode: Promotion, clock: Callable[[], datetime]) -> None:
    """Append what `next_alias` says after a commit, or at the start of a run (no version) what `record_mode` says.

    Whoever has appended an entry meanwhile decided later: then nothing is written, and the next commit looks again.
    Nor is anything written while the entry or the champion cannot be read: what a person decided must not be replaced.
    """
    try:
        entry = store.alias_entry(CHAMPION)
        if mode == (entry.alias.promotion if entry.alias is not None else "auto") == "auto":
            return
        there = store.champion_by(entry.alias)
    except (Corrupt, NoVersion) as error:
        logger.warning("nobody is promoted: %s", error)
        return
    champion = there.manifest if there is not None else None
    if version is None:
        alias = record_mode(entry, mode, champion, clock)
    else:
        first = max(1, version.number - PROMOTION_AFTER + 1)
        recent = [m for number in range(first, version.number) if (m := _readable(store, number)) is not None]
        alias = next_alias(entry, version, mode, [*recent, version.manifest], champion, clock)
    if alias is not None and store.set_alias(CHAMPION, alias, entry.number) is not None:
        logger.info("champion: version %s, %s", alias.version, alias.reason)


def _readable(store: ModelStore, number: int) -> Manifest | None:
    try:
        return store.read(number).manifest
    except (Corrupt, NoVersion):
        return None


def does_well(recent: Sequence[Manifest], champion: Manifest | None, *, promotion_after: int = PROMOTION_AFTER) -> bool:
    """THE test of gated promotion, on the newest version of `recent`.

    It passes when the last `promotion_after` versions, this one included, all passed their gates with every
    micro-batch they took in, and its prequential loss over the window (`log_loss`, or `mse` for numbers) is finite,
    rests on at least one row, and is

    * with a champion: at most 1.05 times the loss that the champion's own manifest records;
    * without one: no worse than both baselines, no-change and majority, over the same window.

    The champion itself is not promoted again, and a champion whose manifest records no loss is taken for none.
    """
    last = recent[-promotion_after:]
    if len(last) < promotion_after or not all(m.passed and not m.quarantined for m in last):
        return False
    newest = last[-1]
    if champion is not None and champion.version == newest.version:
        return False
    bar = _bar(newest, champion)
    loss = window_loss(newest.metrics)
    return loss is not None and bar is not None and loss <= bar


def window_loss(metrics: dict[str, Any]) -> float | None:
    """The prequential loss over the window; None when there is none, or it rests on nothing."""
    if not metrics.get("rows"):
        return None
    losses = (metrics.get(name) for name in _LOSSES)
    return next((float(x) for x in losses if isinstance(x, float | int) and math.isfinite(x)), None)


def _bar(newest: Manifest, champion: Manifest | None) -> float | None:
    before = window_loss(champion.metrics) if champion is not None else None
    if before is not None:
        return before * TOLERANCE
    rows = {"rows": newest.metrics.get("rows")}
    baselines = [window_loss({**newest.metrics.get(name, {}), **rows}) for name in _BASELINES]
    known = [loss for loss in baselines if loss is not None]
    return min(known) if len(known) == len(_BASELINES) else None


def _scores(newest: Manifest, champion: Manifest | None) -> str:
    bar = _bar(newest, champion)
    loss = window_loss(newest.metrics)
    known = champion is not None and window_loss(champion.metrics) is not None
    against = f"version {champion.version} + 5 %" if champion is not None and known else "the better baseline"
    return f"loss {loss:.4g} against {bar:.4g} ({against})"
