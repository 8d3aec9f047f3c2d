"""The bound on chance: it holds, exactly where it can be counted, and is not useless."""

from collections.abc import Iterable
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitors.findings import Finding
from monitors.performance.bounds import p_larger
from monitors.performance.levels import LEAST, Levels
from monitors.performance.realised import loss_findings, p_worse, stability_index
from monitors.performance.tally import Losses, Tally, add

from .worlds import binary_tally, numbers_tally


@given(
    st.lists(st.integers(0, 5), min_size=2, max_size=4).filter(lambda c: 2 <= sum(c) <= 9),
    st.randoms(use_true_random=False),
)
def test_the_bound_is_never_below_the_share_of_draws_as_large(counts: list[int], random: object) -> None:
    rng = np.random.default_rng(random.randint(0, 10**6))  # type: ignore[attr-defined]
    scores = rng.random(len(counts))
    pool = np.repeat(np.arange(len(counts)), counts)
    draws = int(rng.integers(1, len(pool)))
    seen = rng.choice(len(pool), draws, replace=False)
    window = np.bincount(pool[seen], minlength=len(counts)).astype(float)
    sums = [scores[pool[list(c)]].sum() for c in combinations(range(len(pool)), draws)]
    truth = np.mean(np.array(sums) >= window @ scores - 1e-9)
    assert p_larger(scores, window, np.array(counts) - window) >= truth - 1e-9


def test_a_clear_difference_is_sure_and_none_is_not() -> None:
    scores = np.array([0.0, 1.0])
    assert p_larger(scores, np.array([50.0, 50.0]), np.array([9_000.0, 1_000.0])) < 1e-10
    assert p_larger(scores, np.array([90.0, 10.0]), np.array([9_000.0, 1_000.0])) == 1.0
    # As many true ones as chance has in one of 400 windows: the bound is larger, but not ten times.
    assert 1 / 400 < p_larger(scores, np.array([80.0, 20.0]), np.array([9_000.0, 1_000.0])) < 10 / 400


def findings(now: Tally, past: Tally, usual: Levels, *, alpha: float) -> list[Finding]:
    found, _ = loss_findings(now, past, usual, alpha=alpha, min_rows=50)
    return found


def usually(windows: Iterable[Tally], past: Tally) -> Levels:
    """What is known after some windows."""
    known = Levels()
    for window in windows:
        _, known = loss_findings(window, past, known, alpha=0.1, min_rows=50)
    return known


@pytest.mark.parametrize("rows", [50, 1000])
@pytest.mark.parametrize("make", [binary_tally, numbers_tally])
def test_quiet_windows_are_called_worse_at_most_as_often_as_stated(make: object, rows: int) -> None:
    rng = np.random.default_rng(rows)
    past = make(rng, 20_000)  # type: ignore[operator]
    known = usually((make(rng, rows) for _ in range(60)), past)  # type: ignore[operator]
    found = [findings(make(rng, rows), past, known, alpha=0.1)[0].state for _ in range(400)]  # type: ignore[operator]
    # 0.05 is for all rows together: 20 of 400, and 35 would come with a chance below 0.001.
    assert found.count("drift") < 35


def test_a_worse_window_is_found_and_how_much_worse_is_said() -> None:
    rng = np.random.default_rng(4)
    past = binary_tally(rng, 20_000)
    known = usually((binary_tally(rng, 500) for _ in range(60)), past)
    (worse,) = findings(binary_tally(rng, 500, shift=0.2), past, known, alpha=1e-4)
    (better,) = findings(binary_tally(rng, 500, shift=-0.1), past, known, alpha=1e-4)
    assert (worse.kind, worse.state, worse.against) == ("loss", "drift", "learned")
    assert worse.statistic > 0.2
    assert worse.effect.psi is not None
    assert worse.effect.psi > 0.1
    assert better.state == "quiet"
    assert better.p_value == 1.0


def test_there_is_no_verdict_before_a_few_windows_were_seen() -> None:
    rng = np.random.default_rng(4)
    past = binary_tally(rng, 20_000)
    known = usually((binary_tally(rng, 500) for _ in range(LEAST - 1)), past)
    (early,) = findings(binary_tally(rng, 500, shift=0.4), past, known, alpha=1e-4)
    assert early.state == "not enough data"
    assert early.detail.endswith(f"{LEAST - 1} of {LEAST}")


def test_one_outlier_decides_nothing() -> None:
    rng = np.random.default_rng(4)
    past = numbers_tally(rng, 5_000)
    quiet, one = numbers_tally(np.random.default_rng(8), 300), numbers_tally(np.random.default_rng(8), 300, outliers=1)
    assert p_worse(one.losses, past.losses, squared=True) == pytest.approx(
        p_worse(quiet.losses, past.losses, squared=True), abs=0.4
    )
    known = usually((numbers_tally(rng, 300) for _ in range(40)), past)
    assert findings(one, past, known, alpha=0.01)[0].state == "quiet"
    assert findings(numbers_tally(rng, 300, spread=1.5), past, known, alpha=0.01)[0].state == "drift"


def test_segments_share_half_of_the_error_and_few_rows_give_no_verdict() -> None:
    rng = np.random.default_rng(4)
    past, bad = binary_tally(rng, 5_000), binary_tally(rng, 400, shift=0.3)
    good = binary_tally(rng, 2_000)
    both = Tally(
        task="binary",
        losses=add(good, bad).losses,
        segments={"s=a": bad.losses, "s=b": good.losses, "s=c": Losses(rows=9)},
    )
    before = Tally(task="binary", losses=past.losses, segments=dict.fromkeys(("s=a", "s=b", "s=c"), past.losses))
    quiet = (binary_tally(rng, 2_000) for _ in range(40))
    known = usually(
        (Tally(task="binary", losses=t.losses, segments={"s=a": t.losses, "s=b": t.losses}) for t in quiet), before
    )
    found = {f.segment: f for f in findings(both, before, known, alpha=0.01)}
    assert {key: f.state for key, f in found.items() if key} == {
        "s=a": "drift",
        "s=b": "quiet",
        "s=c": "not enough data",
    }
    assert [found[key].threshold for key in ("", "s=a", "s=b")] == [0.005, 0.0025, 0.0025]


def test_the_stability_index_of_a_distribution_with_itself_is_nothing() -> None:
    sizes = {-8: 100, 0: 300, 9: 50}
    assert stability_index(sizes, sizes) == pytest.approx(0.0)
    assert stability_index(sizes, {-8: 300, 0: 100, 9: 50}) > 0.25
