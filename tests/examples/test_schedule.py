"""Departures and landings in simulated time."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.flights.data import NEVER
from examples.flights.schedule import Schedule, SimulatedClock

HORIZON = 1_000
departures = st.lists(st.integers(0, HORIZON), min_size=1, max_size=40).map(sorted)
flight_minutes = st.integers(-5, 300) | st.none()


def _schedule(departs: list[int], minutes: list[int | None], start: float = 0, limit: int | None = None) -> Schedule:
    lands = [NEVER if m is None else d + m for d, m in zip(departs, minutes, strict=True)]
    return Schedule(np.array(departs), np.array(lands), start=start, max_flights=limit)


@given(st.data())
def test_every_flight_departs_once_and_lands_at_most_once_afterwards_and_in_order(data: st.DataObject) -> None:
    departs = data.draw(departures)
    minutes = data.draw(st.lists(flight_minutes, min_size=len(departs), max_size=len(departs)))
    start = data.draw(st.integers(0, HORIZON))
    limit = data.draw(st.none() | st.integers(1, 50))
    schedule = _schedule(departs, minutes, start, limit)
    chosen = [row for row, at in enumerate(departs) if at >= start][:limit]
    departed: list[int] = []
    landed: list[int] = []
    now: float = start
    while not schedule.done:
        now += data.draw(st.floats(0.5, 400))
        tick = schedule.advance(now)
        departed += tick.departures
        assert all(departs[row] <= now for row in tick.departures)
        for row in tick.landings:
            length = minutes[row]
            assert length is not None
            assert departs[row] + length <= now
            assert row in departed
        landed += tick.landings
    assert departed == chosen
    assert sorted(landed) == [row for row in chosen if minutes[row] is not None]
    times = [max(departs[row], departs[row] + (minutes[row] or 0)) for row in landed]
    assert times == sorted(times)


@given(st.data())
def test_how_time_is_cut_changes_nothing_in_the_order(data: st.DataObject) -> None:
    departs = data.draw(departures)
    minutes = data.draw(st.lists(flight_minutes, min_size=len(departs), max_size=len(departs)))
    cuts = sorted(data.draw(st.lists(st.integers(0, 2 * HORIZON), max_size=10)))
    whole = _schedule(departs, minutes).advance(2 * HORIZON)
    schedule = _schedule(departs, minutes)
    ticks = [schedule.advance(cut) for cut in [*cuts, 2 * HORIZON]]
    assert [row for tick in ticks for row in tick.departures] == list(whole.departures)
    assert [row for tick in ticks for row in tick.landings] == whole.landings


def test_a_start_after_the_last_departure_is_done_at_once() -> None:
    assert _schedule([1, 2], [5, 5], start=3).done


def test_time_never_goes_back() -> None:
    schedule = _schedule([1], [1])
    schedule.advance(10)
    with pytest.raises(ValueError, match="go back"):
        schedule.advance(9)


def test_a_late_tick_slows_simulated_time_down_instead_of_jumping() -> None:
    clock = SimulatedClock(start=1_000, speed=60, max_step=0.1, real=50)
    assert clock.tick(50.05) == pytest.approx(1_003)
    assert clock.tick(55.05) == pytest.approx(1_009)
    assert clock.slowed_seconds == pytest.approx(4.9)
