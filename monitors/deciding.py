"""All tests of one round become findings, and the round as a whole keeps its false-alarm budget.

A round is one block of windows with all features, segments and references. Benjamini and Hochberg (1995) decide over all of
its tests: while nothing changes, any alarm in the round is at most as probable as the budget; where something has
changed, at most that share of what is called drift is wrong. Pure; what is remembered between rounds is handed in.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import compress

import msgspec
import numpy as np
from numpy.typing import NDArray

from monitors.comparing import Counts, Measures, compare, compare_shares
from monitors.effects import effects
from monitors.findings import VERSION, Against, Effect, Finding, Kind
from monitors.moved import moved_bins, moved_shares
from monitors.usual import MEMORY, Past, Usual, Weighed, learn, weigh


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One comparison to be made: a feature in a segment against a reference.

    Attributes:
        kind: what a difference in values is; "drift", "prediction", "label" or "multivariate".
        window: counts in the frozen bins, `[bins]`, the bins of quality included.
        reference: the same of the reference.
        names: a readable name for each bin.
        ordered: whether bins are ranges of numbers.
        quality: which bins hold no proper value (missing, NaN, infinite, out of range, unseen); they are compared on
            their own, and the result is a finding of kind "quality".
        places: where each value bin is on the axis, for Wasserstein; None: bins are one apart.
        unanswerable: why nothing can be compared (another reference, no such column); "" when it can.
    """

    kind: Kind
    feature: str
    segment: str = ""
    against: Against
    window: Counts
    reference: Counts
    names: Sequence[str]
    ordered: bool = True
    quality: Sequence[int] = ()
    places: NDArray[np.float64] | None = None
    unanswerable: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What a round may do.

    Attributes:
        budget: the probability of any alarm while nothing has changed (`scales.budgets`, or a share of it).
        windows: how many windows are taken together.
        min_rows: with fewer known values on either side there is no verdict.
        usual_windows: so many windows are judged before any verdict, and so many rounds, of the newest `MEMORY`, where they
            differ by more than rows by chance; 0: every round is judged by rows alone.
    """

    budget: float
    windows: int = 1
    min_rows: int = 50
    usual_windows: int = 14


@dataclass(frozen=True, slots=True)
class _Answers:
    """Findings that are not decided yet, with what they may teach."""

    findings: list[Finding]
    pasts: list[Past]
    measures: Measures
    weighed: Weighed
    teach: list[bool]


def decide(questions: Sequence[Question], round_: Round, together: Iterable[Finding] = ()) -> list[Finding]:
    """Answer all questions by the exact p-values alone; see `decide_by`."""
    found, _ = _rounds(questions, round_, list(together), None)
    return found


def decide_by(
    questions: Sequence[Question], round_: Round, usual: Usual, together: Iterable[Finding] = ()
) -> tuple[list[Finding], Usual]:
    """Answer all questions, and call drift what stands out.

    Args:
        questions: in any order; each gives a finding of its kind and, when it has bins of quality, another one.
        round_: the budget and the least rows.
        usual: how much windows usually differ.
        together: findings of others with valid p-values of this round (state "quiet", or "not enough data"): they
            share the budget.

    Returns:
        The findings in the order of the questions, then those handed in, where `threshold` is the round's; and what is
        usual after this round.
    """
    if not round_.usual_windows:
        return decide(questions, round_, together), usual
    found, taught = _rounds(questions, round_, list(together), usual)
    return found, msgspec.structs.replace(usual, past={**usual.past, **taught})


def _rounds(
    questions: Sequence[Question], round_: Round, together: list[Finding], usual: Usual | None
) -> tuple[list[Finding], dict[str, Past]]:
    places: list[tuple[int, int]] = []
    answers: list[_Answers] = []
    for alike in _alike(questions).values():
        for part, answer in enumerate(_answer([questions[i] for i in alike], round_, usual)):
            answers.append(answer)
            places += [(i, part) for i in alike]
    found = [finding for answer in answers for finding in answer.findings]
    decided = decide_alone([*found, *together], round_.budget)
    taught: dict[str, Past] = {}
    done = 0
    for answer in answers if usual is not None else ():
        ours = decided[done : done + len(answer.findings)]
        done += len(ours)
        drifted = [finding.state == "drift" for finding in ours]
        after = learn(answer.pasts, answer.measures, answer.weighed.most, drifted)
        taught |= dict(compress(zip(map(_name, ours), after, strict=True), answer.teach))
    order = sorted(range(len(found)), key=places.__getitem__)
    return [*(decided[i] for i in order), *decided[len(found) :]], taught


def _name(finding: Finding) -> str:
    """All versions have one past: they come and go."""
    segment = VERSION if finding.segment.startswith(VERSION) else finding.segment
    return f"{finding.windows}/{finding.kind}/{finding.against}/{finding.feature}/{segment}"


def decide_alone(findings: Sequence[Finding], budget: float) -> list[Finding]:
    """Decide findings that carry a budget of their own, by the same rule and apart from all others."""
    tested = [finding.p_value for finding in findings if finding.state != "not enough data"]
    threshold = critical_p_value(np.asarray(tested), budget)
    return [_decided(finding, threshold) for finding in findings]


def critical_p_value(p_values: NDArray[np.float64], budget: float) -> float:
    """Benjamini and Hochberg's: p-values up to this one are discoveries; when there are none, what one would have taken."""
    tests = len(p_values)
    if not tests:
        return 0.0
    passed = np.flatnonzero(np.sort(p_values) <= budget * np.arange(1, tests + 1) / tests)
    discoveries = int(passed[-1]) + 1 if len(passed) else 1
    return budget * discoveries / tests


def _decided(finding: Finding, threshold: float) -> Finding:
    if finding.state == "not enough data":
        return finding
    drifted = finding.p_value <= threshold
    return msgspec.structs.replace(finding, state="drift" if drifted else "quiet", threshold=threshold)


def _alike(questions: Sequence[Question]) -> dict[tuple[object, ...], list[int]]:
    """Questions that can be answered in one go: the same bins, of the same meaning."""
    found: dict[tuple[object, ...], list[int]] = {}
    for i, question in enumerate(questions):
        shape = (question.ordered, len(question.window), tuple(question.quality), question.places is None)
        found.setdefault(shape, []).append(i)
    return found


def _answer(questions: Sequence[Question], round_: Round, usual: Usual | None) -> list[_Answers]:
    window = np.stack([np.asarray(question.window, dtype=np.int64) for question in questions])
    reference = np.stack([np.asarray(question.reference, dtype=np.int64) for question in questions])
    kept = np.ones(window.shape[1], dtype=bool)
    kept[list(questions[0].quality)] = False
    values = _values(questions, window[:, kept], reference[:, kept], np.flatnonzero(kept), round_, usual)
    return [values, _quality(questions, window, reference, round_, usual)] if questions[0].quality else [values]


def _values(
    questions: Sequence[Question],
    window: Counts,
    reference: Counts,
    bins: Counts,
    round_: Round,
    usual: Usual | None,
) -> _Answers:
    """Findings about where the proper values are."""
    first = questions[0]
    places = None if first.places is None else np.stack([q.places for q in questions if q.places is not None])
    compared = compare(window, reference, ordered=first.ordered)
    sizes = effects(window, reference, ordered=first.ordered, places=places)
    findings = []
    for i, question in enumerate(questions):
        found = Finding(
            kind=question.kind,
            feature=question.feature,
            segment=question.segment,
            against=question.against,
            state="quiet",
            windows=round_.windows,
            statistic=float(compared.statistic[i]),
            p_value=float(compared.p_value[i]),
            effect=Effect(
                psi=float(sizes.psi[i]),
                jensen_shannon=float(sizes.jensen_shannon[i]),
                kolmogorov_smirnov=None if sizes.kolmogorov_smirnov is None else float(sizes.kolmogorov_smirnov[i]),
                wasserstein=None if sizes.wasserstein is None else float(sizes.wasserstein[i]),
            ),
            rows=int(window[i].sum()),
            reference_rows=int(reference[i].sum()),
        )
        reason = question.unanswerable or _too_little(found.rows, found.reference_rows, round_.min_rows)
        if not reason and not compared.freedom[i]:
            reason = "every value is in the same bin"
        findings.append(_silent(found, reason) if reason else found)

    def moved(i: int) -> str:
        return moved_bins(questions[i].names, bins, window[i], reference[i], questions[i].ordered)

    return _weighed(findings, compared.measures, round_, usual, moved)


def _quality(
    questions: Sequence[Question], window: Counts, reference: Counts, round_: Round, usual: Usual | None
) -> _Answers:
    """Findings about how many values are no proper ones: each bin of quality against all other rows."""
    rows, reference_rows = window.sum(axis=1), reference.sum(axis=1)
    bins = np.asarray(questions[0].quality)
    bad, bad_before = window[:, bins], reference[:, bins]
    compared = compare_shares(bad, rows[:, None], bad_before, reference_rows[:, None])
    asked = compared.freedom.sum(axis=1)
    p_value = np.where(asked > 0, np.minimum(1.0, compared.p_value.min(axis=1) * asked), 1.0)
    both = [
        np.column_stack([side, total - side.sum(axis=1)]) for side, total in ((bad, rows), (bad_before, reference_rows))
    ]
    sizes = effects(both[0], both[1], ordered=False)
    findings = []
    for i, question in enumerate(questions):
        found = Finding(
            kind="quality",
            feature=question.feature,
            segment=question.segment,
            against=question.against,
            state="quiet",
            windows=round_.windows,
            statistic=float(compared.statistic[i].max()),
            p_value=float(p_value[i]),
            effect=Effect(psi=float(sizes.psi[i]), jensen_shannon=float(sizes.jensen_shannon[i])),
            rows=int(rows[i]),
            reference_rows=int(reference_rows[i]),
        )
        reason = question.unanswerable or _too_little(found.rows, found.reference_rows, round_.min_rows)
        findings.append(_silent(found, reason) if reason else found)

    def moved(i: int) -> str:
        return moved_shares(questions[i].names, bins, bad[i] / rows[i], bad_before[i] / reference_rows[i])

    return _weighed(findings, compared.measures, round_, usual, moved)


def _silent(finding: Finding, reason: str) -> Finding:
    return msgspec.structs.replace(
        finding, state="not enough data", statistic=0.0, p_value=1.0, effect=Effect(), detail=reason
    )


def _weighed(
    findings: Sequence[Finding],
    measures: Measures,
    round_: Round,
    usual: Usual | None,
    moved: Callable[[int], str],
) -> _Answers:
    """Findings with p-values in the light of what is usual; words only where they can be needed.

    A p-value above the budget is never a discovery.
    """
    known = {} if usual is None else usual.past
    pasts = [known.get(_name(finding), Past()) for finding in findings]
    shared = np.array([f.rows / max(1, f.rows + f.reference_rows) for f in findings])
    weighed = weigh(pasts, measures, shared, min(round_.usual_windows, MEMORY))
    teach = [finding.state != "not enough data" for finding in findings]
    found = []
    for i, finding in enumerate(findings):
        judged = _in_light(finding, weighed, i, usual.windows, round_.usual_windows) if teach[i] and usual else finding
        told = judged.state != "not enough data" and judged.p_value <= round_.budget
        found.append(msgspec.structs.replace(judged, detail=judged.detail + moved(i)) if told else judged)
    return _Answers(found, pasts, measures, weighed, teach)


def _in_light(finding: Finding, weighed: Weighed, i: int, windows: int, needed: int) -> Finding:
    """`windows`: that were judged before; the first few may have been alike by chance."""
    if windows < needed:
        return _silent(finding, f"how much windows usually differ is not known yet: {windows} of {needed}")
    if weighed.waits[i] >= 0:
        rounds = f"{weighed.waits[i]} of {min(needed, MEMORY)}"
        return _silent(finding, f"how much windows usually differ is not known yet: {rounds}")
    if not weighed.times[i]:
        return finding
    return msgspec.structs.replace(
        finding,
        p_value=float(weighed.p_value[i]),
        dispersion=float(weighed.dispersion[i]),
        detail=f"{weighed.times[i]:.1f} times what windows usually differ; ",
    )


def _too_little(rows: int, reference_rows: int, min_rows: int) -> str:
    for where, found in (("in the window", rows), ("in the reference", reference_rows)):
        if not found:
            return f"no known value {where}"
        if found < min_rows:
            return f"{found} known values {where}, at least {min_rows} are needed"
    return ""
