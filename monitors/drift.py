"""Does a window of requests look like what the served version has learned? One verdict a feature, from bin counts.

The test is the two-sample chi-squared test of homogeneity over the frozen bins, Bonferroni-corrected over the features,
plus a least effect (PSI), because with thousands of rows any difference is significant. The thresholds are
provisional: they are not calibrated yet. Too little to compare is "insufficient data", never drift.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from monitors.alerts import Alert, Open, Status, WindowSpan
from monitors.findings import Severity
from stream_trainer.reference import Bins, Reference

Verdict = Literal["drift", "quiet", "insufficient data"]
Counts = NDArray[np.float64]

_MOST_MOVED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftPolicy:
    """Provisional thresholds.

    Attributes:
        alpha: chance of a false alarm in one window over all features, were the rows independent.
        min_psi: the least population stability index that counts as drift.
        critical_psi: from here on drift is critical.
        min_rows: known values needed on both sides.
        min_expected: bins with fewer expected rows in the smaller side are put together.
    """

    alpha: float = 0.001
    min_psi: float = 0.2
    critical_psi: float = 0.5
    min_rows: int = 200
    min_expected: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureDrift:
    """What one window says about one feature; `statistic` is chi-squared and `threshold` its critical value."""

    feature: str
    verdict: Verdict
    detail: str
    statistic: float = 0.0
    threshold: float = 0.0
    psi: float = 0.0
    jensen_shannon: float = 0.0
    critical: bool = False


def judge(reference: Reference, learned: pa.Table, window: pa.Table, policy: DriftPolicy) -> list[FeatureDrift]:
    """Compare a window with what was learned, feature by feature.

    Args:
        reference: the frozen bins.
        learned: `HISTOGRAM` rows of what the version has learned from, all hours.
        window: `HISTOGRAM` rows of the window.
        policy: the thresholds.
    """
    alpha = policy.alpha / max(1, len(reference.bins))
    return [_judge(bins, _of(learned, bins), _of(window, bins), alpha, policy) for bins in reference.bins]


def _of(table: pa.Table, bins: Bins) -> pa.Table:
    return table.filter(pc.equal(table.column("feature"), bins.feature))


def _judge(bins: Bins, learned: pa.Table, window: pa.Table, alpha: float, policy: DriftPolicy) -> FeatureDrift:
    before, now = _counts(bins, learned, ""), _counts(bins, window, "")
    if reason := _too_little(before, now, policy):
        return FeatureDrift(feature=bins.feature, verdict="insufficient data", detail=reason)
    statistic, freedom = chi_squared(before, now, policy.min_expected)
    if freedom == 0:
        return FeatureDrift(feature=bins.feature, verdict="insufficient data", detail="every value is in one bin")
    threshold, effect = critical_value(freedom, alpha), psi(before, now)
    drifted = statistic > threshold and effect >= policy.min_psi
    return FeatureDrift(
        feature=bins.feature,
        verdict="drift" if drifted else "quiet",
        detail=_explain(bins, learned, window, policy) if drifted else "",
        statistic=statistic,
        threshold=threshold,
        psi=effect,
        jensen_shannon=jensen_shannon(before, now),
        critical=drifted and effect >= policy.critical_psi,
    )


def _too_little(before: Counts, now: Counts, policy: DriftPolicy) -> str:
    """Why two counts cannot be compared; the last bin is "missing"."""
    for name, counts in (("learned from", before), ("in the window", now)):
        known = counts[:-1].sum()
        if counts.sum() and not known:
            return f"every value {name} is missing"
        if known < policy.min_rows:
            return f"{int(known)} values {name}, at least {policy.min_rows} are needed"
    if np.count_nonzero(before[:-1]) == 1:
        return "what was learned from is constant"
    return ""


def _counts(bins: Bins, table: pa.Table, segment: str) -> Counts:
    rows = table.filter(pc.equal(table.column("segment"), segment))
    places = rows.column("bin").to_numpy()
    weights = rows.column("count").to_numpy().astype(np.float64)
    fits = (places >= 0) & (places < bins.size)
    counts: Counts = np.bincount(places[fits], weights[fits], minlength=bins.size).astype(np.float64)
    return counts


def _shares(first: Counts, second: Counts) -> tuple[Counts, Counts]:
    """Shares of each bin that any side uses; half a row is added to each, so that none is zero."""
    used = (first + second) > 0
    smooth = first[used] + 0.5, second[used] + 0.5
    return smooth[0] / smooth[0].sum(), smooth[1] / smooth[1].sum()


def psi(first: Counts, second: Counts) -> float:
    """The population stability index: the symmetrised Kullback-Leibler divergence of the bin shares, in nats."""
    p, q = _shares(first, second)
    return float(np.sum((q - p) * np.log(q / p)))


def jensen_shannon(first: Counts, second: Counts) -> float:
    """The Jensen-Shannon divergence of the bin shares, in bits: 0 for equal, 1 for disjoint."""
    p, q = _shares(first, second)
    middle = (p + q) / 2
    return float((np.sum(p * np.log2(p / middle)) + np.sum(q * np.log2(q / middle))) / 2)


def chi_squared(first: Counts, second: Counts, min_expected: float) -> tuple[float, int]:
    """The two-sample chi-squared statistic of homogeneity and its degrees of freedom; sparse bins are pooled.

    Unequal sizes as in Press et al., Numerical Recipes, "Are two distributions different?": df = bins - 1.
    """
    total, smaller = first + second, min(first.sum(), second.sum())
    sparse = total * (smaller / total.sum()) < min_expected
    a = np.append(first[~sparse], first[sparse].sum())
    b = np.append(second[~sparse], second[sparse].sum())
    used = (a + b) > 0
    a, b = a[used], b[used]
    ratio = np.sqrt(second.sum() / first.sum())
    return float(np.sum((a * ratio - b / ratio) ** 2 / (a + b))), len(a) - 1


def critical_value(freedom: int, alpha: float) -> float:
    """The upper `alpha` quantile of chi-squared, by Wilson and Hilferty's cube root (1931): within a few per cent."""
    part = 2 / (9 * freedom)
    normal = NormalDist().inv_cdf(1 - alpha)
    return float(freedom * (1 - part + normal * part**0.5) ** 3)


def _explain(bins: Bins, learned: pa.Table, window: pa.Table, policy: DriftPolicy) -> str:
    """The bins and the segments that moved most, in words."""
    text = _moved_bins(bins, _counts(bins, learned, ""), _counts(bins, window, ""))
    if segments := _moved_segments(bins, learned, window, policy):
        text += f"; most in {', '.join(segments)}"
    return text


def _moved_bins(bins: Bins, before: Counts, now: Counts) -> str:
    was, became = before / before.sum(), now / now.sum()
    most = np.argsort(-np.abs(became - was), kind="stable")[:_MOST_MOVED]
    return ", ".join(f"{bins.names[i]}: {was[i]:.1%} -> {became[i]:.1%}" for i in most if was[i] != became[i])


def _moved_segments(bins: Bins, learned: pa.Table, window: pa.Table, policy: DriftPolicy) -> Sequence[str]:
    names = set(learned.column("segment").to_pylist()) & set(window.column("segment").to_pylist()) - {""}
    moved = []
    for name in names:
        before, now = _counts(bins, learned, name), _counts(bins, window, name)
        if min(before.sum(), now.sum()) >= policy.min_rows / 4:
            moved.append((jensen_shannon(before, now), name))
    return [name for _, name in sorted(moved, key=lambda m: (-m[0], m[1]))[:_MOST_MOVED]]


class Streak(msgspec.Struct, frozen=True, kw_only=True):
    """How many windows in a row a feature has drifted or been quiet, and since when its alert was last published."""

    drifted: int = 0
    quiet: int = 0
    silent: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertPolicy:
    """How many windows it takes to open, to repeat and to resolve an alert."""

    open_after: int = 2
    resolve_after: int = 2
    repeat_after: int = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The window that a verdict is about."""

    pipeline: str
    window: WindowSpan
    model_version: int | None


Streaks = dict[str, Streak]
PREFIX = "drift/"


def step(
    open_alerts: Mapping[str, Alert],
    streaks: Mapping[str, Streak],
    verdicts: Iterable[FeatureDrift],
    evidence: Evidence,
    policy: AlertPolicy,
) -> tuple[Open, Streaks, list[Alert]]:
    """Take in one window's verdicts: the open alerts and streaks after it, and what is to be published."""
    now_open, now_streaks, events = dict(open_alerts), dict(streaks), []
    for verdict in verdicts:
        if verdict.verdict == "insufficient data":
            continue
        streak = _count(now_streaks.get(verdict.feature, Streak()), verdict)
        event = _event(now_open.get(PREFIX + verdict.feature), streak, verdict, evidence, policy)
        now_streaks[verdict.feature] = msgspec.structs.replace(streak, silent=0) if event else streak
        if event is None:
            continue
        events.append(event)
        if event.status == "resolved":
            del now_open[event.alert_key]
        else:
            now_open[event.alert_key] = event
    return now_open, now_streaks, events


def _count(streak: Streak, verdict: FeatureDrift) -> Streak:
    if verdict.verdict == "drift":
        return Streak(drifted=streak.drifted + 1, quiet=0, silent=streak.silent + 1)
    return Streak(drifted=0, quiet=streak.quiet + 1, silent=streak.silent + 1)


def _event(
    before: Alert | None, streak: Streak, verdict: FeatureDrift, evidence: Evidence, policy: AlertPolicy
) -> Alert | None:
    severity: Severity = "critical" if verdict.critical else "warning"
    if before is None:
        return _alert("opened", severity, verdict, evidence, None) if streak.drifted >= policy.open_after else None
    if streak.quiet >= policy.resolve_after:
        return _alert("resolved", before.severity, verdict, evidence, before)
    if streak.drifted and (severity != before.severity or streak.silent >= policy.repeat_after):
        return _alert("updated", severity, verdict, evidence, before)
    return None


def _alert(
    status: Status, severity: Severity, verdict: FeatureDrift, evidence: Evidence, before: Alert | None
) -> Alert:
    at = evidence.window.end
    return Alert(
        alert_key=PREFIX + verdict.feature,
        pipeline=evidence.pipeline,
        status=status,
        severity=severity,
        feature=verdict.feature,
        statistic=verdict.statistic,
        threshold=verdict.threshold,
        psi=verdict.psi,
        window=evidence.window,
        model_version=evidence.model_version,
        opened_at=before.opened_at if before else at,
        updated_at=at,
        message=_message(status, verdict, evidence),
        report=before.report if before else None,
    )


def _message(status: Status, verdict: FeatureDrift, evidence: Evidence) -> str:
    if status == "resolved":
        return f"{verdict.feature} looks again like what was learned (PSI {verdict.psi:.3f})"
    version = f"version {evidence.model_version}" if evidence.model_version else "the newest version"
    return (
        f"{verdict.feature} differs in {evidence.window.rows} requests from what {version} has learned "
        f"(PSI {verdict.psi:.3f}): {verdict.detail}"
    )
