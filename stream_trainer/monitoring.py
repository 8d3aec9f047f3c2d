"""What a pipeline says of how it is watched: windows, the false-alarm rate that is promised, and what alerts set off."""

from dataclasses import dataclass
from datetime import timedelta

from stream_trainer.acting import When
from stream_trainer.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Monitoring:
    """How the predictions of a pipeline are watched.

    Attributes:
        window: length of a window in event time (`event_time` of a request that has one, else `requested_at`).
        lateness: a window is judged once an event so much later than its end was seen; what comes after is late.
        false_alarm_every: while nothing changes, at most one alarm in so much event time is to be expected, over all
            features, segments and kinds together.
        min_rows: with fewer known values there is no verdict.
        usual_windows: so many windows are seen before one is judged, and then, where they differ from each other by more than
            rows by chance would, by how much they usually do. 0: by rows alone, from the first window on.
        unwatched: features that no window has as they were learned, such as the day of the week in windows of a day.
        silence: no prediction for so long, by the clock, is an alert; None: never.
        unlabelled: predictions for so long, by when Kafka got them, without one label since are an alert, once labels have
            come at all; None: never. Longer than labels ever pause: by default a weekend and what comes a day late.
        staleness: a serving version older than this, in event-to-now time, is an alert; None: never.
        actions: what alerts ask of the trainer.
        action_cooldown: the trainer carries out at most one action of a kind in so much time, by the clock; others are refused.
        hold_at_most: so long after a hold was asked for, by its alert's time, it ends though the alert goes on: what is held
            may be what keeps it open.
    """

    window: timedelta = timedelta(minutes=5)
    lateness: timedelta = timedelta(minutes=1)
    false_alarm_every: timedelta = timedelta(days=30)
    min_rows: int = 50
    usual_windows: int = 0
    unwatched: tuple[str, ...] = ()
    silence: timedelta | None = timedelta(minutes=5)
    unlabelled: timedelta | None = timedelta(days=4)
    staleness: timedelta | None = timedelta(hours=1)
    actions: tuple[When, ...] = ()
    action_cooldown: timedelta = timedelta(hours=1)
    hold_at_most: timedelta = timedelta(days=1)

    def __post_init__(self) -> None:
        zero = timedelta(0)
        if self.window <= zero or self.lateness < zero:
            raise UsageError("Monitoring: window must be longer than nothing, lateness not negative")
        if self.false_alarm_every < self.window:
            raise UsageError("Monitoring: false_alarm_every must be at least one window")
        if self.min_rows < 20:
            raise UsageError("Monitoring: min_rows must be at least 20")
        if self.usual_windows and self.usual_windows < 5:
            raise UsageError("Monitoring: usual_windows must be 0 or at least 5")
        if not all(isinstance(rule, When) for rule in self.actions):
            raise UsageError("Monitoring: actions is a tuple of When(kind=…, do=…)")
        if self.action_cooldown < zero:
            raise UsageError("Monitoring: action_cooldown must not be negative")
        if self.hold_at_most <= zero:
            raise UsageError("Monitoring: hold_at_most must be longer than nothing")

    @property
    def false_alarms_per_window(self) -> float:
        """The probability of any alarm that one quiet window may have."""
        return min(1.0, self.window / self.false_alarm_every)
