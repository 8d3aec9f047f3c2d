"""A round of tests: its budget holds, what moved is named, and too little data is a state of its own."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from monitors.deciding import Question, Round, critical_p_value, decide, decide_alone
from monitors.findings import Finding

BINS = 32
NAMES = [*(f"[{i}, {i + 1})" for i in range(BINS)), "missing", "NaN"]
QUALITY = (BINS, BINS + 1)
SHARES = np.full(BINS, 1 / BINS)
ROUND = Round(budget=1e-3)
P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=40)


def question(window: NDArray[np.int64], feature: str = "x", **fields: object) -> Question:
    reference = np.array([*np.full(BINS, 100), 32, 0])
    told = {"reference": reference, "names": NAMES, "quality": QUALITY, "against": "learned", **fields}
    return Question(kind="drift", feature=feature, window=window, **told)  # type: ignore[arg-type]


def counts(rows: int = 960, *, missing: int = 10, nan: int = 0, seed: int = 1) -> NDArray[np.int64]:
    return np.array([*np.random.default_rng(seed).multinomial(rows, SHARES), missing, nan])


def handed(p_value: float, name: str = "loss") -> Finding:
    return Finding(kind="loss", feature=name, against="limit", state="quiet", p_value=p_value)


@given(P_VALUES, st.floats(1e-6, 0.5))
def test_discoveries_are_those_of_benjamini_and_hochberg(p_values: list[float], budget: float) -> None:
    threshold = critical_p_value(np.array(p_values), budget)
    ranks = [k for k, p in enumerate(sorted(p_values), start=1) if p <= budget * k / len(p_values)]

    assert sum(p <= threshold for p in p_values) == max(ranks, default=0)


@given(P_VALUES)
def test_a_smaller_p_value_never_loses_a_discovery(p_values: list[float]) -> None:
    smaller = [*p_values[1:], p_values[0] / 2]

    assert critical_p_value(np.array(smaller), 0.05) >= critical_p_value(np.array(p_values), 0.05)


def test_no_tests_discover_nothing() -> None:
    assert critical_p_value(np.zeros(0), 0.05) == 0.0
    assert decide([], ROUND) == []


def test_a_quiet_feature_is_quiet_and_says_how_large_the_difference_is() -> None:
    value, quality = decide([question(counts())], ROUND)

    assert (value.kind, value.state, quality.kind, quality.state) == ("drift", "quiet", "quality", "quiet")
    assert value.p_value > value.threshold == ROUND.budget / 2
    assert (value.rows, value.reference_rows, quality.reference_rows) == (960, 3_200, 3_232)
    assert value.effect.psi is not None
    assert value.effect.wasserstein is not None
    assert value.detail == ""


def test_a_shift_names_the_ranges_that_moved() -> None:
    value, _ = decide([question(np.array([*np.repeat([20, 40], BINS // 2), 10, 0]))], ROUND)

    assert value.state == "drift"
    assert value.detail == "[0, 4): 12.50% -> 8.33%, [4, 8): 12.50% -> 8.33%, [8, 12): 12.50% -> 8.33%"


def test_values_that_are_no_numbers_are_quality_not_drift() -> None:
    value, quality = decide([question(counts(missing=200, nan=1))], ROUND)

    assert (value.state, quality.state) == ("quiet", "drift")
    assert quality.detail.startswith("missing: 0.99% -> 17.23%")


def test_a_new_kind_of_bad_value_is_found_at_few_rows() -> None:
    _, quality = decide([question(counts(500, missing=5, nan=8))], ROUND)

    assert quality.state == "drift"
    assert "NaN: 0.00% -> 1.56%" in quality.detail


@pytest.mark.parametrize(
    ("asked", "detail"),
    [
        (question(counts(49)), "49 known values in the window, at least 50 are needed"),
        (question(counts(0, missing=500)), "no known value in the window"),
        (question(counts(), reference=counts(0, missing=9)), "no known value in the reference"),
        (question(counts(), unanswerable="version 3 was counted in other bins"), "version 3 was counted in other bins"),
        (
            question(np.array([300, *[0] * (BINS + 1)]), reference=np.array([900, *[0] * (BINS + 1)])),
            "every value is in the same bin",
        ),
    ],
)
def test_not_enough_data_is_a_state_of_its_own_and_takes_no_part(asked: Question, detail: str) -> None:
    value, *_ = decide([asked], ROUND)

    assert (value.state, value.detail, value.p_value, value.threshold) == ("not enough data", detail, 1.0, 0.0)
    tested = [one for one in decide([asked, question(counts())], ROUND) if one.state != "not enough data"]
    assert tested[-1].threshold == pytest.approx(ROUND.budget / len(tested))


def test_a_constant_that_becomes_another_is_drift() -> None:
    before, now = np.zeros((2, BINS + 2), dtype=np.int64)
    before[3], now[7] = 900, 300

    assert decide([question(now, reference=before)], ROUND)[0].state == "drift"


def test_answers_come_in_the_order_of_the_questions_whatever_their_bins() -> None:
    words = question(
        np.array([30, 60, 10]),
        "word",
        reference=np.array([300, 600, 100]),
        names=list("ab*"),
        ordered=False,
        quality=(),
    )
    found = decide(
        [question(counts(), "x"), words, question(counts(seed=2), "y", segment="at=JFK")], ROUND, [handed(0.5)]
    )

    assert [(one.feature, one.segment, one.kind) for one in found] == [
        ("x", "", "drift"),
        ("x", "", "quality"),
        ("word", "", "drift"),
        ("y", "at=JFK", "drift"),
        ("y", "at=JFK", "quality"),
        ("loss", "", "loss"),
    ]


def test_findings_of_others_share_the_budget_or_have_their_own() -> None:
    questions = [question(counts(seed=i), f"f{i}") for i in range(4)]
    certain, doubtful = handed(1e-9), handed(4e-4)

    *_, a, b = decide(questions, ROUND, [certain, doubtful])
    assert (a.state, b.state) == ("drift", "quiet")
    a, b = decide_alone([certain, doubtful], 1e-3)
    assert (a.state, b.state) == ("drift", "drift")
    assert decide_alone([handed(2e-3)], 1e-3)[0].state == "quiet"


def test_one_outlier_changes_no_decision() -> None:
    rows = counts()
    outlier = rows.copy()
    outlier[BINS - 1] += 1

    assert [one.state for one in decide([question(outlier)], ROUND)] == ["quiet", "quiet"]


def test_a_quiet_round_alarms_within_its_budget() -> None:
    rng, rounds, budget = np.random.default_rng(3), 400, 0.05
    alarms = 0
    for _ in range(rounds):
        reference = np.array([*rng.multinomial(3_000, SHARES), *rng.binomial(3_000, [0.01, 0.001])])
        questions = [
            question(
                np.array([*rng.multinomial(200, SHARES), *rng.binomial(200, [0.01, 0.001])]),
                f"f{i}",
                reference=reference,
            )
            for i in range(5)
        ]
        alarms += any(one.state == "drift" for one in decide(questions, Round(budget=budget)))

    assert 0 < alarms <= budget * rounds + 4 * (budget * rounds) ** 0.5
