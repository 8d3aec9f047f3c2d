"""A clock that stands still until it is told to move."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta


@dataclass(slots=True)
class FakeClock:
    """Both clocks of a process: calling it gives the wall clock's instant, `monotonic` what timeouts are measured with."""

    now: datetime = field(default_factory=lambda: datetime(2026, 1, 1, 12, tzinfo=UTC))
    seconds: float = 0.0

    def __call__(self) -> datetime:
        """The wall clock's instant."""
        return self.now

    def monotonic(self) -> float:
        """Seconds since the clock was made."""
        return self.seconds

    def advance(self, seconds: float) -> None:
        """Time passes."""
        self.now += timedelta(seconds=seconds)
        self.seconds += seconds

    def jump(self, seconds: float) -> None:
        """The wall clock is set forward or back; no time passes."""
        self.now += timedelta(seconds=seconds)
