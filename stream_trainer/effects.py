"""Carries out what an intent says of actions. What it does follows from the act alone, so that doing it again changes nothing.

`on_champion` appends at most one numbered entry, which a repetition finds there; `on_learner` is a pure function of lineage
and records, and the same for the trainer and a replay.
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace

import pyarrow as pa

from stream_trainer import learner, retraining
from stream_trainer.acting import RaiseLearningRate
from stream_trainer.acts import Act, CutActs, refused
from stream_trainer.lineage import Lineage
from stream_trainer.offsets import Ranges
from stream_trainer.pipeline import Pipeline
from stream_trainer.store import ModelStore
from stream_trainer.store.aliases import CHAMPION, Alias

logger = logging.getLogger(__name__)

Reread = Callable[[Ranges], pa.Table | None]


def on_champion(store: ModelStore, acts: Iterable[Act]) -> None:
    """Append what acts say of the champion, unless somebody has decided since they were planned: then that counts."""
    for act in acts:
        if not act.champion:
            continue
        asked, champion = act.asked, act.champion
        alias = Alias(
            version=champion.version,
            reason=f"{asked.action.kind}: {asked.reason}" if asked.reason else asked.action.kind,
            by=asked.by,
            at=act.at,
            hold=champion.hold,
            promotion=champion.promotion,
            action=asked.action_id,
        )
        if store.set_alias(CHAMPION, alias, champion.based_on) is None:
            logger.warning("action %s: the champion was decided on meanwhile, it stays so", asked.action_id)


def on_learner(pipeline: Pipeline, lineage: Lineage, acts: Iterable[Act], read: Reread) -> Lineage:
    """The lineage after the acts of its next cut, which are noted as those of it.

    Args:
        pipeline: whose learner.
        lineage: where it stands.
        acts: as the intent, or the manifest, has them.
        read: the decoded records of exactly these ranges, in any order; None when they are gone.

    Raises:
        ValueError: the learner cannot do it; it is not the one that was asked.
    """
    done: list[Act] = []
    for act in acts:
        if act.is_done and isinstance(act.asked.action, RaiseLearningRate):
            action = act.asked.action
            state = learner.hastened(pipeline.learner, lineage.state, action.factor, action.rows)
            lineage = replace(lineage, state=state)
        if act.is_done and act.ranges:
            lineage, problem = _retrained(pipeline, lineage, read(act.ranges))
            act = refused(act, problem) if problem else act  # noqa: PLW2901
        done.append(act)
    if not done:
        return lineage
    pending = lineage.pending
    noted = CutActs(cut=len(pending.cuts), acts=done)
    return replace(lineage, pending=replace(pending, acts=(*pending.acts, noted)))


def _retrained(pipeline: Pipeline, lineage: Lineage, rows: pa.Table | None) -> tuple[Lineage, str]:
    """The lineage with what was learned anew; or as it was, and why."""
    if rows is None:
        return lineage, "the records are gone"
    return retraining.retrained(pipeline, lineage, rows)
