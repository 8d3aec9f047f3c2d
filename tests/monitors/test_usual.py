"""Windows whose rows go together: how much they usually differ is learned, and an alarm says that one differs by more."""

from collections.abc import Iterator

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from monitors.deciding import Question, Round, decide, decide_by
from monitors.findings import Finding
from monitors.usual import MEMORY, Usual

ROWS, REFERENCE_ROWS, BINS = 1_000, 20_000, 64
# The random effect of a window, in deviations: its rows' mean varies by 5 times what rows by chance would.
EFFECT = 5 / ROWS**0.5
NEEDED = 14
ROUND = Round(budget=1e-3, usual_windows=NEEDED)
_CUTS = ndtri(np.arange(1, BINS) / BINS)
Counts = NDArray[np.int64]


def shares(shift: float) -> NDArray[np.float64]:
    return np.diff(np.concatenate([[0.0], ndtr(_CUTS - shift), [1.0]]))


def asked(rng: np.random.Generator, shift: float, reference: Counts, bad: float = 0.01) -> Question:
    """A number with one bin of quality, the last."""
    missing = rng.binomial(ROWS, bad)
    return Question(
        kind="drift",
        feature="x",
        against="learned",
        window=np.append(rng.multinomial(ROWS - missing, shares(shift)), missing),
        reference=reference,
        names=[str(i) for i in range(BINS + 1)],
        quality=[BINS],
    )


def learned(rng: np.random.Generator, effect: float = 0.0) -> Counts:
    """Of 20 windows, each with its own effect."""
    drawn = sum(rng.multinomial(REFERENCE_ROWS // 20, shares(rng.normal(0, effect))) for _ in range(20))
    return np.append(drawn, REFERENCE_ROWS // 100)


def rounds(questions: list[Question], round_: Round = ROUND, usual: Usual | None = None) -> Iterator[list[Finding]]:
    """The findings of each round about one question."""
    usual = usual or Usual()
    for question in questions:
        found, usual = decide_by([question], round_, usual)
        usual = one_more(usual)
        yield found


def one_more(usual: Usual) -> Usual:
    """As the judge counts windows; bounded, for what is said of sizes."""
    return msgspec.structs.replace(usual, windows=min(usual.windows + 1, 100))


def stream(seed: int, windows: int, effect: float, *, then: float = 0.0, last: int = 0) -> list[Question]:
    """Windows with a random effect; the last ones are shifted by `then` beside it."""
    rng = np.random.default_rng(seed)
    reference = learned(rng, effect)
    shifts = rng.normal(0, effect, windows) + then * (np.arange(windows) >= windows - last)
    return [asked(rng, float(shift), reference) for shift in shifts]


def states(found: list[list[Finding]]) -> list[str]:
    return [values.state for values, _ in found]


def test_where_rows_are_exchangeable_every_p_value_stays_exact() -> None:
    same = total = 0
    for seed in range(8):
        questions = stream(seed, 50, 0.0)
        for question, found in list(zip(questions, rounds(questions), strict=True))[NEEDED:]:
            exact = decide([question], ROUND)
            same += [f.p_value for f in found] == [f.p_value for f in exact]
            total += 1
    assert same >= 0.995 * total


@pytest.mark.parametrize("quiet", [NEEDED, 30])
def test_where_rows_are_exchangeable_a_shift_is_found_as_before(quiet: int) -> None:
    for seed in range(8):
        questions = stream(seed, quiet + 3, 0.0, then=0.3, last=3)
        found = list(rounds(questions))
        assert states(found)[quiet:] == [decide([question], ROUND)[0].state for question in questions[quiet:]]
        assert states(found)[quiet] == "drift"


def test_windows_that_always_differed_cry_wolf_about_as_rarely_as_stated() -> None:
    budget, exact, judged, alarms = 0.01, 0, 0, 0
    round_ = Round(budget=budget, usual_windows=NEEDED)
    for seed in range(8):
        questions = stream(seed, 100, EFFECT)
        exact += sum(decide([question], round_)[0].state == "drift" for question in questions[:20])
        told = states(list(rounds(questions, round_)))[NEEDED:]
        judged += sum(state != "not enough data" for state in told)
        alarms += told.count("drift")
    assert exact > 0.4 * 8 * 20
    assert judged > 550
    assert alarms <= 2 * budget * judged


@pytest.mark.parametrize("effect", [0.0, EFFECT])
def test_first_windows_that_are_alike_by_chance_open_nothing(effect: float) -> None:
    rng = np.random.default_rng(4)
    reference = learned(rng)
    found = list(rounds([asked(rng, 0.0 if i < 3 else 0.5 + effect, reference) for i in range(NEEDED)]))
    assert states(found) == ["not enough data"] * NEEDED


def test_longer_blocks_wait_for_the_single_windows_only() -> None:
    questions, usual = stream(6, NEEDED + 2, 0.0, then=0.5, last=1), Usual()
    four = Round(budget=1e-3, windows=4, usual_windows=NEEDED)
    told = []
    for i, question in enumerate(questions):
        _, usual = decide_by([question], ROUND, usual)
        if i % 4 == 3:
            found, usual = decide_by([question], four, usual)
            told.append((i, found[0].state))
        usual = one_more(usual)
    assert told == [(3, "not enough data"), (7, "not enough data"), (11, "not enough data"), (15, "drift")]


def test_what_has_too_few_rows_a_window_is_found_by_several_together() -> None:
    rng = np.random.default_rng(8)
    reference = learned(rng)
    usual, four = Usual(windows=NEEDED), Round(budget=1e-3, windows=4, usual_windows=NEEDED)
    told = []
    for shift in (0.0, 0.0, 0.0, 0.0, 1.0):
        found, usual = decide_by([few(rng, shift, reference)], four, usual)
        told.append(found[0].state)
    assert told == ["quiet"] * 4 + ["drift"]


def few(rng: np.random.Generator, shift: float, reference: Counts) -> Question:
    """160 rows of four windows."""
    window = np.append(rng.multinomial(160, shares(shift)), 0)
    names = [str(i) for i in range(BINS + 1)]
    return Question(kind="drift", feature="x", against="learned", window=window, reference=reference, names=names)


def test_more_windows_than_are_remembered_can_be_waited_for() -> None:
    questions, usual = stream(3, 3, EFFECT), Usual(windows=MEMORY + 30)
    many = Round(budget=1e-3, usual_windows=MEMORY + 40)
    early, _ = decide_by([questions[0]], many, usual)
    assert early[0].detail == f"how much windows usually differ is not known yet: {MEMORY + 30} of {MEMORY + 40}"
    past = Usual(windows=MEMORY + 40)
    for question in stream(4, MEMORY, EFFECT):
        _, past = decide_by([question], many, past)
    assert decide_by([questions[1]], many, past)[0][0].state != "not enough data"


def test_until_enough_windows_were_seen_it_says_how_many() -> None:
    found = [values for values, _ in rounds(stream(3, NEEDED + 6, 3 * EFFECT))]
    assert [one.state for one in found[:NEEDED]] == ["not enough data"] * NEEDED
    assert found[5].detail == f"how much windows usually differ is not known yet: 5 of {NEEDED}"
    assert {one.state for one in found[NEEDED:]} == {"quiet"}
    assert all(one.dispersion > 10 for one in found[NEEDED:])


def test_a_shift_of_many_deviations_of_windows_is_found_and_stays_found() -> None:
    lasting = 40
    for seed in range(4):
        found = [values for values, _ in rounds(stream(seed, 60 + lasting, EFFECT, then=12 * EFFECT, last=lasting))]
        assert [one.state for one in found[60:]] == ["drift"] * lasting
        assert "times what windows usually differ; " in found[60].detail
        assert found[60].dispersion > 1


def test_windows_that_stand_out_now_and_then_become_usual() -> None:
    rng = np.random.default_rng(5)
    reference = learned(rng)
    found = states(list(rounds([asked(rng, 0.5 * (i % 4 == 3 and i >= NEEDED), reference) for i in range(200)])))
    assert found[15] == "drift"
    assert "drift" not in found[100:]


def test_shares_of_missing_values_that_always_vary_are_usual_and_a_leap_is_not() -> None:
    rng = np.random.default_rng(7)
    reference = learned(rng)
    varying = [asked(rng, 0.0, reference, bad=float(share)) for share in [*rng.uniform(0, 0.05, 60), 0.9]]
    exact = [decide([question], ROUND)[1].state for question in varying]
    found = [quality.state for _, quality in rounds(varying)]
    assert exact.count("drift") > 30
    assert found[NEEDED:].count("drift") == 1
    assert found[-1] == "drift"


def test_it_may_be_asked_to_judge_by_rows_alone() -> None:
    questions = stream(3, 20, 3 * EFFECT)
    found = list(rounds(questions, Round(budget=1e-3, usual_windows=0)))
    assert found == [decide([question], ROUND) for question in questions]


def test_what_is_known_is_bounded_and_goes_on_from_where_it_was_written() -> None:
    questions = stream(11, 3 * MEMORY, EFFECT)
    whole = list(rounds(questions))
    usual, sizes, found = Usual(key="bins"), [], []
    for question in questions:
        findings, usual = decide_by([question], ROUND, usual)
        usual = one_more(usual)
        written = msgspec.msgpack.encode(usual)
        usual = msgspec.msgpack.decode(written, type=Usual)
        sizes.append(len(written))
        found.append(findings)
    assert found == whole
    assert len(set(sizes[1:])) == 1
    assert usual.key == "bins"
    assert {past.rounds for past in usual.past.values()} == {MEMORY}


def test_what_is_enormous_is_finite() -> None:
    rng = np.random.default_rng(13)
    reference = learned(rng)
    far = [asked(rng, 8.0 * (-1) ** i, reference, bad=0.5) for i in range(NEEDED + 10)]
    for values, quality in rounds(far):
        assert np.isfinite([values.statistic, values.dispersion, quality.statistic, quality.dispersion]).all()
    assert values.state == quality.state == "quiet"
