"""kill -9 at every crash point, on the trainer of production over a scripted log (F01 to F04).

A new crash point in the source is covered by being there.
"""

import random
from collections.abc import Iterator

import pytest

from stream_trainer.testing import crash_points
from tests.faults.broken import MUTANTS
from tests.faults.campaign import Campaign, Outcome, campaign

SEEDS = (1, 2, 3)
POINTS = sorted(crash_points())
# For each broken order of commit: deaths of which one must show it, and what the oracle then says.
REVEALING = {
    "manifest before weights": ([("microbatch.files_written", 6)], "is visible, but"),
    "next offsets from rows": ([("microbatch.committed", 6)], "next_offsets are"),
    "no intent": ([("microbatch.learned", 6)], "the cuts differ"),
    "rejected after the manifest": ([("microbatch.alerted", nth) for nth in range(3, 9)], "missing"),
}


@pytest.fixture(scope="module")
def kills() -> Iterator[Campaign]:
    with campaign() as made:
        yield made


@pytest.mark.parametrize("point", POINTS)
def test_f01_a_kill_at_any_point_leads_to_the_bits_of_an_undisturbed_run(kills: Campaign, point: str) -> None:
    outcomes = kills.kill_each(point, SEEDS)
    assert not [str(o) for o in outcomes if o.wrong]


def test_f01_the_history_that_is_killed_is_worth_it(kills: Campaign) -> None:
    arrivals = kills.arrivals(1)
    assert arrivals["microbatch.committed"] >= 20
    assert len(POINTS) >= 12


@pytest.mark.parametrize("nth", [1, 9, 20])
def test_f02_a_kill_right_after_the_manifest_repeats_nothing(kills: Campaign, nth: int) -> None:
    kills.arrivals(2)
    outcome = kills.history(2, [("microbatch.committed", nth)])
    assert not outcome.wrong


@pytest.mark.parametrize("seed", [11, 12, 13, 14])
def test_f03_many_kills_in_one_history_recovery_included(kills: Campaign, seed: int) -> None:
    outcome = random_schedule(kills, seed)
    assert not outcome.wrong, str(outcome)


@pytest.mark.parametrize("seed", [21, 22, 23])
def test_f04_a_kill_while_records_arrive_leaves_a_lineage_that_replays_bit_for_bit(kills: Campaign, seed: int) -> None:
    rng = random.Random(seed)
    outcome = kills.history(seed, [("*", rng.randint(5, 120)) for _ in range(4)], live=True)
    assert not outcome.wrong, str(outcome)


@pytest.mark.parametrize("seed", [31, 32])
def test_the_uncommitted_tail_of_a_large_model_is_learned_again(kills: Campaign, seed: int) -> None:
    rng = random.Random(seed)
    schedule = [("microbatch.learned", rng.randint(2, 6)), ("microbatch.fetched", rng.randint(2, 6)), ("*", 40)]
    outcome = kills.history(seed, schedule, cuts_per_version=4)
    assert not outcome.wrong, str(outcome)


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_broken_order_of_commit_is_noticed(kills: Campaign, mutant: str) -> None:
    kills.arrivals(1)
    deaths, says = REVEALING[mutant]
    outcomes = [kills.history(1, [kill], mutant=mutant, seconds=10) for kill in deaths]
    assert any(says in problem for o in outcomes for problem in o.wrong), outcomes


def random_schedule(kills: Campaign, seed: int) -> Outcome:
    """Several deaths at random points of one history, by the seed."""
    rng = random.Random(seed)
    kills.arrivals(seed)
    return kills.history(seed, [("*", rng.randint(1, 160)) for _ in range(rng.randint(2, 5))])
