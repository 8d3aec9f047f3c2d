"""A made-up past for the page: quiet weeks, then a shift in one feature, nulls in another, and a change of concept.

Counts are drawn, tests are made from them, so a cell's colour, its histogram and its finding tell the same story.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from monitors.alerts import Alert, WindowSpan
from monitors.findings import Effect, Finding, Kind
from monitors.history import Curve, History, WindowRecord
from monitors.links import Dashboard
from monitors.page.sources import Age, Promotion, ShownAlert, ShownVersion, Sources, Versions, shown_alert
from stream_trainer.store.storage import LocalStorage
from tests.monitors.worlds import alert

START = datetime(2026, 2, 2, tzinfo=UTC)
WINDOW = timedelta(hours=6)
QUIET = 84  # windows before anything happens: three weeks
NUMBERS = ("distance", "dep_hour", "temp", "wind_speed", "visib", "precip")
BINS = ["< 0", *(f"{a} to {a + 5}" for a in range(0, 60, 5)), "> 60", "NaN", "inf", "missing"]
CARRIERS = ["UA", "B6", "EV", "DL", "AA", "MQ", "other", "unseen", "missing"]
SEGMENTS = ("origin=EWR", "origin=JFK", "origin=LGA")
THRESHOLD = 4.2e-5
LEARNED_ROWS = 40_000
DASHBOARD = Dashboard(url="/", window=WINDOW)
Counts = NDArray[np.int64]
Shares = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Past:
    """What happens in window number `index`."""

    seed: int = 7
    windows: int = 112
    features: Sequence[str] = (*NUMBERS, "carrier")
    segments: Sequence[str] = SEGMENTS

    def records(self) -> Iterator[WindowRecord]:
        """All windows, oldest first."""
        for index in range(self.windows):
            yield self.record(index)

    def record(self, index: int) -> WindowRecord:
        """One window; the same each time."""
        rng = np.random.default_rng((self.seed, index))
        start = START + index * WINDOW
        night = index % 4 == 0
        rows = int(rng.integers(20, 48)) if night and index % 16 == 8 else int(rng.integers(900, 1_500))
        findings: list[Finding] = []
        curves: list[Curve] = []
        for feature in (*self.features, "_output", "_label"):
            for segment in ("", *self.segments):
                part = rows if not segment else rows // 3
                curve = self._curve(rng, feature, segment, index, part)
                findings += _findings(feature, segment, curve, part)
                curves += [curve] if not segment else []
        findings += _together(rng, index, rows)
        return WindowRecord(
            start=start,
            end=start + WINDOW,
            rows=rows,
            late=int(rng.integers(0, 3)),
            versions=(1 + index // 2, 2 + index // 2),
            offsets={
                "flights.predictions": {
                    0: (index * 700, index * 700 + rows // 2),
                    1: (index * 600, index * 600 + rows // 2),
                }
            },
            findings=findings,
            curves=curves,
            scores=_scores(rng, index),
        )

    def _curve(self, rng: np.random.Generator, feature: str, segment: str, index: int, rows: int) -> Curve:
        bins = CARRIERS if feature == "carrier" else ["late", "on time"] if feature == "_label" else BINS
        usual = _usual(feature, len(bins))
        now = usual
        after = index - QUIET
        if feature == "temp" and after >= 0 and segment != "origin=LGA":
            now = _shifted(usual, min(1.0, 0.25 + after / 20))
        if feature == "visib" and after >= 8:
            now = 0.8 * usual
            now[-1] += 0.2
        learned = usual if feature != "temp" or after < 14 else 0.7 * usual + 0.3 * now
        return Curve(
            feature=feature,
            segment=segment,
            bins=bins,
            window=rng.multinomial(rows, now).tolist(),
            baseline=np.random.default_rng(len(feature)).multinomial(LEARNED_ROWS, usual).tolist(),
            learned=np.random.default_rng(len(feature) + 1).multinomial(LEARNED_ROWS, learned).tolist(),
        )


def _usual(feature: str, bins: int) -> Shares:
    shares: Shares = np.random.default_rng(sum(map(ord, feature))).dirichlet(np.full(bins, 4.0))
    if bins == len(BINS):
        places = np.arange(bins)
        centre = 4 + sum(map(ord, feature)) % 6
        shares = np.exp(-0.5 * ((places - centre) / 2.4) ** 2)
        shares[[0, -4, -3, -2]] = 0.0005
        shares[-1] = 0.004
    return np.asarray(shares / shares.sum())


def _shifted(shares: Shares, by: float) -> Shares:
    moved = np.roll(shares, 2)
    return np.asarray((1 - by) * shares + by * moved)


def _findings(feature: str, segment: str, curve: Curve, rows: int) -> list[Finding]:
    kind: Kind = "prediction" if feature == "_output" else "label" if feature == "_label" else "drift"
    found = []
    pairs: list[tuple[Literal["learned", "baseline"], list[int]]] = [
        ("learned", curve.learned),
        ("baseline", curve.baseline),
    ]
    for against, reference in pairs:
        values = (curve.window[:-1], reference[:-1]) if kind == "drift" else (curve.window, reference)
        found.append(_finding(kind, feature, segment, against, *values, rows, curve.bins))
    if kind == "drift":
        now, before = ([sum(counts[:-1]), counts[-1]] for counts in (curve.window, curve.learned))
        found.append(_finding("quality", feature, segment, "learned", now, before, rows, ["known", "missing"]))
    return found


def _finding(
    kind: Kind,
    feature: str,
    segment: str,
    against: Literal["learned", "baseline"],
    window: Sequence[int],
    reference: Sequence[int],
    rows: int,
    bins: Sequence[str],
) -> Finding:
    a, b = np.asarray(window, float), np.asarray(reference, float)
    if rows < 50:
        detail = f"{rows} known values, 50 are needed"
        return Finding(
            kind=kind,
            feature=feature,
            segment=segment,
            against=against,
            state="not enough data",
            rows=rows,
            detail=detail,
        )
    statistic, p_value = _chi_squared(a, b)
    p, q = (a + 0.5) / (a + 0.5).sum(), (b + 0.5) / (b + 0.5).sum()
    middle = (p + q) / 2
    most = int(np.argmax(np.abs(p - q)))
    return Finding(
        kind=kind,
        feature=feature,
        segment=segment,
        against=against,
        state="drift" if p_value <= THRESHOLD else "quiet",
        statistic=statistic,
        p_value=p_value,
        threshold=THRESHOLD,
        effect=Effect(
            psi=float(((p - q) * np.log(p / q)).sum()),
            jensen_shannon=float((p * np.log2(p / middle) + q * np.log2(q / middle)).sum() / 2),
            wasserstein=float(np.abs(np.cumsum(p - q)).sum() / 2.4) if kind == "drift" else None,
        ),
        rows=int(a.sum()),
        reference_rows=int(b.sum()),
        weight=0.31 if feature == "temp" else None,
        detail=f"{bins[most]}: {q[most]:.1%} before, {p[most]:.1%} now",
    )


def _chi_squared(a: Shares, b: Shares) -> tuple[float, float]:
    """Pearson's statistic of two rows of counts, and Wilson and Hilferty's approximation of its p-value."""
    kept = a + b >= 20
    a, b = np.append(a[kept], a[~kept].sum()), np.append(b[kept], b[~kept].sum())
    a, b = a[a + b > 0], b[a + b > 0]
    total = a + b
    expected = total * a.sum() / total.sum(), total * b.sum() / total.sum()
    statistic = float(((a - expected[0]) ** 2 / expected[0]).sum() + ((b - expected[1]) ** 2 / expected[1]).sum())
    free = max(len(total) - 1, 1)
    z = ((statistic / free) ** (1 / 3) - (1 - 2 / (9 * free))) / math.sqrt(2 / (9 * free))
    return statistic, max(0.5 * math.erfc(z / math.sqrt(2)), 1e-300)


def _together(rng: np.random.Generator, index: int, rows: int) -> list[Finding]:
    after = index - QUIET
    concept = after >= 16
    found = [
        Finding(
            kind="concept",
            feature="",
            against="limit",
            state="drift" if concept else "quiet",
            p_value=3e-9 if concept else float(rng.uniform(0.05, 1)),
            threshold=1e-6,
            rows=rows,
            detail="errors of the newest 4,200 rows lie above those before" if concept else "",
        )
    ]
    for number in range(2):
        psi = 0.08 + 0.01 * after if after >= 2 else float(rng.uniform(0, 0.02))
        state: Literal["drift", "quiet"] = "drift" if after >= 2 else "quiet"
        found.append(
            Finding(
                kind="multivariate",
                feature=f"_projection/{number}",
                against="learned",
                state=state,
                windows=4,
                p_value=1e-7 if after >= 2 else float(rng.uniform(0.01, 1)),
                threshold=THRESHOLD,
                effect=Effect(psi=psi),
                rows=4 * rows,
                reference_rows=LEARNED_ROWS,
            )
        )
    return found


def _scores(rng: np.random.Generator, index: int) -> dict[str, float]:
    learnt = 0.52 + 0.16 * math.exp(-index / 12)
    concept = 0.12 if index - QUIET >= 16 else 0.0
    noise = rng.normal(0, 0.008, 4).tolist()
    return {
        "log_loss": learnt + concept + noise[0],
        "no_change_log_loss": 0.78 + noise[1],
        "majority_log_loss": 0.68 + noise[2] + concept / 3,
        "estimated_log_loss": learnt + concept / 4 + noise[3] / 2,
        "accuracy": 0.76 - concept + noise[0],
        "no_change_accuracy": 0.62 + noise[1],
        "staleness_seconds": float(rng.uniform(2, 9)),
    }


def history(folder: Path, past: Past | None = None) -> History:
    """A history with all windows of a past."""
    found = History(LocalStorage(folder))
    for record in (past or Past()).records():
        found.add(record)
    return found


def alerts() -> list[ShownAlert]:
    """What such a past has raised: two open, one resolved; as the page reads them in `P.alerts`."""
    at = START + QUIET * WINDOW
    shift = alert(
        alert_key="drift/learned/temp",
        status="updated",
        severity="critical",
        message="temp differs in 1,204 rows from what version 44 has learned (PSI 0.84), most of all where temp is 45 to 50: 6.1 % before, 19.7 % now",
        feature="temp",
        model_version=44,
        opened_at=at + WINDOW,
        updated_at=at + 12 * WINDOW,
        window=WindowSpan(start=at + 11 * WINDOW, end=at + 12 * WINDOW, rows=1_204),
        windows=1,
        p_value=2.1e-61,
        threshold=THRESHOLD,
        effect=Effect(psi=0.84, jensen_shannon=0.13, wasserstein=0.71),
        rows=1_204,
        reference_rows=LEARNED_ROWS,
        weight=0.31,
        ranking=(("temp", 0.31), ("visib", 0.22), ("wind_speed", 0.08), ("carrier", 0.03)),
        offsets={"flights.predictions": {0: (66_500, 67_102), 1: (57_000, 57_602)}},
        report="drift-learned-temp-20260223T060000.html",
    )
    nulls = alert(
        alert_key="quality/learned/visib",
        kind="quality",
        message="visib is missing in 20.3 % of 1,377 rows; it was in 0.4 % of what version 48 has learned",
        feature="visib",
        model_version=48,
        opened_at=at + 9 * WINDOW,
        updated_at=at + 9 * WINDOW,
        window=WindowSpan(start=at + 8 * WINDOW, end=at + 9 * WINDOW, rows=1_377),
        windows=1,
        effect=Effect(psi=0.52),
        p_value=1e-90,
        threshold=THRESHOLD,
    )
    old = alert(
        alert_key="drift/learned/carrier/origin=JFK",
        status="resolved",
        severity="info",
        message="carrier looks again like what was learned",
        feature="carrier",
        segment="origin=JFK",
        opened_at=START + 30 * WINDOW,
        updated_at=START + 36 * WINDOW,
        window=WindowSpan(start=START + 35 * WINDOW, end=START + 36 * WINDOW, rows=1_100),
        windows=1,
    )
    return [as_shown(one) for one in (old, nulls, shift)]


def as_shown(one: Alert, dashboard: Dashboard = DASHBOARD) -> ShownAlert:
    """A record of the monitor as the page shows it."""
    wire = msgspec.json.encode(dashboard.linked(one))
    return shown_alert(one.alert_key, msgspec.json.decode(wire, type=dict[str, Any]))


def versions(made: datetime = START) -> Versions:
    """Fifty-six versions, one in twenty failed, two promotions by hand."""
    found = [
        ShownVersion(
            version=n,
            created_at=made + n * 2 * WINDOW,
            trained_through=made + n * 2 * WINDOW - timedelta(minutes=20),
            covered_at=made + n * 2 * WINDOW,
            parent=n - 1 or None,
            trained=2_400,
            total_trained=2_400 * n,
            passed=n % 20 != 0,
            failed=["loss_jump"] if n % 20 == 0 else [],
        )
        for n in range(1, 57)
    ]
    decisions = [
        Promotion(alias="champion", number=1, version=1, at=made + 2 * WINDOW, by="trainer", reason="promotion: gated"),
        Promotion(
            alias="challenger", number=1, version=30, at=made + 62 * WINDOW, by="ada", reason="try in the shadow"
        ),
        Promotion(alias="champion", number=2, version=30, at=made + 70 * WINDOW, by="ada", reason="won its trial"),
        Promotion(
            alias="champion",
            number=3,
            version=44,
            at=made + 90 * WINDOW,
            by="ada",
            reason="before the storm",
            hold=True,
        ),
    ]
    return Versions(versions=found, promotions=decisions, champion=44, highest=56)


def ages(now: datetime) -> list[Age]:
    """A fresh window, and a champion that is too old."""
    return [
        Age(name="Window closed", since=now - timedelta(minutes=4), event=START + 112 * WINDOW),
        Age(name="Version made", since=now - timedelta(seconds=50), event=START + 112 * WINDOW, detail="version 56"),
        Age(
            name="Champion made",
            since=now - timedelta(hours=9),
            event=START + 88 * WINDOW,
            limit_seconds=3600,
            detail="version 44",
        ),
        Age(name="End of the log learned", since=now - timedelta(seconds=52)),
    ]


def sources(folder: Path, past: Past | None = None) -> Sources:
    """All of it."""
    return Sources(
        pipeline="flights",
        history=history(folder, past),
        alerts=alerts,
        versions=versions,
        ages=lambda: ages(datetime.now(UTC)),
        report=lambda name: b"<h1>A report</h1><script>document.title = 'made'</script>" if "temp" in name else None,
    )
