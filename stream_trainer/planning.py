"""What a trainer decides about the requests in `P.actions`, before an intent is written: what is asked is done, or refused with why.

Everything that a decision depends on (the clock, the champion, what the log still holds) is looked at here and only here;
what is decided stands in the intent, so that carrying it out again needs none of it.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec

from stream_trainer.acting import (
    Asked,
    HoldPromotion,
    RaiseLearningRate,
    ReleasePromotion,
    RollBack,
    WarmRetrain,
    parse,
)
from stream_trainer.acts import Act, Champion, Read, refused
from stream_trainer.championing import usable
from stream_trainer.errors import Corrupt, NoVersion, StoreDamaged, UsageError
from stream_trainer.learner import hastened
from stream_trainer.lineage import Lineage
from stream_trainer.offsets import Offsets, Ranges
from stream_trainer.outside import Requests, Source
from stream_trainer.pipeline import Pipeline
from stream_trainer.store import ModelStore, Version
from stream_trainer.store.aliases import CHAMPION, Alias, champion_of

logger = logging.getLogger(__name__)

MOST = 16
_OF_THE_CHAMPION = (HoldPromotion, RollBack, ReleasePromotion)
_FURTHEST = 10_000


class Refusal(Exception):
    """Why nothing is done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Planner:
    """What decisions look at."""

    pipeline: Pipeline
    store: ModelStore
    source: Source
    requests: Requests

    def plan(self, lineage: Lineage, now: datetime) -> tuple[list[Act], Read | None]:
        """The acts of the next cut, and how far `P.actions` is read with them.

        At most one of them decides on the champion: what follows it waits for the next cut.

        Raises:
            BrokerUnavailable: Kafka does not answer.
        """
        read = lineage.asked
        page = self.requests.after(read, MOST)
        if not page.records and (page.next == 0 if read is None else read.next == page.next):
            return [], read
        skipped = read.skipped if read is not None else 0
        past = list(self._past(lineage)) if page.records else []
        acts: list[Act] = []
        following = page.next
        for record in page.records:
            asked = parse(record.key, record.value)
            if asked is None:
                logger.warning(
                    "%s at offset %d is no action: it is skipped", self.pipeline.topics.actions, record.offset
                )
                skipped += 1
                continue
            if any(asked.action_id == act.asked.action_id for act in (*past, *acts)):
                continue
            if _decides(asked) and any(_decides(act.asked) for act in acts):
                following = record.offset
                break
            acts.append(self._act(lineage, asked, [*past, *acts], now))
        return acts, Read(topic_id=page.topic_id, next=following, skipped=skipped)

    def _past(self, lineage: Lineage) -> Iterator[Act]:
        for cut in lineage.pending.acts:
            yield from cut.acts
        for version in acting_versions(self.store, lineage.head):
            for cut in version.manifest.acts:
                yield from cut.acts

    def _act(self, lineage: Lineage, asked: Asked, past: list[Act], now: datetime) -> Act:
        act = Act(asked=asked, at=now)
        try:
            self._respect_cooldown(asked, past, now)
            act = msgspec.structs.replace(act, **self._details(lineage, asked))
        except Refusal as why:
            act = refused(act, str(why))
        said = "is carried out" if act.is_done else f"is refused: {act.refused}"
        logger.info("action %s, %s, %s", asked.action_id, asked.action.kind, said)
        return act

    def _respect_cooldown(self, asked: Asked, past: list[Act], now: datetime) -> None:
        cooldown = self.pipeline.monitoring.action_cooldown
        kind = asked.action.kind
        if isinstance(asked.action, ReleasePromotion) or cooldown <= timedelta(0):
            return
        newest = max((act.at for act in past if act.is_done and act.asked.action.kind == kind), default=None)
        if newest is not None and now - newest < cooldown:
            raise Refusal(f"the last {kind} was at {newest.isoformat()}: at most one in {cooldown}")

    def _details(self, lineage: Lineage, asked: Asked) -> dict[str, Any]:
        match asked.action:
            case RaiseLearningRate(factor=factor, rows=rows):
                try:
                    hastened(self.pipeline.learner, lineage.state, factor, rows)
                except ValueError as error:
                    raise Refusal(str(error)) from error
                return {}
            case WarmRetrain(records=records):
                return {"ranges": newest_ranges(lineage.position, self.source.earliest(), records)}
            case _:
                return {"champion": self._champion(asked)}

    def _champion(self, asked: Asked) -> Champion:
        try:
            number, alias = self.store.alias_entry(CHAMPION)
            champion = champion_of(alias, self.store.newest_passed)
        except (Corrupt, NoVersion) as error:
            raise Refusal("the alias of the champion cannot be read") from error
        if champion is None:
            raise Refusal("there is no champion yet")
        held = alias is not None and alias.hold
        ours = alias.action or None if alias is not None else None
        hold = True
        match asked.action:
            case HoldPromotion() if held:
                raise Refusal(f"version {champion} is held already, {_by(alias)}")
            case RollBack() if held and ours is None:
                raise Refusal(f"version {champion} is held, {_by(alias)}: a person decides")
            case RollBack():
                since = asked.alert.since if asked.alert is not None else asked.asked_at
                champion = self._before(champion, since)
            case ReleasePromotion(hold=of):
                if not held or ours != of:
                    raise Refusal("the hold is not that action's any more")
                hold = False
            case _:
                pass
        mode = alias.promotion if alias is not None else "auto"
        return Champion(version=champion, hold=hold, promotion=mode, based_on=number)

    def _before(self, champion: int, since: datetime) -> int:
        """The newest version, the champion or before it, that has learned nothing from after an instant and may be served."""
        number: int | None = champion
        for _ in range(_FURTHEST):
            if number is None:
                break
            try:
                manifest = self.store.read(number).manifest
                if manifest.passed and (manifest.trained_through or manifest.created_at) <= since:
                    return usable(self.store, number).number
            except (Corrupt, NoVersion, UsageError, StoreDamaged):
                pass
            number = self.store.newest_passed(before=number)
        raise Refusal(f"no version from before {since.isoformat()} may be served: there is none, or its data is gone")


def acting_versions(store: ModelStore, head: Version | None) -> Iterator[Version]:
    """The versions of a lineage that have acts, newest first; each names the one before it."""
    version = head
    while version is not None:
        if version.manifest.acts:
            yield version
        before = version.manifest.acted_before
        if not before or before >= version.number:
            return
        try:
            version = store.read(before)
        except (Corrupt, NoVersion) as error:
            logger.warning("what was done before version %d is not known any more: %s", version.number, error)
            return


def newest_ranges(position: Offsets, earliest: Offsets, records: int) -> Ranges:
    """The newest `records` offsets before a position, an equal share of each partition.

    Raises:
        Refusal: some of them are gone, or there are none.
    """
    found: Ranges = {}
    for topic, starts in earliest.items():
        share = -(-records // max(1, len(starts)))
        for partition, start in starts.items():
            end = position.get(topic, {}).get(partition, start)
            first = max(0, end - share)
            if first < min(start, end):
                raise Refusal(f"offsets {first} to {min(start, end) - 1} of {topic}[{partition}] are gone (retention)")
            found.setdefault(topic, {})[partition] = (min(first, end), end)
    if not any(end > first for ps in found.values() for first, end in ps.values()):
        raise Refusal("nothing was learned from the log yet")
    return found


def _decides(asked: Asked) -> bool:
    return isinstance(asked.action, _OF_THE_CHAMPION)


def _by(alias: Alias | None) -> str:
    return "by an action" if alias is not None and alias.action else "by a person"
