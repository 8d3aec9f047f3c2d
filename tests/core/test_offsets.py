import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from stream_trainer import offsets
from stream_trainer.errors import InputLost
from stream_trainer.offsets import Offsets, Ranges

TOPICS = st.sampled_from(["a.examples", "b.examples"])
VECTORS = st.dictionaries(TOPICS, st.dictionaries(st.integers(0, 4), st.integers(0, 2**62), min_size=1), max_size=2)


@st.composite
def starts_and_ends(draw: st.DrawFn) -> tuple[Offsets, Offsets]:
    """A vector, and one that is nowhere behind it and may know more partitions."""
    start = draw(VECTORS)
    end = {t: {p: o + draw(st.integers(0, 1000)) for p, o in ps.items()} for t, ps in start.items()}
    for topic, partitions in draw(VECTORS).items():
        for partition, offset in partitions.items():
            end.setdefault(topic, {}).setdefault(partition, offset)
    return start, end


@given(starts_and_ends())
def test_advancing_over_what_lies_between_two_vectors_leads_from_one_to_the_other(
    pair: tuple[Offsets, Offsets],
) -> None:
    start, end = pair
    ranges = offsets.ranges_between(start, end)
    assert offsets.advance(start, ranges) == end
    assert offsets.ends(ranges) == end
    for topic, partitions in offsets.starts(ranges).items():
        for partition, first in partitions.items():
            assert first == start.get(topic, {}).get(partition, 0)


@given(starts_and_ends(), st.data())
def test_joined_ranges_are_what_lies_between_the_outer_vectors(
    pair: tuple[Offsets, Offsets], data: st.DataObject
) -> None:
    start, end = pair
    middle = {
        t: {p: data.draw(st.integers(start.get(t, {}).get(p, 0), o)) for p, o in ps.items()} for t, ps in end.items()
    }
    first, second = offsets.ranges_between(start, middle), offsets.ranges_between(middle, end)
    joined = offsets.join(first, second)
    assert joined == offsets.ranges_between(start, end)
    assert offsets.size(joined) == offsets.size(first) + offsets.size(second)


@given(starts_and_ends())
def test_joining_with_nothing_changes_nothing(pair: tuple[Offsets, Offsets]) -> None:
    ranges = offsets.ranges_between(*pair)
    assert offsets.join({}, ranges) == ranges
    assert offsets.join(ranges, {}) == ranges


@given(starts_and_ends(), st.integers(-3, 3))
def test_a_gap_or_an_overlap_is_refused(pair: tuple[Offsets, Offsets], shift: int) -> None:
    assume(shift)
    start, end = pair
    shifted: Ranges = {t: {p: (o + shift, end[t][p] + abs(shift)) for p, o in ps.items()} for t, ps in start.items()}
    assume(offsets.starts(shifted))
    with pytest.raises(ValueError, match="the vector stands at"):
        offsets.advance(start, shifted)
    with pytest.raises(ValueError, match="the vector stands at"):
        offsets.join({t: {p: (0, o) for p, o in ps.items()} for t, ps in start.items()}, shifted)


def test_a_range_that_runs_backwards_is_refused() -> None:
    with pytest.raises(ValueError, match="backwards"):
        offsets.advance({"t": {0: 5}}, {"t": {0: (5, 4)}})


def test_a_vanished_partition_or_topic_is_lost_input() -> None:
    with pytest.raises(InputLost, match=r"t\[1\] has vanished"):
        offsets.ranges_between({"t": {0: 1, 1: 7}}, {"t": {0: 2}})
    with pytest.raises(InputLost, match=r"t\[0\] has vanished"):
        offsets.ranges_between({"t": {0: 1}}, {})


def test_an_end_before_the_start_is_lost_input() -> None:
    with pytest.raises(InputLost, match="re-created"):
        offsets.ranges_between({"t": {0: 9}}, {"t": {0: 8}})


def test_a_new_partition_is_read_from_its_beginning() -> None:
    assert offsets.ranges_between({"t": {0: 3}}, {"t": {0: 3, 1: 4}}) == {"t": {0: (3, 3), 1: (0, 4)}}


def test_a_copy_is_ones_own() -> None:
    vector = {"t": {0: 1}}
    own = offsets.copy(vector)
    own["t"][0] = 2
    assert vector == {"t": {0: 1}}


def test_advancing_leaves_the_given_vector_alone() -> None:
    vector = {"t": {0: 1}}
    offsets.advance(vector, {"t": {0: (1, 5)}})
    assert vector == {"t": {0: 1}}
