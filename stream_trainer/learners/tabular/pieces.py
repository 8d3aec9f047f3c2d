"""A large block is learned in pieces, so that what its first rows teach counts for the rest: to date a drift, to mix, to scale.

Only the label memory stands still until the block's end: the rows were to be forecast without the block's labels, and
experts that were taught with younger ones would trust them too much.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from stream_trainer.learner import Batch, LearnReport, State
from stream_trainer.learners.tabular.model import SURENESS, Model, Seen
from stream_trainer.learners.tabular.naming import joined, split
from stream_trainer.learners.tabular.training import Recipe, learned

_MEMORY = "memory"


def learned_in_pieces(recipe: Recipe, state: State, batch: Batch, seen: Seen) -> tuple[State, LearnReport]:
    """As `training.learned`, of which there is one call a piece; the report is of the whole block."""
    pieces = list(recipe.passes.pieces(batch.rows))
    if len(pieces) == 1:
        now, report = learned(recipe, state, batch, seen)
        return _with_sureness(now, recipe.model, state, batch, seen), report
    model, known = recipe.model, _memory(state)
    ages = model.memory.ordered(batch.rows)
    now, reports = state, []
    for piece in pieces:
        part = _part(batch, piece)
        fresh = replace(model.seen_at(now, part.features, ages[piece]), known=seen.mixture[piece])
        now, report = learned(recipe, now, part, fresh)
        now = _with_memory(now, known)
        reports.append(report)

    head, counts = model.head(state.spec), _counts(batch)
    label = split(state.serving if int(state.serving["stream.rows"]) else now.serving).get("label", {})
    codes = head.code(label, batch.labels)
    loss = float((head.losses(seen.mixture, codes) * counts).mean())
    now = _with_memory(now, model.memory.after(known, head.centre(codes), counts))
    return _with_sureness(now, model, state, batch, seen), _report(reports, loss)


def _part(batch: Batch, piece: slice) -> Batch:
    weights = None if batch.weights is None else batch.weights[piece]
    return Batch(features=batch.features[piece], labels=batch.labels[piece], weights=weights)


def _counts(batch: Batch) -> Tensor:
    return torch.ones(batch.rows) if batch.weights is None else batch.weights.to(torch.float32)


def _memory(state: State) -> dict[str, Tensor]:
    return split(state.serving)[_MEMORY]


def _with_memory(state: State, known: dict[str, Tensor]) -> State:
    return replace(state, serving={**state.serving, **joined({_MEMORY: known})})


def _with_sureness(now: State, model: Model, before: State, batch: Batch, seen: Seen) -> State:
    """What the block's far rows teach; none are far in a short one, and before the first row nothing was forecast."""
    far = batch.rows > model.sureness.age
    if not (far and model.is_of_classes(before.spec) and int(before.serving["stream.rows"])):
        return now
    codes = model.head(before.spec).code(split(before.serving).get("label", {}), batch.labels)
    losses = split(before.training).get(SURENESS, {}).get("losses")
    found = model.sureness.learned(losses, seen.mixture, codes, _counts(batch))
    serving = {**now.serving, f"{SURENESS}.power": found["power"]}
    return replace(now, serving=serving, training={**now.training, f"{SURENESS}.losses": found["losses"]})


def _report(reports: Sequence[LearnReport], loss: float) -> LearnReport:
    """Of a block; the ways of the weights in its pieces add up."""
    return LearnReport(
        rows=sum(report.rows for report in reports),
        steps=sum(report.steps for report in reports),
        loss=loss,
        gradient_norm=max(report.gradient_norm for report in reports),
        update_norm=math.fsum(report.update_norm for report in reports),
        finite=math.isfinite(loss) and all(report.finite for report in reports),
        answered=any(report.answered for report in reports),
        new_concept=any(report.new_concept for report in reports),
    )
