"""What a micro-batch does to the tensors of `Sgd`, in numbered steps. Nothing here is kept between calls."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from stream_trainer.features import Standardiser
from stream_trainer.learner import Batch, LearnReport, State
from stream_trainer.learners.counting import counting
from stream_trainer.learners.pace import PART, Pace
from stream_trainer.learners.sgd.member import Member
from stream_trainer.learners.sgd.model import Model, Parts
from stream_trainer.learners.sgd.nets import Loss, OptimizerBuilder, default_loss
from stream_trainer.learners.sgd.randomness import aside, continued
from stream_trainer.learners.sgd.replay import Replay, Table, steps
from stream_trainer.learners.tabular.drift import NO_DRIFT, Drift, Judged, judged_by
from stream_trainer.learners.tabular.naming import joined, split
from stream_trainer.learners.tabular.replay import Rows
from stream_trainer.learners.tabular.trial import Forecasts

_NOTHING = LearnReport(rows=0, steps=0, loss=0.0, gradient_norm=0.0, update_norm=0.0, finite=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a model learns; see `Sgd`."""

    model: Model
    optimizer: OptimizerBuilder
    loss: Loss | None
    rows_per_step: int
    clip_norm: float
    passes: int
    replay: Replay | None
    drift: Drift | None

    @property
    def watches(self) -> bool:
        """Whether it matters how the forecasts did."""
        return bool(self.model.rates or self.drift)

    def members(self, state: State) -> list[Member]:
        """The state's nets and optimisers, to be changed."""
        model, training = self.model, split(state.training)
        loss = self.loss or default_loss(state.spec.task)
        rates: Sequence[float | None] = model.rates or (None,)
        return [
            Member(net, self.optimizer, rate, training.get(f"optimizer{at}", {}), loss=loss, clip_norm=self.clip_norm)
            for net, rate, at in zip(model.nets(state), rates, model.places, strict=True)
        ]


def learned(recipe: Recipe, state: State, batch: Batch) -> tuple[State, LearnReport]:
    """The state after a micro-batch."""
    if recipe.watches or recipe.replay:
        batch = counting(batch)
        if not bool(torch.isfinite(batch.labels).all()):
            return state, replace(_NOTHING, loss=math.nan, finite=False)
    if not batch.rows:
        return state, _NOTHING
    model, spec = recipe.model, state.spec
    parts, training = split(state.serving), split(state.training)

    # 1. What is known of the columns, and what there is to learn from.
    scaler = Standardiser.from_tensors(parts["standardiser"]).update(batch.features)
    kept = training.get("replay", {}) if recipe.replay else {}
    table = Table.of(kept, scaler.scale(batch.features, spec.scaled), batch)
    seen = _seen(recipe, state, batch, table) if recipe.watches else None
    rows = seen.rows if seen else table.positions(table.labels[:, None])

    with continued(state.training["rng"]) as rng:
        # 2. How the forecasts did, and whether the world has changed.
        judged = _tried(recipe, state, seen, table) if seen else NO_DRIFT
        since = rows.since(judged.start, judged.keep) if judged.noticed else rows

        # 3. The members learn; after a drift those that were left behind copy the best.
        members = recipe.members(state)
        pace = Pace.of(state.training)
        report = _taught(recipe, members, table, rows, since, judged, pace=pace)
    sources = _best_copied(recipe, state, members, table, since, seen) if seen and judged.noticed else model.places

    # 4. What is remembered.
    after: Parts = {"standardiser": scaler.tensors()}
    learning: Parts = {PART: pace.after(batch.rows)}
    for at, source in zip(model.places, sources, strict=True):
        member = members[model.places.index(source)]
        after[f"net{at}"], learning[f"optimizer{at}"] = member.tensors(), member.moments()
    if recipe.replay:
        learning["replay"] = table.kept(since.inputs[-recipe.replay.rows :])
    if seen:
        _remember(recipe, seen, judged, after, learning)
    return State(spec=spec, serving=joined(after), training=joined(learning) | {"rng": rng[0]}), report


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """How a state's forecasts for a block did.

    Attributes:
        rows: kept rows and the block, by position in the table, with coded labels.
        known: what was known of the labels when they were coded.
        label: what is known of them after the block.
        before: rows that have been learned before it.
        judged: what the alarm says.
        mixer: its tensors after the block.
    """

    rows: Rows
    known: dict[str, Tensor]
    label: dict[str, Tensor]
    before: int
    new: int
    judged: Judged
    mixer: dict[str, Tensor]


def _seen(recipe: Recipe, state: State, batch: Batch, table: Table) -> _Seen:
    model, spec, head = recipe.model, state.spec, recipe.model.head(state.spec)
    parts, training = split(state.serving), split(state.training)
    before = int(training["stream"]["rows"]) if "stream" in training else 0
    known = parts.get("label") or training.get("label") or head.fresh()
    label = head.update(known, batch.labels)
    # Numbers of the first block are coded by their own scale: nothing was known before.
    known = known if before else label
    rows = table.positions(head.code(known, table.labels.double()))
    codes, counts = rows.codes[table.old :], rows.weights[table.old :]

    loaded = model.loaded(state)
    with torch.no_grad():
        scaled = loaded.scaling(batch.features)
        forecasts = model.forecasts(spec, known, [net(scaled) for net in loaded.nets])
        mixture = model.mixture(spec, parts, forecasts)
        judged = NO_DRIFT
        if recipe.drift:
            rates = training.get("drift") or recipe.drift.fresh()
            judged = judged_by(recipe.drift, rates, head, mixture, codes, counts, before)
        mixer: dict[str, Tensor] = {}
        if model.rates:
            mixer = parts["mixer"] | (training.get("mixer") or model.mixer.fresh_moments(len(model.rates)))
        if mixer and before:
            losses = head.losses(forecasts, codes)
            mixer = model.mixer.learned(mixer, forecasts, codes, losses, counts, classes=spec.task != "regression")
    return _Seen(rows=rows, known=known, label=label, before=before, new=batch.rows, judged=judged, mixer=mixer)


def _tried(recipe: Recipe, state: State, seen: _Seen, table: Table) -> Judged:
    """What the alarm says, but a drift counts only if a response to it stands its trial. Draws nothing for good."""
    judged, drift = seen.judged, recipe.drift
    if not judged.noticed or drift is None or drift.trial is None:
        return judged

    def forecasts(learning: Judged) -> Forecasts:
        def after(part: Rows, positions: Tensor) -> Tensor:
            with aside():
                members = recipe.members(state)
                part = part.all_new() if learning.noticed else part
                _taught(recipe, members, table, part, part, learning, pace=Pace.of(state.training))
            return _forecasts(recipe, state, seen, members, table.rows[positions])

        return after

    won = drift.trial.won(
        seen.rows.since(judged.start, judged.keep),
        seen.rows,
        responding=forecasts(judged),
        usual=forecasts(NO_DRIFT),
        losses=recipe.model.head(state.spec).losses,
    )
    return judged if won else judged.none()


def _forecasts(recipe: Recipe, state: State, seen: _Seen, members: Sequence[Member], rows: Tensor) -> Tensor:
    with torch.no_grad():
        return recipe.model.forecasts(state.spec, seen.known, [member.logits(rows) for member in members])


def _taught(
    recipe: Recipe, members: Sequence[Member], table: Table, rows: Rows, since: Rows, judged: Judged, *, pace: Pace
) -> LearnReport:
    """One pass over the new rows, then more over those since a drift, or over all; it stops at what is not finite.

    The loss is that of the first pass, replayed rows included, and the mean over the members.
    """
    more = recipe.passes - 1 + (recipe.drift.passes if recipe.drift and judged.noticed else 0)
    total, count, largest, taken = 0.0, 0, 0.0, 0
    for turn in range(1 + more):
        part = since if turn else rows
        pieces = steps(part, recipe.rows_per_step, recipe.replay, again=turn > 0)
        for at, piece in enumerate(pieces):
            taught, labels, weights = table.taken(piece)
            for member in members:
                value, norm = member.step(taught, labels, weights, pace.at(at * recipe.rows_per_step))
                if not (math.isfinite(value) and math.isfinite(norm)):
                    learned_rows = at * recipe.rows_per_step
                    return replace(
                        _NOTHING, rows=learned_rows, steps=taken, loss=value, gradient_norm=norm, finite=False
                    )
                largest = max(largest, norm)
                if not turn:
                    total += value * len(labels)
                    count += len(labels)
            taken += 1
    moved = math.sqrt(math.fsum(square for member in members for square in member.way()))
    return LearnReport(
        rows=len(rows.inputs) - rows.old,
        steps=taken,
        loss=total / count if count else 0.0,
        gradient_norm=largest,
        update_norm=moved,
        finite=True,
    )


def _best_copied(
    recipe: Recipe, state: State, members: Sequence[Member], table: Table, since: Rows, seen: _Seen
) -> tuple[str, ...]:
    """For each member the place of the one that it goes on as: the best on the new rows, if it is left behind."""
    places = recipe.model.places
    if recipe.drift is None or len(members) == 1:
        return places
    new = slice(since.old, None)
    forecasts = _forecasts(recipe, state, seen, members, table.rows[since.inputs[new]])
    losses = recipe.model.head(state.spec).losses(forecasts, since.codes[new]).mul(since.weights[new]).mean(1)
    best = int(losses.argmin())
    behind = (losses > losses[best] + recipe.drift.margin).tolist()
    return tuple(places[best] if left else place for place, left in zip(places, behind, strict=True))


def _remember(recipe: Recipe, seen: _Seen, judged: Judged, after: Parts, learning: Parts) -> None:
    """Adds what is known of the labels, the mixer and the alarm; after a drift all members are alike again."""
    learning["stream"] = {"rows": torch.tensor(seen.before + seen.new)}
    if recipe.drift:
        learning["drift"] = judged.after
    if not recipe.model.rates:
        learning["label"] = seen.label
        return
    mixer = seen.mixer
    if judged.noticed:
        mixer |= recipe.model.mixer.fresh(len(recipe.model.rates), len(mixer["bias"])) | {"bias": mixer["bias"]}
    after["label"] = seen.label
    learning["mixer"] = {"moments": mixer["moments"]}
    after["mixer"] = {name: tensor for name, tensor in mixer.items() if name != "moments"}
