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
        return learned(recipe, state, batch, seen)
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
    if model.is_of_classes(state.spec) and int(state.serving["stream.rows"]):
        now = _with_sureness(now, model, seen.mixture, codes, counts)
    return now, _report(reports, loss)


def _part(batch: Batch, piece: slice) -> Batch:
    weights = None if batch.weights is None else batch.weights[piece]
    return Batch(features=batch.features[piece], labels=batch.labels[piece], weights=weights)


def _counts(batch: Batch) -> Tensor:
    return torch.ones(batch.rows) if batch.weights is None else batch.weights.to(torch.float32)


def _memory(state: State) -> dict[str, Tensor]:
    return split(state.serving)[_MEMORY]


def _with_memory(state: State, known: dict[str, Tensor]) -> State:
    return replace(state, serving={**state.serving, **joined({_MEMORY: known})})


def _with_sureness(state: State, model: Model, mixture: Tensor, codes: Tensor, counts: Tensor) -> State:
    losses = split(state.training).get(SURENESS, {}).get("losses")
    found = model.sureness.learned(losses, mixture, codes, counts)
    serving = {**state.serving, f"{SURENESS}.power": found["power"]}
    return replace(state, serving=serving, training={**state.training, f"{SURENESS}.losses": found["losses"]})


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
