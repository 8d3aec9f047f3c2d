"""When which flight departs and lands in simulated time. Pure: no clock, no network, no data but instants."""

from dataclasses import dataclass

import numpy as np

from examples.flights.data import NEVER, Ints


@dataclass(frozen=True, slots=True)
class Tick:
    """What happens in one step of simulated time; departures come before landings.

    A flight's landing is never in an earlier tick than its departure.
    """

    until: float
    departures: range
    landings: list[int]


class Schedule:
    """Walks rows ordered by departure, from `start` on and at most `max_flights` of them. Time only goes forward."""

    def __init__(self, departs: Ints, lands: Ints, *, start: float, max_flights: int | None = None) -> None:
        first = int(np.searchsorted(departs, start, side="left"))
        last = len(departs) if max_flights is None else min(len(departs), first + max_flights)
        self._departs = departs
        self._next_departure = first
        self._last_departure = last
        # A landing recorded before its departure would be asked for after the fact: it waits for the departure.
        lands_at = np.maximum(lands[first:last], departs[first:last])
        order = np.argsort(lands_at, kind="stable")
        order = order[lands[first:last][order] != NEVER]
        self._landing_rows = first + order
        self._landing_times = lands_at[order]
        self._next_landing = 0
        self.now = start

    @property
    def done(self) -> bool:
        """No departure and no landing is left."""
        return self.departed_all and self._next_landing == len(self._landing_rows)

    @property
    def departed_all(self) -> bool:
        """No departure is left."""
        return self._next_departure == self._last_departure

    def advance(self, until: float) -> Tick:
        """Everything after the last call's `until` and up to this one, each exactly once."""
        if until < self.now:
            raise ValueError(f"simulated time would go back, from {self.now} to {until}")
        self.now = until
        departures = range(
            self._next_departure,
            min(self._last_departure, int(np.searchsorted(self._departs, until, side="right"))),
        )
        landed = int(np.searchsorted(self._landing_times, until, side="right"))
        landings = self._landing_rows[self._next_landing : landed].tolist()
        self._next_departure = departures.stop
        self._next_landing = landed
        return Tick(until, departures, landings)


class SimulatedClock:
    """Real seconds → simulated ones. A step longer than `max_step` real seconds loses the rest: time slows down.

    Attributes:
        slowed_seconds: real seconds lost that way.
    """

    def __init__(self, *, start: float, speed: float, max_step: float, real: float) -> None:
        self.now = start
        self.slowed_seconds = 0.0
        self._speed = speed
        self._max_step = max_step
        self._real = real

    def tick(self, real: float) -> float:
        """Simulated time now that the real monotonic clock reads `real`."""
        elapsed = real - self._real
        step = min(elapsed, self._max_step)
        self.slowed_seconds += elapsed - step
        self._real = real
        self.now += step * self._speed
        return self.now
