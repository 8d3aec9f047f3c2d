"""What the page is told, and by whom: a few small structs, and the callables that give them.

Records of `P.alerts` come from several writers and versions, so they are read field by field: what is not there, or is
of another type, is left out, and no record stops the others.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, TypeVar

import msgspec

from monitors.findings import RANKS, Effect
from monitors.history import WindowRecord
from stream_trainer.offsets import Ranges

MAX_TEXT = 2_000
MAX_RANKED = 50
MAX_LINK = 10_000
_CELL = "#cell?"
_REPORT = re.compile(r"\A[A-Za-z0-9_-][A-Za-z0-9_.-]{0,250}\.html\Z")
_T = TypeVar("_T")


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """The windows that an alert is about: `[start, end)`, and the rows in them."""

    start: datetime
    end: datetime
    rows: int | None = None


class ShownAlert(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How an alert stands; most fields are those of `docs/schemas/alert.json`.

    Attributes:
        features: columns that go missing in the same rows; empty where it is about one alone.
        plot: the fragment of this page that shows its cell.
        report: name of a report that `/reports/NAME` answers.
        ranking: features by their weight in the change of the model's output, the heaviest first.
    """

    alert_key: str
    kind: str
    status: str
    severity: str
    message: str
    opened_at: datetime | None = None
    updated_at: datetime | None = None
    feature: str = ""
    features: list[str] = []
    segment: str = ""
    against: str = ""
    model_version: int | None = None
    window: Span | None = None
    windows: int | None = None
    p_value: float | None = None
    threshold: float | None = None
    effect: Effect | None = None
    rows: int | None = None
    reference_rows: int | None = None
    weight: float | None = None
    ranking: list[tuple[str, float]] = []
    offsets: Ranges = {}
    plot: str | None = None
    report: str | None = None

    @property
    def open(self) -> bool:
        """Whether it has not been resolved."""
        return self.status != "resolved"


class ShownVersion(msgspec.Struct, frozen=True, kw_only=True):
    """A version of the model; `failed` are the gates that it did not pass."""

    version: int
    created_at: datetime
    trained_through: datetime | None
    covered_at: datetime | None
    parent: int | None
    trained: int
    total_trained: int
    passed: bool
    failed: list[str] = []
    metrics: dict[str, float] = {}


class Promotion(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of an alias: from then on it names this version, or none."""

    alias: str
    number: int
    version: int | None
    at: datetime
    by: str
    reason: str
    hold: bool = False


class Versions(msgspec.Struct, frozen=True, kw_only=True):
    """The newest versions, oldest first, the newest decisions, oldest first, and who has which role now."""

    versions: list[ShownVersion] = []
    promotions: list[Promotion] = []
    champion: int | None = None
    challenger: int | None = None
    highest: int = 0


class Age(msgspec.Struct, frozen=True, kw_only=True):
    """How fresh one thing is.

    Attributes:
        name: what it is.
        since: the instant, by the clock, that its age is counted from; None: it is not there yet.
        event: how far it reaches in event time.
        limit_seconds: an age above this is too old.
        detail: more about it.
    """

    name: str
    since: datetime | None = None
    event: datetime | None = None
    limit_seconds: float | None = None
    detail: str = ""


class Windows(Protocol):
    """See `history.History`."""

    def starts(self) -> list[datetime]: ...  # noqa: D102

    def get(self, start: datetime) -> WindowRecord | None: ...  # noqa: D102


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where the page looks; each may raise, and may take its time.

    Attributes:
        pipeline: its name.
        history: the windows that were closed.
        alerts: open alerts, and some that were resolved lately.
        versions: of the model store.
        ages: how fresh things are.
        report: a report by its name; None when there is none.
    """

    pipeline: str
    history: Windows
    alerts: Callable[[], Sequence[ShownAlert]] = lambda: ()
    versions: Callable[[], Versions] = Versions
    ages: Callable[[], Sequence[Age]] = lambda: ()
    report: Callable[[str], bytes | None] = lambda _: None


def is_report_name(name: str) -> bool:
    """Whether this can be a report's file name: it leads nowhere else."""
    return _REPORT.match(name) is not None and ".." not in name


def shown_alert(key: str, value: Mapping[str, Any]) -> ShownAlert:
    """A record of `P.alerts`, as far as it can be understood."""

    def of(name: str, kind: type[_T]) -> _T | None:
        try:
            return msgspec.convert(value.get(name), kind, strict=kind is not datetime, str_keys=True)
        except msgspec.ValidationError:
            return None

    def text(name: str) -> str:
        return (of(name, str) or "")[:MAX_TEXT]

    report = text("report").replace("\\", "/").rpartition("/")[2]
    psi = of("psi", float)
    return ShownAlert(
        alert_key=key[:MAX_TEXT],
        kind=text("kind") or "other",
        status=text("status") or "opened",
        severity=text("severity") or "warning",
        message=text("message"),
        opened_at=of("opened_at", datetime),
        updated_at=of("updated_at", datetime),
        feature=text("feature"),
        features=[name[:MAX_TEXT] for name in of("features", list[str]) or []][:MAX_RANKED],
        segment=text("segment"),
        against=text("against"),
        model_version=of("model_version", int),
        window=of("window", Span),
        windows=of("windows", int),
        p_value=of("p_value", float),
        threshold=of("threshold", float),
        effect=of("effect", Effect) or (None if psi is None else Effect(psi=psi)),
        rows=of("rows", int),
        reference_rows=of("reference_rows", int),
        weight=of("weight", float),
        ranking=_ranking(value.get("ranking")),
        offsets=of("offsets", Ranges) or of("ranges", Ranges) or {},
        plot=_cell(of("plot", str) or ""),
        report=report if is_report_name(report) else None,
    )


def _cell(link: str) -> str | None:
    """Whatever page a link leads to, its cell is looked for on this one."""
    _, found, asked = link.partition(_CELL)
    return found + asked if found and len(link) <= MAX_LINK else None


def _ranking(value: object) -> list[tuple[str, float]]:
    try:
        return msgspec.convert(value, list[tuple[str, float]])[:MAX_RANKED]
    except msgspec.ValidationError:
        return []


def ordered(alerts: Iterable[ShownAlert]) -> list[ShownAlert]:
    """Open ones first, critical before the others, and the newest first."""

    def key(alert: ShownAlert) -> tuple[bool, int, float, str]:
        at = alert.updated_at or alert.opened_at
        rank = RANKS.get(alert.severity, RANKS["warning"]) if alert.open else 0
        return not alert.open, rank, -(at.timestamp() if at else 0.0), alert.alert_key

    return sorted(alerts, key=key)
