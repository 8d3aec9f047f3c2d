"""What alerts may set off: the actions, when they are asked for, and the record that asks (`P.actions`).

A request names itself by what it is for, so that it counts once however often it is written. Nothing here carries an
action out: `planning` decides, `effects` does.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta

from stream_trainer.errors import UsageError

Severity = Literal["info", "warning", "critical"]  # in this order
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
# What an alert is about.
Kind = Literal[
    "drift",  # a feature's distribution
    "quality",  # nulls, values out of range, unseen categories of a feature
    "prediction",  # what the model answers
    "label",  # what turned out to be true
    "multivariate",  # features together, by random projections
    "loss",  # realised loss, once labels have come
    "concept",  # the error stream: labels depend on features in another way than before
    "estimate",  # performance estimated without labels
    "schema",  # records that cannot be read
    "freshness",  # the version that serves is too old
    "silence",  # nobody asks, or no label comes: the feature is then the label
]
KINDS: tuple[Kind, ...] = get_args(Kind)
# Compared with what was learned and with the frozen baseline; alerts of each are their own.
TWO_REFERENCES: frozenset[Kind] = frozenset({"drift", "quality", "label", "multivariate"})
# About all features together.
WHOLE: frozenset[Kind] = frozenset({"multivariate", "loss", "concept", "estimate", "freshness"})
Hearing = Literal["learned", "baseline", "any"]
MAX_BYTES = 16 * 2**10
MOST_FACTOR, MOST_ROWS, MOST_RECORDS = 100.0, 10_000_000, 1_000_000

ActionId = Annotated[str, Meta(pattern=r"\A[0-9a-f]{32}\Z")]
Instant = Annotated[datetime, Meta(tz=True)]
# What others write is shown to people: one line, and no control characters.
Text = Annotated[str, Meta(max_length=500, pattern=r"\A[^\x00-\x1f\x7f-\x9f\u2028\u2029]*\Z")]


class _Action(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    @property
    def kind(self) -> str:
        """What the action is called in JSON."""
        return str(self.__struct_config__.tag)


class RaiseLearningRate(_Action, frozen=True, kw_only=True, tag="raise_learning_rate"):
    """The learner's steps are `factor` times as long for the next `rows` rows.

    Raises:
        UsageError: `factor` is not above 1 and at most 100, or `rows` not between 1 and ten million.
    """

    factor: Annotated[float, Meta(gt=1.0, le=MOST_FACTOR)] = 3.0
    rows: Annotated[int, Meta(ge=1, le=MOST_ROWS)] = 5_000

    def __post_init__(self) -> None:
        if not (_is_number(self.factor) and 1.0 < self.factor <= MOST_FACTOR):
            raise UsageError(
                f"RaiseLearningRate: factor is {self.factor!r}: give a number above 1, at most {MOST_FACTOR:g}"
            )
        _check_whole("RaiseLearningRate: rows", self.rows, MOST_ROWS)
        msgspec.structs.force_setattr(self, "factor", float(self.factor))


class HoldPromotion(_Action, frozen=True, kw_only=True, tag="hold_promotion"):
    """The champion stays, whatever is committed, until the alert is resolved or a person decides."""


class RollBack(_Action, frozen=True, kw_only=True, tag="roll_back"):
    """The champion goes back to the newest good version from before the alert, and is held until a person decides."""


class WarmRetrain(_Action, frozen=True, kw_only=True, tag="warm_retrain"):
    """The learner starts anew and learns the newest `records` offsets before its place in the log again.

    Raises:
        UsageError: `records` is not between 1 and a million.
    """

    records: Annotated[int, Meta(ge=1, le=MOST_RECORDS)] = 20_000

    def __post_init__(self) -> None:
        _check_whole("WarmRetrain: records", self.records, MOST_RECORDS)


class ReleasePromotion(_Action, frozen=True, kw_only=True, tag="release_promotion"):
    """The hold that the action `hold` has made ends, if it is still that action's. The monitor asks for it."""

    hold: ActionId


Action = RaiseLearningRate | HoldPromotion | RollBack | WarmRetrain | ReleasePromotion
Asking = RaiseLearningRate | HoldPromotion | RollBack | WarmRetrain


@dataclass(frozen=True, slots=True, kw_only=True)
class When:
    """A rule: alerts of a kind, at least so severe, ask for an action.

    Attributes:
        kind: of the alert; see `KINDS`.
        do: what is asked.
        severity: the least.
        feature: only alerts about this one; None: about any, or about all together.
        against: of the kinds in `TWO_REFERENCES`, only alerts against this one. A difference from the baseline alone says that the
            model has followed.

    Raises:
        UsageError: something of it cannot be, or no alert can ever meet it.
    """

    kind: Kind
    do: Asking
    severity: Severity = "warning"
    feature: str | None = None
    against: Hearing = "learned"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(f"When: there is no kind of alert {self.kind!r}; use one of {', '.join(sorted(KINDS))}")
        if self.severity not in SEVERITIES:
            raise UsageError(f"When: severity is {self.severity!r}: use {', '.join(SEVERITIES)}")
        if self.feature == "":
            raise UsageError("When: feature is the name of one, or None for any")
        if self.feature is not None and self.kind in WHOLE:
            raise UsageError(f"When: alerts of kind {self.kind} are about no single feature: leave feature out")
        if self.against not in get_args(Hearing):
            raise UsageError(f"When: against is {self.against!r}: use {', '.join(get_args(Hearing))}")
        if self.against == "baseline" and self.kind not in TWO_REFERENCES:
            raise UsageError(f"When: no alert of kind {self.kind} is against the baseline: leave against out")
        do: object = self.do
        if not isinstance(do, Asking):
            names = ", ".join(kind.__name__ for kind in get_args(Asking))
            raise UsageError(f"When: do is {do!r}: give one of {names}, such as HoldPromotion()")

    def is_met(self, kind: str, feature: str, severity: str, against: str) -> bool:
        """Whether such an alert asks for the action."""
        heard = kind not in TWO_REFERENCES or self.against in ("any", against)
        severe = severity in SEVERITIES and SEVERITIES.index(severity) >= SEVERITIES.index(self.severity)
        return kind == self.kind and self.feature in (None, feature) and heard and severe


class Cause(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The alert that asks. `since`: the event time from which on things were not as before."""

    alert_key: Text
    severity: Severity
    opened_at: Instant
    since: Instant


class Asked(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One record of `P.actions`; its key is `action_id`."""

    action_id: ActionId
    action: Action
    by: Text
    asked_at: Instant
    reason: Text = ""
    alert: Cause | None = None


def id_of_alert(alert_key: str, opened_at: datetime, action: Action) -> str:
    """The id of what an alert asks for: the same for the same alert and action, whoever asks and how often."""
    return _id("alert", alert_key, opened_at, action)


def id_of_person(by: str, asked_at: datetime, action: Action) -> str:
    """The id of what a person asks for, at an instant."""
    return _id("person", by, asked_at, action)


def _id(source: str, who: str, at: datetime, action: Action) -> str:
    parts = [source, who, at.astimezone(UTC).isoformat(), msgspec.to_builtins(action)]
    return hashlib.sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()[:32]


def parse(key: bytes | None, value: bytes | None) -> Asked | None:
    """A record of `P.actions`; None when it is none: unknown, malformed, too large, or under another's key."""
    if key is None or value is None or len(value) > MAX_BYTES:
        return None
    try:
        asked = msgspec.json.decode(value, type=Asked)
    except (msgspec.MsgspecError, ValueError, RecursionError, UsageError):
        return None
    return asked if asked.action_id.encode() == key else None


def action_of(fields: Mapping[str, Any]) -> Action:
    """An action from plain values, `kind` among them.

    Raises:
        UsageError: there is no such action, or a value is not one of it.
    """
    try:
        action: Action = msgspec.convert(dict(fields), type=Action)
    except (msgspec.MsgspecError, ValueError) as error:
        raise UsageError(f"{fields.get('kind')}: {error}") from error
    return action


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check_whole(what: str, value: object, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise UsageError(f"{what} is {value!r}: give a whole number from 1 to {most}")
