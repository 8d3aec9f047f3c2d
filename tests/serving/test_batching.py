"""Concurrent requests share a forward pass: whose output is whose, who fails, who leaves, and what is bounded."""

import asyncio
import math
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from serving.batching import Batches, BatchLimits, Cost
from serving.metrics import Metrics
from serving.model import Served
from serving.problems import Problem
from stream_trainer.learner import State
from tests.serving.fixtures import NOW, PATIENCE, PIPELINE, when


def chained(some: Sequence[Sequence[int]]) -> list[int]:
    """Rows are numbers here."""
    return [row for rows in some for row in rows]


class Poisoned(Exception):
    """What the model says of a negative row."""


class Model:
    """Answers a row `r` of version `v` with `1000 v + r`; waits at its gate, and refuses negative rows."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, list[int]]] = []
        self.threads: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    def __call__(self, served: Served, rows: Sequence[Any]) -> Tensor:
        self.calls.append((served.number, list(rows)))
        self.threads.append(threading.current_thread().name)
        self.entered.set()
        assert self.gate.wait(PATIENCE)
        if min(rows) < 0:
            raise Poisoned
        return torch.tensor(rows, dtype=torch.float64) + 1000 * served.number


def version(number: int) -> Served:
    state = State(spec=PIPELINE.spec, serving={}, training={})
    return Served(number=number, sha256="", state=state, manifest=cast("Any", None), covered_at=NOW)


ONE, TWO = version(1), version(2)


def batches_of(
    predict: Callable[[Served, Sequence[Any]], Tensor],
    *,
    inline: bool,
    metrics: Metrics | None = None,
    **limits: Any,
) -> Batches:
    """Always on the loop, or always in the thread."""
    bounds = BatchLimits(**{"seconds": PATIENCE} | limits)
    batches = Batches(predict, metrics or Metrics(), bounds, inline_seconds=math.inf if inline else 0.0, join=chained)
    batches._cost.observe(1, 0.0)  # known, so that the first batch goes where the others go
    return batches


def run(story: Awaitable[None]) -> None:
    """Run it; whatever the loop complains about (a future settled twice) fails the test."""
    complaints: list[Any] = []

    async def told() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        await story

    asyncio.run(told())
    assert complaints == []


@pytest.mark.parametrize("inline", [True, False])
def test_concurrent_requests_share_a_forward_pass_and_each_gets_its_own_rows(inline: bool) -> None:
    async def story() -> None:
        model, metrics = Model(), Metrics()
        batches = batches_of(model, inline=inline, metrics=metrics)
        found = await asyncio.gather(*(batches.outputs(ONE, [10 * i, 10 * i + 1]) for i in range(20)))
        assert found == [[1000.0 + 10 * i, 1001.0 + 10 * i] for i in range(20)]
        assert len(model.calls) == 1
        assert metrics.registry.get_sample_value("stream_trainer_serving_batch_rows_sum") == 40
        batches.close()

    run(story())


def test_a_batch_is_closed_at_its_bound_and_a_larger_request_is_one_of_its_own() -> None:
    async def story() -> None:
        model = Model()
        batches = batches_of(model, inline=True, batch_rows=4)
        sizes = (2, 2, 1, 9, 1)
        found = await asyncio.gather(*(batches.outputs(ONE, [i] * size) for i, size in enumerate(sizes)))
        assert [len(rows) for _, rows in model.calls] == [4, 1, 9, 1]
        assert [len(outputs) for outputs in found] == list(sizes)

    run(story())


def test_what_arrives_while_a_batch_is_computed_is_the_next_batch() -> None:
    async def story() -> None:
        model = Model()
        batches = batches_of(model, inline=False)
        model.gate.clear()
        first = asyncio.ensure_future(batches.outputs(ONE, [0]))
        await when(model.entered.is_set)
        busy = batches.busy
        assert busy
        rest = [asyncio.ensure_future(batches.outputs(ONE, [i])) for i in range(1, 9)]
        await when(lambda: batches._rows == 8)
        model.gate.set()
        assert await asyncio.gather(first, *rest) == [[1000.0 + i] for i in range(9)]
        assert [rows for _, rows in model.calls] == [[0], list(range(1, 9))]
        assert not batches.busy
        batches.close()

    run(story())


@pytest.mark.parametrize("inline", [True, False])
def test_a_poisoned_request_fails_alone(inline: bool) -> None:
    async def story() -> None:
        batches = batches_of(Model(), inline=inline)
        asked = [batches.outputs(ONE, [i, -1 if i == 3 else i]) for i in range(6)]
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert isinstance(found[3], Poisoned)
        assert [f for i, f in enumerate(found) if i != 3] == [[1000.0 + i] * 2 for i in (0, 1, 2, 4, 5)]
        batches.close()

    run(story())


@pytest.mark.parametrize("inline", [True, False])
@pytest.mark.parametrize(
    "wrong",
    [
        lambda rows: torch.zeros(len(rows) + 1),
        lambda rows: torch.zeros(()),
        lambda rows: torch.full((len(rows),), math.nan),
        lambda rows: next(iter([])),
        lambda rows: (_ for _ in ()).throw(SystemExit),
    ],
    ids=["rows", "scalar", "nan", "stop", "exit"],
)
def test_a_model_that_answers_nonsense_fails_the_request_and_never_leaves_it_waiting(
    inline: bool, wrong: Callable[[Sequence[Any]], Tensor]
) -> None:
    async def story() -> None:
        batches = batches_of(lambda served, rows: wrong(rows), inline=inline)
        async with asyncio.timeout(PATIENCE):
            found = await asyncio.gather(*(batches.outputs(ONE, [i]) for i in range(3)), return_exceptions=True)
        assert all(isinstance(error, RuntimeError | ValueError) for error in found)
        batches.close()

    run(story())


@pytest.mark.parametrize("limits", [{"queue_rows": 10}, {"queue_requests": 2}], ids=str)
def test_what_does_not_fit_in_the_queue_is_refused_with_a_time_to_retry(limits: dict[str, Any]) -> None:
    async def story() -> None:
        model = Model()
        batches = batches_of(model, inline=False, **limits)
        model.gate.clear()
        running = asyncio.ensure_future(batches.outputs(ONE, [0]))
        await when(model.entered.is_set)
        waiting = [asyncio.ensure_future(batches.outputs(ONE, [1] * 5)) for _ in range(2)]
        await when(lambda: batches._rows == 10)
        with pytest.raises(Problem) as refused:
            await batches.outputs(ONE, [2])
        problem = refused.value
        assert (problem.status, problem.reason, problem.headers) == (503, "queue_full", {"retry-after": "1"})
        model.gate.set()
        await asyncio.gather(running, *waiting)
        assert await batches.outputs(ONE, [2] * 50) == [1002.0] * 50  # larger than the bound, but alone
        batches.close()

    run(story())


def test_a_model_that_hangs_holds_nobody_for_longer_than_was_promised_and_may_recover() -> None:
    async def story() -> None:
        model = Model()
        batches = batches_of(model, inline=False, seconds=0.05)
        model.gate.clear()
        inside = asyncio.ensure_future(batches.outputs(ONE, [0]))
        await when(model.entered.is_set)
        behind = [asyncio.ensure_future(batches.outputs(ONE, [i] * 3)) for i in (1, 2)]
        for error in await asyncio.gather(inside, *behind, return_exceptions=True):
            assert isinstance(error, Problem)
            assert (error.status, error.reason, error.headers) == (503, "timed_out", {"retry-after": "1"})
        assert batches._rows == 0
        with pytest.raises(Problem, match="timed_out"):
            await batches.outputs(ONE, [3])
        model.gate.set()
        await when(lambda: not batches.busy)
        assert await batches.outputs(ONE, [4]) == [1004.0]
        assert [rows for _, rows in model.calls] == [[0], [4]]
        batches.close()

    run(story())


def test_the_first_batch_of_a_model_that_nobody_knows_does_not_run_on_the_loop() -> None:
    async def story() -> None:
        model = Model()
        batches = Batches(model, Metrics(), BatchLimits(), join=chained)
        assert await batches.outputs(ONE, [1]) == [1001.0]
        assert model.threads != [threading.current_thread().name]
        batches.close()

    run(story())


def test_whoever_leaves_the_queue_is_not_computed() -> None:
    async def story() -> None:
        model = Model()
        batches = batches_of(model, inline=False)
        model.gate.clear()
        running = asyncio.ensure_future(batches.outputs(ONE, [0]))
        await when(model.entered.is_set)
        gone, stays = (asyncio.ensure_future(batches.outputs(ONE, [i])) for i in (1, 2))
        await when(lambda: batches._rows == 2)
        gone.cancel()
        await when(gone.done)
        assert batches._rows == 1
        model.gate.set()
        assert list(await asyncio.gather(running, stays)) == [[1000.0], [1002.0]]
        assert [rows for _, rows in model.calls] == [[0], [2]]
        batches.close()

    run(story())


def test_batches_leave_no_timers_behind() -> None:
    async def story() -> None:
        batches = batches_of(Model(), inline=False)
        for i in range(50):
            await batches.outputs(ONE, [i])
        loop = cast("Any", asyncio.get_running_loop())
        await when(lambda: not batches.busy)
        assert [timer for timer in loop._scheduled if not timer.cancelled() and "_expire" in repr(timer)] == []
        batches.close()

    run(story())


def test_a_heavy_model_moves_to_the_thread_and_comes_back() -> None:
    async def story() -> None:
        heavy = threading.Event()
        threads: list[str] = []

        def predict(served: Served, rows: Sequence[Any]) -> Tensor:
            threads.append(threading.current_thread().name)
            started = time.thread_time()
            while heavy.is_set() and time.thread_time() - started < 0.05:
                pass
            return torch.zeros(len(rows))

        async def until_it_runs(inline: bool, rows: int) -> None:
            for _ in range(500):
                await batches.outputs(ONE, [0] * rows)
                if (threads[-1] == threading.current_thread().name) is inline:
                    return
            raise AssertionError("it stayed where it was")

        batches = Batches(predict, Metrics(), BatchLimits(), join=chained)
        for rows in (1, 100):
            await until_it_runs(inline=True, rows=rows)
            heavy.set()
            await until_it_runs(inline=False, rows=rows)
            heavy.clear()
        await until_it_runs(inline=True, rows=100)
        batches.close()

    run(story())


@given(st.lists(st.tuples(st.integers(1, 2_000), st.floats(1e-5, 1.0)), max_size=50), st.integers(9, 2_000))
def test_a_cost_follows_what_batches_cost(before: list[tuple[int, float]], rows: int) -> None:
    cost = Cost()
    for some, seconds in before:
        cost.observe(some, seconds)
    assert 0.0 <= cost.estimate(1) <= cost.estimate(rows)
    for _ in range(200):
        cost.observe(rows, 0.001)
    assert cost.estimate(rows) == pytest.approx(0.001, rel=0.05)


ASK = st.tuples(st.just("ask"), st.sampled_from((ONE, TWO)), st.integers(1, 6), st.sampled_from((False,) * 5 + (True,)))
STEPS = st.lists(
    st.one_of(
        ASK,
        ASK,
        st.tuples(st.just("cancel"), st.integers(0, 30)),
        st.tuples(st.just("turn"), st.integers(1, 4)),
        st.just(("hold",)),
        st.just(("release",)),
    ),
    max_size=40,
)


class Drawn:
    """Requests as hypothesis draws them: asked, cancelled, held in the model and let go."""

    def __init__(self, batches: Batches, model: Model, *, inline: bool) -> None:
        self.batches = batches
        self.model = model
        self.inline = inline
        self.asked: list[tuple[Served, list[int], asyncio.Task[list[Any]]]] = []
        self.order: list[int] = []

    async def take(self, step: Any) -> None:
        match step:
            case ("ask", served, size, poisoned):
                rows = [10 * len(self.asked) + i for i in range(size)]
                if poisoned:
                    rows[-1] = -1
                task = asyncio.ensure_future(self._ask(len(self.asked), served, rows))
                self.asked.append((served, rows, task))
            case ("cancel", index) if index < len(self.asked):
                self.asked[index][2].cancel()
            case ("turn", turns):
                for _ in range(turns):
                    await asyncio.sleep(0)
            case ("hold",) if not self.inline:  # on the loop it would hold the test too
                self.model.gate.clear()
            case ("release",):
                self.model.gate.set()

    async def _ask(self, index: int, served: Served, rows: list[int]) -> list[Any]:
        found = await self.batches.outputs(served, rows)
        self.order.append(index)
        return found

    async def end(self) -> None:
        self.model.gate.set()
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*(task for _, _, task in self.asked), return_exceptions=True)
            await when(lambda: not self.batches.busy)


def settled(served: Served, rows: list[int], task: "asyncio.Task[list[Any]]") -> bool:
    """Whether the request got what is its own, failed by its own row, left, or was refused at once."""
    if task.cancelled():
        return True
    match task.exception():
        case None:
            return task.result() == [1000.0 * served.number + row for row in rows]
        case Problem(reason="queue_full"):
            return True
        case Poisoned():
            return -1 in rows
    return False


@settings(max_examples=200)
@given(steps=STEPS, inline=st.booleans(), batch_rows=st.integers(1, 12), queue_rows=st.integers(4, 30))
def test_every_request_is_settled_once_with_what_is_its_own(
    steps: list[Any], inline: bool, batch_rows: int, queue_rows: int
) -> None:
    async def story() -> None:
        model = Model()
        batches = batches_of(model, inline=inline, batch_rows=batch_rows, queue_rows=queue_rows)
        drawn = Drawn(batches, model, inline=inline)
        for step in steps:
            await drawn.take(step)
            assert 0 <= batches._rows == sum(len(work.rows) for work in batches._waiting)
        await drawn.end()
        assert (batches._rows, len(batches._waiting)) == (0, 0)
        assert all(settled(*asked) for asked in drawn.asked)
        for served in (ONE, TWO):
            mine = [index for index in drawn.order if drawn.asked[index][0] is served]
            assert mine == sorted(mine)
        assert all(len(rows) <= max(batch_rows, 6) for _, rows in model.calls)
        batches.close()

    run(story())
