"""What is known of a trial: the challenger that requests may meet, and where the comparison stands. Values only."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from serving.metrics import Metrics
from serving.model import Served
from stream_trainer.assignment import salt_of, takes
from stream_trainer.contest import Contest, Role, Verdict
from stream_trainer.store.aliases import Alias
from stream_trainer.store.challenges import Challenge, Decide, Mode

State = Literal["idle", "blocked", "refused", "running", "decided"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenger:
    """The second version in memory, checked like the champion. A request takes one reference and keeps it to its end.

    Attributes:
        entry: the number of its entry; the salt of the assignment.
        role: what its predictions are logged as.
        share: of the keys that it answers; 0 for a shadow.
    """

    served: Served
    entry: int
    mode: Mode
    share: float

    @property
    def role(self) -> Literal["challenger", "canary"]:
        """`challenger` for a shadow, which never answers; `canary` for one that does."""
        return "challenger" if self.mode == "shadow" else "canary"

    def answers(self, key: str) -> bool:
        """Whether it answers for this key instead of the champion; never a shadow."""
        return self.mode == "canary" and takes(key, self.share, salt_of(self.entry))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Who is compared with whom, and the numbers of the entries that say so."""

    champion_entry: int
    alias: Alias
    entry: int
    challenge: Challenge

    def is_same(self, other: "Pair") -> bool:
        """Whether the comparison goes on: the same champion, however held, and the same challenge."""
        return self.alias.version == other.alias.version and self.entry == other.entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Where a trial stands, for people and for Prometheus.

    Attributes:
        state: `idle`, nobody challenges; `blocked`, there is no fixed champion to compare with; `refused`, a version
            failed a check; `running`; `decided`, by `verdict`.
        since: when the challenge was set.
        rows: labelled rows compared.
        unread: offsets of the log that were not read yet.
        metrics: the mean losses of both over the same rows.
        promotion: e-value against "the challenger is not better by more than the margin".
        withdrawal: e-value against "the challenger is no worse".
        needed: the e-value that decides.
        detail: why it does not run, or what came of the verdict.
        problem: the last failure, empty once something worked again.
    """

    state: State = "idle"
    entry: int = 0
    champion: int | None = None
    challenger: int | None = None
    mode: Mode | None = None
    share: float = 0.0
    decide: Decide | None = None
    since: datetime | None = None
    rows: int = 0
    unread: int = 0
    metrics: Mapping[Role, Mapping[str, float]] = field(default_factory=dict)
    promotion: float = 1.0
    withdrawal: float = 1.0
    needed: float | None = None
    verdict: Verdict | None = None
    detail: str = ""
    problem: str = ""


def status_of(state: State, pair: Pair, contest: Contest | None = None, *, unread: int = 0, detail: str = "") -> Status:
    """The status of a pair, with the figures of its contest if there is one."""
    challenge = pair.challenge
    return Status(
        state=state,
        entry=pair.entry,
        champion=pair.alias.version,
        challenger=challenge.version,
        mode=challenge.mode,
        share=challenge.share,
        decide=challenge.decide,
        since=challenge.at,
        rows=contest.rows if contest else 0,
        unread=unread,
        metrics=contest.metrics if contest else {},
        promotion=contest.better.evidence if contest else 1.0,
        withdrawal=contest.worse.evidence if contest else 1.0,
        needed=1.0 / contest.rules.alpha if contest else None,
        verdict=contest.verdict if contest else None,
        detail=detail,
    )


def show(metrics: Metrics, status: Status) -> None:
    """Set the gauges; those of a loss that is unknown vanish."""
    metrics.trial_rows.set(status.rows)
    metrics.trial_evidence.labels("promotion").set(status.promotion)
    metrics.trial_evidence.labels("withdrawal").set(status.withdrawal)
    if not status.metrics:
        metrics.trial_loss.clear()
    for role, losses in status.metrics.items():
        metrics.trial_loss.labels(role).set(next(iter(losses.values())))
