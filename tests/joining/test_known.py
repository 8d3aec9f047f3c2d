"""A set of hashed names, the clock of the log, and what a hot key costs."""

from hypothesis import given
from hypothesis import strategies as st

from stream_trainer.joining.clock import LogClock, read_until
from stream_trainer.joining.known import Known


@given(st.sets(st.text(max_size=12)), st.sets(st.text(max_size=12)))
def test_what_is_known_is_held_and_nothing_else(there: set[str], other: set[str]) -> None:
    known = Known.of(there)
    asked = sorted(there | other)
    assert known.holds(asked) == [name in there for name in asked]
    assert len(known) == len(there)


def test_a_name_costs_sixteen_bytes() -> None:
    assert Known.of(str(n) for n in range(1_000))._hashes.nbytes == 16_000


def test_the_log_is_read_as_far_as_its_first_unread_record() -> None:
    times = {("l", 0): 70, ("p", 1): 60}
    ends = {"l": {0: 5, 1: 0}, "p": {0: 3, 1: 4}}
    assert read_until({"l": {0: 5}, "p": {0: 3, 1: 4}}, ends, lambda _: {}, 100) == 100
    unread = {"l": {0: 4}, "p": {1: 0}}

    def look(places: object) -> dict[tuple[str, int], int]:
        assert places == unread
        return times

    assert read_until({"l": {0: 4}, "p": {0: 3}}, ends, look, 100) == 60


def test_the_clock_looks_once_a_slot_and_never_goes_back() -> None:
    looks = [40, 30, 500]
    clock = LogClock(lambda _, __: looks.pop(0), width=10, settle=40, settled=7)
    assert [clock.at({}, now) for now in (100, 105, 109)] == [40, 40, 40]
    assert clock.at({}, 110) == 40
    assert (len(looks), clock.settled) == (1, 7)
    assert clock.at({}, 140) == 500
    assert clock.settled == 30
