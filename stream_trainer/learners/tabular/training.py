"""What a micro-batch does to the tensors of `Tabular`: in numbered steps, each a part's. Nothing here is kept between calls."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from stream_trainer.features import Standardiser
from stream_trainer.learner import Batch, LearnReport, State
from stream_trainer.learners.pace import PART, Pace
from stream_trainer.learners.tabular.drift import NO_DRIFT, Drift, Judged, judged_by
from stream_trainer.learners.tabular.model import SURENESS, Model, Parts, Seen
from stream_trainer.learners.tabular.naming import joined, split
from stream_trainer.learners.tabular.nets import Training
from stream_trainer.learners.tabular.passes import Passes
from stream_trainer.learners.tabular.renaming import is_new
from stream_trainer.learners.tabular.replay import Rows
from stream_trainer.learners.tabular.trial import Forecasts

_NOTHING = LearnReport(rows=0, steps=0, loss=0.0, gradient_norm=0.0, update_norm=0.0, finite=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How the parts of a model learn: the model, what is done about a drift, and in what passes."""

    model: Model
    drift: Drift | None
    passes: Passes


def learned(recipe: Recipe, state: State, batch: Batch, seen: Seen) -> tuple[State, LearnReport]:
    """The state after a micro-batch; `seen` is what the experts forecast for it with `state`."""
    if not batch.rows:
        return state, _NOTHING
    model, spec, head = recipe.model, state.spec, recipe.model.head(state.spec)
    parts, training = split(state.serving), split(state.training)
    generator = Generator()
    generator.set_state(state.training["rng"])
    before = int(parts["stream"]["rows"])

    # 1. What is known of columns and labels. The first block is seen by its own scale: nothing was known before.
    label = head.update(parts.get("label", {}), batch.labels)
    scale = Standardiser.from_tensors(parts["standardiser"], model.window).update(batch.features, robust=True).tensors()
    counts = torch.ones(batch.rows) if batch.weights is None else batch.weights.to(torch.float32)
    codes = head.code(parts["label"] if before and label else label, batch.labels)
    inputs = seen.inputs
    if not before:
        inputs = model.inputs(spec, parts | {"standardiser": scale}, batch.features, model.memory.ordered(batch.rows))

    # 2. How the forecasts did.
    loss = float((head.losses(seen.mixture, codes) * counts).mean())
    rows = Rows.of(parts["recent"] | training["recent"], inputs, codes, counts)
    judged = _judged(recipe, state, rows, seen, before, generator)
    mixer = _mixed(recipe, state, seen.forecasts, codes, counts, before, judged)

    # 3. The experts learn.
    since = rows.since(judged.start, judged.keep) if judged.noticed else rows
    report = replace(_NOTHING, rows=batch.rows, loss=loss, finite=math.isfinite(loss))
    report = replace(report, answered=judged.noticed, new_concept=judged.new_concept)
    pace = Pace.of(state.training)
    learning: Parts = {PART: pace.after(batch.rows)}
    if model.nets:
        width = model.memory.width(head.size)
        net = Training(model.nets, parts["nets"], training["nets"], head, width, pace=pace.at(0))
        _teach(recipe, net, rows, since, judged, before + batch.rows, generator)
        parts["nets"], learning["nets"] = net.tensors(), net.moments()
        report = _report(net, report)
    if model.linear:
        own = inputs[:, model.memory.width(head.size) :]
        weights, size = parts["linear"]["weights"], recipe.passes.rows
        parts["linear"]["weights"] = model.linear.learned(weights, own, codes, counts, head, size, pace=pace.at(0))

    # 4. What is remembered.
    kept = since.kept(model.replay, model.memory.width(head.size))
    learning |= {
        "recent": {"memory": kept.pop("memory")},
        "mixer": {"moments": mixer.pop("moments")},
        "drift": judged.after,
        SURENESS: training.get(SURENESS, {}),
    }
    parts |= {
        "standardiser": scale,
        "label": label,
        "memory": model.memory.after(parts["memory"], head.centre(codes), counts),
        "recent": kept,
        "mixer": mixer,
        "stream": {"rows": torch.tensor(before + batch.rows)},
    }
    after = State(spec=spec, serving=joined(parts), training=joined(learning) | {"rng": generator.get_state()})
    return after, report


def _judged(recipe: Recipe, state: State, rows: Rows, seen: Seen, before: int, generator: Generator) -> Judged:
    """Whether there is a drift among the kept and the new rows, and whether a response to it has stood its trial."""
    if not recipe.drift:
        return NO_DRIFT
    head, drift = recipe.model.head(state.spec), split(state.training)["drift"]
    codes, counts = rows.codes[rows.old :], rows.weights[rows.old :]
    judged = judged_by(recipe.drift, drift, head, seen.mixture, codes, counts, before)
    return _tried(recipe, state, judged, rows, seen.known, before, generator)


def _tried(
    recipe: Recipe, state: State, judged: Judged, rows: Rows, mixture: Tensor, before: int, generator: Generator
) -> Judged:
    """The same, but a drift counts only if a response to it stands its trial; `mixture` is what was known of the new rows."""
    if not judged.noticed or recipe.drift is None or recipe.drift.trial is None:
        return judged
    model, head = recipe.model, recipe.model.head(state.spec)
    parts, training = split(state.serving), split(state.training)
    seen = before + len(rows.codes) - rows.old
    pace = Pace.of(state.training).at(0)

    def forecasts(learning: Judged) -> Forecasts:
        def after(part: Rows, inputs: Tensor) -> Tensor:
            trial = Generator()
            trial.set_state(generator.get_state())
            found = dict(parts)
            if model.nets:
                width = model.memory.width(head.size)
                net = Training(model.nets, parts["nets"], training["nets"], head, width, pace=pace)
                if learning.noticed:
                    part = part.all_new()
                _teach(recipe, net, part, part, learning, seen, trial)
                found["nets"] = net.tensors()
            found["recent"] = part.kept(model.replay, model.memory.width(head.size))
            return model.forecasts(state.spec, found, inputs)

        return after

    trial = recipe.drift.trial
    after = trial.losses(
        rows.since(judged.start, judged.keep),
        rows,
        responding=forecasts(judged),
        usual=forecasts(NO_DRIFT),
        losses=head.losses,
    )
    if after is None:
        return judged.none()
    new = slice(rows.old + judged.start, None)
    is_shown = model.is_of_classes(state.spec) and is_new(
        mixture[judged.start :], rows.codes[new], rows.weights[new], after, losses=head.losses
    )
    return replace(judged, new_concept=is_shown)


def _mixed(
    recipe: Recipe, state: State, forecasts: Tensor, codes: Tensor, counts: Tensor, before: int, judged: Judged
) -> dict[str, Tensor]:
    """The mixer's tensors, `moments` included, after it has learned; after a drift all experts are alike again."""
    model, spec = recipe.model, state.spec
    mixer = split(state.serving)["mixer"] | split(state.training)["mixer"]
    if not before:
        return mixer
    after = model.mixer.learned(
        mixer, forecasts, codes, model.head(spec).losses(forecasts, codes), counts, classes=model.is_of_classes(spec)
    )
    if judged.noticed:
        fresh = model.mixer.fresh(model.experts, forecasts.shape[2])
        after |= {name: fresh[name] for name in ("weights", "hedge")}
    return after


def _teach(
    recipe: Recipe, net: Training, rows: Rows, since: Rows, judged: Judged, seen: int, generator: Generator
) -> None:
    """One pass over the block, then more over what came since a drift; then nets that were left behind copy the best."""
    replayed, size = recipe.model.replay, recipe.passes.rows
    for step in rows.steps(replayed, size, generator, again=False):
        net.step(*step)
    more = recipe.passes.over(seen) - 1
    if recipe.drift and judged.noticed:
        more += recipe.drift.passes
    for _ in range(more):
        for step in since.steps(replayed, size, generator, again=True):
            net.step(*step)
    if recipe.drift and judged.noticed:
        new = slice(since.old, None)
        net.copy_best(since.inputs[new], since.codes[new], since.weights[new], recipe.drift.margin)


def _report(net: Training, report: LearnReport) -> LearnReport:
    norm = float(torch.stack(net.norms).max())
    moved = float((net.weights - net.before).double().norm())
    finite = report.finite and math.isfinite(norm) and math.isfinite(moved)
    return replace(report, steps=len(net.norms), gradient_norm=norm, update_norm=moved, finite=finite)
