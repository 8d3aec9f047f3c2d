"""kill -9 without Spark, by the hundred: every crash point, random schedules, records that keep arriving."""

import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from stream_trainer.testing import crash_points
from tests.bench.section import Section
from tests.faults.broken import MUTANTS
from tests.faults.campaign import Campaign, Kill, Outcome, campaign
from tests.faults.options import Options

_SEEDS = 100
_WORKERS = 2


def measure(options: Options) -> Section:
    """As many seeds a point as asked for, twice as many random schedules.

    Raises:
        AssertionError: a promise was broken; it names seed and kills.
    """
    first, count = options.seed, options.seeds or _SEEDS
    seeds = range(first, first + count)
    with campaign(_WORKERS) as made:
        rows = [_row(f"at `{point}`", made.kill_each(point, seeds)) for point in sorted(crash_points())]
        twice = range(first + 1000, first + 1000 + 2 * count)
        rows.append(_row("at random points, several in one history", schedules(made, twice)))
        rows.append(_row("at random points while records arrive; replayed", schedules(made, twice, live=True)))
        rows.append(_row("at random points, four micro-batches a version", schedules(made, seeds, cuts_per_version=4)))
    notes = [
        "A history: three partitions, 240 records and gaps, over 20 versions, unusable records, retention at work.",
        "None wrong: weights and optimiser bit for bit as in an undisturbed run, counts add up, every rejected record sent.",
        "Cuts tile the log, and no version was ever visible that does not verify.",
        f"{len(MUTANTS)} broken orders of commit ({', '.join(MUTANTS)}) are shown to fail these checks in the suite.",
    ]
    return Section(
        title="kill -9 over a scripted log", headings=("killed", "histories", "kills", "wrong"), rows=rows, notes=notes
    )


def schedule(seed: int) -> list[Kill]:
    """Several deaths at random points of one history."""
    rng = random.Random(seed)
    return [("*", rng.randint(1, 200)) for _ in range(rng.randint(2, 5))]


def schedules(made: Campaign, seeds: Sequence[int], **options: object) -> list[Outcome]:
    """One history a seed."""
    with ThreadPoolExecutor(_WORKERS) as pool:
        for seed in seeds if not options else ():
            made.arrivals(seed)
        return list(pool.map(lambda seed: made.history(seed, schedule(seed), **options), seeds))


def _row(what: str, outcomes: Sequence[Outcome]) -> list[str]:
    wrong = [str(outcome) for outcome in outcomes if outcome.wrong]
    assert not wrong, wrong
    return [what, f"{len(outcomes):,}", f"{sum(outcome.killed for outcome in outcomes):,}", "0"]
