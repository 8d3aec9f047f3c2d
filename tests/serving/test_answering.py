"""What a request may demand of the version that answers, and what it gets when nobody can grant it."""

import asyncio
import threading
from collections.abc import Awaitable
from typing import Any

import pytest

from serving.answering import Answering, Arrivals
from serving.answers import ANY, Outcome, Wish
from serving.consistency import both
from serving.follower import Follower
from serving.problems import Problem
from stream_trainer.store import ModelStore
from tests.serving.fixtures import (
    NOW,
    PATIENCE,
    PIPELINE,
    ROWS,
    Harness,
    commit_version,
    learned_state,
    put_alias,
    requested,
    when,
)

PARSED = requested(PIPELINE, ROWS)


def answering_of(harness: Harness) -> Answering:
    return Answering(
        PIPELINE,
        harness.settings.serving,
        log=harness.log,
        follower=harness.follower,
        metrics=harness.metrics,
        clock=harness.clock,
    )


def committed(store: ModelStore, count: int = 1, **settings: Any) -> Harness:
    """A harness that serves the newest of so many versions."""
    harness = Harness(store, **settings)
    for seed in range(count):
        commit_version(store, PIPELINE, learned_state(seed=seed))
        harness.follower.look()
    return harness


async def asked(answering: Answering, wish: Wish = ANY) -> Outcome:
    return await answering.answer(PARSED, NOW, wish)


def refusal(harness: Harness, wish: Wish) -> Problem:
    with pytest.raises(Problem) as refused:
        asyncio.run(asked(answering_of(harness), wish))
    return refused.value


def run(story: Awaitable[None]) -> None:
    async def told() -> None:
        async with asyncio.timeout(PATIENCE):
            await story

    asyncio.run(told())


def test_requests_that_arrive_together_share_a_forward_pass_and_are_logged_one_by_one(store: ModelStore) -> None:
    harness = committed(store)
    answering = answering_of(harness)

    async def story() -> None:
        outcomes = await asyncio.gather(*(asked(answering) for _ in range(20)))
        alone = await asked(answering)
        for outcome, logged in zip(outcomes, harness.log.answered, strict=False):
            assert outcome.outputs == pytest.approx(alone.outputs, rel=1e-6)
            assert (logged.ids, logged.outputs) == (outcome.ids, outcome.outputs)
        ids = [one for outcome in outcomes for one in outcome.ids]
        assert ids == sorted(set(ids))

    run(story())
    assert harness.metric("batch_rows_count") == 2
    assert harness.metric("rows_total") == 21 * len(ROWS)


def test_a_version_that_serves_already_is_not_waited_for(store: ModelStore) -> None:
    answering = answering_of(committed(store, 3, min_version_wait_seconds=0))
    for wish in (ANY, Wish(min_version=0), Wish(min_version=1), Wish(min_version=3)):
        assert asyncio.run(asked(answering, wish)).served.number == 3


def test_whoever_waits_for_a_version_is_woken_by_the_swap_in_another_thread(store: ModelStore) -> None:
    harness = committed(store, min_version_wait_seconds=PATIENCE)
    answering = answering_of(harness)

    def swap_twice() -> None:
        for seed in (1, 2):
            commit_version(store, PIPELINE, learned_state(seed=seed))
            harness.follower.look()

    async def story() -> None:
        waiting = [asyncio.ensure_future(asked(answering, Wish(min_version=n))) for n in (2, 3, 3)]
        await when(lambda: answering._arrivals._waiting == 3)
        follower = threading.Thread(target=swap_twice)
        follower.start()
        found = await asyncio.gather(*waiting)
        follower.join()
        assert [outcome.served.number >= n for outcome, n in zip(found, (2, 3, 3), strict=True)] == [True] * 3
        assert answering._arrivals._waiting == 0

    run(story())


@pytest.mark.parametrize(("conflict", "status"), [(False, 503), (True, 409)])
@pytest.mark.parametrize("versions", [0, 2])
def test_a_version_that_does_not_come_in_time_is_refused_by_the_status_that_was_chosen(
    store: ModelStore, conflict: bool, status: int, versions: int
) -> None:
    harness = committed(store, versions, min_version_wait_seconds=0.01)
    problem = refusal(harness, Wish(min_version=3, conflict=conflict))
    assert (problem.status, problem.reason, problem.headers) == (status, "version_not_reached", {"retry-after": "1"})
    assert problem.more == {"model_version": versions or None}
    assert harness.log.answered == []


def test_after_a_rollback_a_later_version_is_waited_for_again(store: ModelStore) -> None:
    harness = committed(store, 2, min_version_wait_seconds=0.01)
    put_alias(store, 1, NOW, hold=True)
    harness.follower.look()
    assert refusal(harness, Wish(min_version=2)).reason == "version_not_reached"
    assert asyncio.run(asked(answering_of(harness), Wish(min_version=1))).served.number == 1


def test_those_who_wait_for_a_version_are_bounded(store: ModelStore) -> None:
    harness = committed(store, min_version_wait_seconds=PATIENCE, queue_requests=2)
    answering = answering_of(harness)

    async def story() -> None:
        waiting = [asyncio.ensure_future(asked(answering, Wish(min_version=2))) for _ in range(2)]
        await when(lambda: answering._arrivals._waiting == 2)
        with pytest.raises(Problem, match="queue_full"):
            await asked(answering, Wish(min_version=2))
        assert (await asked(answering)).served.number == 1
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert answering._arrivals._waiting == 0

    run(story())


def test_what_is_staler_than_was_asked_is_refused(store: ModelStore) -> None:
    harness = committed(store)
    harness.clock.advance(31)  # covered a second after NOW
    assert asyncio.run(asked(answering_of(harness), Wish(max_staleness=30))).staleness == 30.0
    problem = refusal(harness, Wish(max_staleness=29.5))
    assert (problem.status, problem.reason, problem.more) == (503, "too_stale", {"model_version": 1})
    assert "30.000 s stale" in problem.detail


def test_what_became_too_stale_while_it_waited_is_refused_too(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = committed(store)
    answering = answering_of(harness)
    real = answering._outputs

    async def slow(*arguments: Any) -> list[Any]:
        found = await real(*arguments)
        harness.clock.advance(60)
        return found

    monkeypatch.setattr(answering, "_outputs", slow)
    with pytest.raises(Problem, match="too_stale"):
        asyncio.run(asked(answering, Wish(max_staleness=30)))
    assert harness.log.answered == []


def test_a_loaded_version_answers_by_its_number_and_another_is_unknown(store: ModelStore) -> None:
    harness = committed(store, 5)  # of which three are kept
    answering = answering_of(harness)
    assert [served.number for served in answering.versions()] == [5, 4, 3]
    for number in (3, 4, 5):
        assert asyncio.run(asked(answering, Wish(version=number))).served.number == number
    for number in (2, 6):
        problem = refusal(harness, Wish(version=number))
        assert (problem.status, problem.reason) == (404, "unknown_version")


@pytest.mark.parametrize("conflict", [True, False])
def test_a_version_and_a_later_minimum_contradict(store: ModelStore, conflict: bool) -> None:
    wish = both(Wish(version=2), Wish(min_version=3, conflict=conflict))
    problem = refusal(committed(store, 3), wish)
    assert (problem.status, problem.reason) == (409 if conflict else 503, "version_not_reached")


def test_no_version_is_ever_missing_while_another_begins_to_serve(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = committed(store, 2)
    seen: list[list[int]] = []

    def watched(follower: Follower, name: str, value: Any) -> None:
        if name == "served":
            seen.append([one.number for one in follower.loaded()])
        object.__setattr__(follower, name, value)

    monkeypatch.setattr(Follower, "__setattr__", watched, raising=False)
    commit_version(store, PIPELINE, learned_state(seed=3))
    harness.follower.look()
    assert [one.number for one in harness.follower.loaded()] == [3, 2, 1]
    assert seen == [[2, 1]]


def test_news_for_a_loop_that_has_ended_is_nobodys_trouble() -> None:
    arrivals = Arrivals()
    arrivals.tell()
    assert asyncio.run(arrivals.until(lambda: None, 0)) is None
    arrivals.tell()
