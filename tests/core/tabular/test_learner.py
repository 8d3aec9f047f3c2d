"""`Tabular` as a learner: pure, repeatable, of use, and calm whatever comes."""

import json
import threading
from typing import Any

import pytest
import torch

from stream_trainer.contract import Task
from stream_trainer.features import FeatureSpec
from stream_trainer.gates import DEFAULT_GATES, Evidence, History
from stream_trainer.learner import Batch, State, answer
from stream_trainer.learners import Sgd
from stream_trainer.learners.tabular import Drift, LabelMemory, Linear, Mixer, Nets, Passes, Replay, Tabular
from stream_trainer.store import tensors
from tests.core.tabular.streams import blocks, prequential, rows_of, same, spec_of

KINDS: list[tuple[Task, int]] = [("binary", 2), ("multiclass", 3), ("multiclass", 50), ("regression", 1)]


def learned_state(spec: FeatureSpec, rows: int = 300, learner: Tabular | None = None) -> State:
    learner = learner or Tabular()
    return prequential(learner, learner.init(spec, 7), blocks(rows_of(spec, rows), 100))[0]


@pytest.mark.parametrize(("task", "classes"), KINDS)
def test_outputs_are_what_the_protocol_says(task: Task, classes: int) -> None:
    spec = spec_of(task=task, classes=classes)
    state, batch = learned_state(spec), rows_of(spec, 9, seed=1)
    for found in (Tabular().predict(state, batch.features), Tabular().answer(state, batch.features)):
        assert found.dtype == torch.float32
        assert found.shape == ((9, classes) if task == "multiclass" else (9,))
        if task == "multiclass":
            assert torch.allclose(found.sum(1), torch.ones(9), atol=1e-5)
        if task == "binary":
            assert bool(((found > 0) & (found < 1)).all())


def test_before_the_first_row_nothing_is_more_likely_than_anything_else() -> None:
    for task, classes, expected in (("binary", 2, 0.5), ("multiclass", 4, 0.25), ("regression", 1, 0.0)):
        spec = spec_of(task=task, classes=classes)  # type: ignore[arg-type]
        state = Tabular().init(spec, 0)
        assert bool((Tabular().predict(state, rows_of(spec, 3).features) == expected).all())
        assert bool((Tabular().answer(state, rows_of(spec, 3).features) == expected).all())


@pytest.mark.parametrize(("task", "classes"), KINDS)
def test_learning_changes_no_bit_of_the_state_before(task: Task, classes: int) -> None:
    spec = spec_of(task=task, classes=classes)
    state = learned_state(spec)
    copy = State(
        spec=spec,
        serving={name: tensor.clone() for name, tensor in state.serving.items()},
        training={name: tensor.clone() for name, tensor in state.training.items()},
    )
    after, _ = Tabular().learn(state, rows_of(spec, 100, seed=1))
    assert same(state, copy)
    assert not same(state, after)


@pytest.mark.parametrize(("task", "classes"), KINDS)
def test_the_same_state_and_batch_give_the_same_bits(task: Task, classes: int) -> None:
    spec, batch = spec_of(task=task, classes=classes), rows_of(spec_of(task=task, classes=classes), 100, seed=1)
    state = learned_state(spec)
    used = Tabular()
    used.predict(state, batch.features)
    used.predict(state, rows_of(spec, 7, seed=9).features)
    torch.manual_seed(99)
    torch.randn(3)
    first, report = used.learn(state, batch)
    second, again = Tabular().learn(state, batch)
    used.predict(state, batch.features)
    third, _ = used.learn(state, batch)
    assert same(first, second)
    assert same(first, third)
    assert report == again


def test_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(3)
    expected = torch.get_rng_state()
    learned_state(spec_of())
    assert torch.equal(torch.get_rng_state(), expected)


def test_the_seed_decides() -> None:
    spec = spec_of()
    assert same(Tabular().init(spec, 1), Tabular().init(spec, 1))
    assert not same(Tabular().init(spec, 1), Tabular().init(spec, 2))


def test_a_state_survives_the_store_and_goes_on_the_same() -> None:
    spec = spec_of(task="multiclass", classes=3)
    state, batch = learned_state(spec), rows_of(spec, 50, seed=1)
    stored = State(
        spec=spec,
        serving=tensors.from_bytes(tensors.to_bytes(state.serving), "serving"),
        training=tensors.from_bytes(tensors.to_bytes(state.training), "training"),
    )
    assert same(Tabular().learn(stored, batch)[0], Tabular().learn(state, batch)[0])
    fresh = Tabular().init(spec, 0)
    assert tensors.from_bytes(tensors.to_bytes(fresh.serving), "fresh").keys() == fresh.serving.keys()


def test_no_two_tensors_share_memory() -> None:
    state = learned_state(spec_of())
    every = [*state.serving.values(), *state.training.values()]
    places = [tensor.untyped_storage().data_ptr() for tensor in every if tensor.numel()]
    assert len(set(places)) == len(places)
    assert all(tensor.is_contiguous() for tensor in every)
    assert all(t.untyped_storage().nbytes() == t.numel() * t.element_size() for t in every if t.numel())


def test_features_that_were_changed_in_place_are_forecast_again() -> None:
    learner, spec = Tabular(), spec_of()
    state, batch = learned_state(spec), rows_of(spec, 40, seed=1)
    learner.predict(state, batch.features)
    batch.features.mul_(-1.0)
    assert same(learner.learn(state, batch)[0], Tabular().learn(state, batch)[0])


def test_an_answer_depends_on_no_other_row_and_on_no_place() -> None:
    spec = spec_of(task="multiclass", classes=3)
    state, features = learned_state(spec), rows_of(spec, 20, seed=1).features
    together = Tabular().answer(state, features)
    alone = torch.cat([Tabular().answer(state, row[None]) for row in features])
    backwards = Tabular().answer(state, features.flip(0)).flip(0)
    assert torch.allclose(together, alone, atol=1e-6)
    assert torch.allclose(together, backwards, atol=1e-6)


def test_a_forecast_in_log_order_knows_how_long_ago_the_last_label_was() -> None:
    spec = spec_of()
    state = learned_state(spec)
    forecast = Tabular().predict(state, torch.zeros(400, 4, dtype=torch.float64))
    assert float(forecast[0]) != float(forecast[1])


def test_a_learner_without_answers_answers_as_it_predicts() -> None:
    spec = spec_of()
    learner = Sgd()
    state, features = learner.init(spec, 0), rows_of(spec, 5).features
    assert torch.equal(answer(learner, state, features), learner.predict(state, features))
    mine = learned_state(spec)
    assert torch.equal(answer(Tabular(), mine, features), Tabular().answer(mine, features))


@pytest.mark.parametrize(("task", "classes"), KINDS[:2])
def test_it_learns_what_there_is_to_learn(task: Task, classes: int) -> None:
    spec = spec_of(task=task, classes=classes)
    learner, batch = Tabular(), rows_of(spec, 1_000)
    _, outputs, _ = prequential(learner, learner.init(spec, 0), blocks(batch, 100))
    chosen = (outputs > 0.5).double() if task == "binary" else outputs.argmax(1).double()
    assert float((chosen == batch.labels)[500:].double().mean()) > 0.93


def test_it_learns_numbers_in_their_own_units() -> None:
    spec = spec_of(task="regression")
    learner, batch = Tabular(), rows_of(spec, 1_500)
    _, outputs, _ = prequential(learner, learner.init(spec, 0), blocks(batch, 100))
    error = (outputs - batch.labels)[750:].square().mean() / batch.labels.var()
    assert float(error) < 0.02


def test_it_finds_its_way_after_everything_has_changed() -> None:
    spec = spec_of()
    learner, batch = Tabular(), rows_of(spec, 4_000)
    labels = batch.labels.clone()
    labels[2_000:] = 1.0 - labels[2_000:]
    batch = Batch(features=batch.features, labels=labels)
    _, outputs, _ = prequential(learner, learner.init(spec, 0), blocks(batch, 100))
    hits = ((outputs > 0.5).double() == labels).double()
    assert float(hits[2_000:2_100].mean()) < 0.2
    assert float(hits[2_200:2_600].mean()) > 0.9
    slow = Tabular(drift=None)
    _, without, _ = prequential(slow, slow.init(spec, 0), blocks(batch, 100))
    assert float(hits[2_100:2_600].mean()) > float(((without > 0.5).double() == labels)[2_100:2_600].double().mean())


def test_labels_that_stay_are_repeated() -> None:
    spec = spec_of()
    labels = (torch.arange(1_200) // 40 % 2).double()
    batch = Batch(features=rows_of(spec, 1_200).features, labels=labels)
    learner = Tabular()
    _, outputs, _ = prequential(learner, learner.init(spec, 0), blocks(batch, 4))
    assert float(((outputs > 0.5).double() == labels)[600:].double().mean()) > 0.85
    blind = Tabular(memory=None)
    _, unaware, _ = prequential(blind, blind.init(spec, 0), blocks(batch, 4))
    assert float(((unaware > 0.5).double() == labels)[600:].double().mean()) < 0.75


PARTS: list[dict[str, Any]] = [
    {"nets": None},
    {"linear": None},
    {"neighbours": None},
    {"memory": None},
    {"drift": None},
    {"nets": None, "linear": None},
    {"nets": None, "neighbours": None},
    {"replay": Replay(kept=64, drawn=0)},
    {"nets": Nets(rates=(1e-2,), blind=(), hidden=8)},
    {"linear": Linear(rates=(0.02,)), "mixer": Mixer(rows=7, hedge_rows=5), "passes": Passes(rows=5, count=1)},
    {"memory": LabelMemory(fades=(3.0,), half_lives=()), "drift": Drift(passes=0)},
]


@pytest.mark.parametrize("options", PARTS)
def test_every_part_can_be_switched_off_or_changed(options: dict[str, Any]) -> None:
    spec = spec_of()
    learner, batch = Tabular(**options), rows_of(spec, 600)
    state, outputs, _ = prequential(learner, learner.init(spec, 0), blocks(batch, 50))
    assert float(((outputs > 0.5).double() == batch.labels)[300:].double().mean()) > 0.8
    assert same(Tabular(**options).learn(state, batch)[0], learner.learn(state, batch)[0])


def test_one_expert_is_the_least() -> None:
    with pytest.raises(ValueError, match="no expert"):
        Tabular(nets=None, linear=None, neighbours=None)


def test_a_state_of_other_parts_is_refused() -> None:
    spec = spec_of()
    state = learned_state(spec)
    with pytest.raises(ValueError, match=r"nets\.first.*was the learner changed"):
        Tabular(nets=Nets(hidden=8)).predict(state, rows_of(spec, 2).features)
    more = State(spec=spec, serving={**state.serving, "nets.more": torch.ones(2)}, training=state.training)
    with pytest.raises(ValueError, match=r"nets\.more"):
        Tabular().answer(more, rows_of(spec, 2).features)
    torn = {**state.serving, "recent.codes": state.serving["recent.codes"][:-1]}
    with pytest.raises(ValueError, match="recent"):
        Tabular().answer(State(spec=spec, serving=torn, training={}), rows_of(spec, 2).features)
    lacking = {name: tensor for name, tensor in state.serving.items() if name != "recent.rows"}
    with pytest.raises(ValueError, match=r"recent\.rows"):
        Tabular().answer(State(spec=spec, serving=lacking, training={}), rows_of(spec, 2).features)


def test_hyperparameters_say_everything_and_are_plain() -> None:
    plain = Tabular().hyperparameters()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain["learner"] == "tabular"
    assert plain["nets"]["rates"] == [1e-3, 3e-3, 1e-2, 3e-2]
    others = [Tabular(**options).hyperparameters() for options in PARTS]
    assert all(other != plain for other in others)
    assert len({json.dumps(other, sort_keys=True) for other in others}) == len(others)


def test_a_report_is_what_gates_ask_for() -> None:
    spec = spec_of()
    state = learned_state(spec)
    _, report = Tabular().learn(state, rows_of(spec, 100, seed=3))
    assert (report.rows, report.steps) == (100, 7 * Passes().over(400))
    assert report.loss > 0
    assert report.gradient_norm > 0
    assert report.update_norm > 0


def test_the_default_gates_let_a_steady_stream_pass() -> None:
    spec, learner = spec_of(), Tabular()
    state, history = learner.init(spec, 0), History.fresh()
    batch = rows_of(spec, 6_000)
    noisy = batch.labels.clone()
    noisy[::10] = 1.0 - noisy[::10]
    for block in blocks(Batch(features=batch.features, labels=noisy), 100):
        after, report = learner.learn(state, block)
        evidence = Evidence(
            before=state, after=after, report=report, seen=100, rejected=0, loss=report.loss, history=history
        )
        verdicts = [gate.judge(evidence) for gate in DEFAULT_GATES]
        assert all(verdict.passed for verdict in verdicts), verdicts
        state, history = after, history.add(report, report.loss)


def test_an_empty_batch_changes_nothing() -> None:
    spec = spec_of()
    state = learned_state(spec)
    empty = rows_of(spec, 0)
    assert Tabular().predict(state, empty.features).shape == (0,)
    assert Tabular().answer(state, empty.features).shape == (0,)
    after, report = Tabular().learn(state, empty)
    assert same(after, state)
    assert report.rows == 0


def test_threads_may_predict_at_once() -> None:
    spec, learner = spec_of(), Tabular()
    state = learned_state(spec)
    wanted = {n: Tabular().predict(state, rows_of(spec, n).features) for n in range(1, 9)}
    wrong: list[int] = []

    def ask(n: int) -> None:
        features = rows_of(spec, n).features
        wrong.extend(n for _ in range(20) if not torch.equal(learner.predict(state, features), wanted[n]))

    threads = [threading.Thread(target=ask, args=(n,)) for n in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_version_is_small() -> None:
    def size(width: int) -> int:
        spec = spec_of(width)
        state = learned_state(spec, rows=1_100, learner=Tabular(passes=Passes(count=1)))
        return len(tensors.to_bytes(state.serving)) + len(tensors.to_bytes(state.training))

    assert size(20) < 400_000
    assert size(200) < 1_900_000
