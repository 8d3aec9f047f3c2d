"""Which window a record that cannot be read belongs to: a function of the log, however it is cut."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from monitors.asked import Asked, Kafka, Skip
from monitors.skipped import Skipped, add, add_by_window, by_window, up_to

from .worlds import START

LENGTH = 1_000


def where(offset: int, partition: int = 0) -> Kafka:
    return Kafka("p", partition, offset, START + timedelta(0), None)


def row(offset: int, at: int, partition: int = 0) -> Asked:
    return Asked(where(offset, partition), at, None, None)  # type: ignore[arg-type]


def test_it_belongs_to_the_window_that_its_partition_had_reached() -> None:
    rows = [row(i, 5_000 + i) for i in range(5)] + [row(i + 1, 9_000, 1) for i in range(5)]
    skips = [Skip(where(5), "invalid_json"), Skip(where(0, 1), "null_value"), Skip(where(7, 1), "shadow")]
    found = by_window(skips, rows, {}, length=LENGTH, closed=None)
    assert found == {
        0: Skipped(rows={"null_value": 1}, offsets={"null_value": {"p": {1: (0, 1)}}}),
        5: Skipped(rows={"invalid_json": 1}, offsets={"invalid_json": {"p": {0: (5, 6)}}}),
    }
    assert set(by_window(skips, rows, {"p/1": [8_000] * 5}, length=LENGTH, closed=7)) == {7, 8}


@given(
    st.lists(st.one_of(st.none(), st.integers(0, 9_999)), max_size=30),
    st.lists(st.integers(0, 2), min_size=30, max_size=30),
    st.integers(0, 30),
)
def test_cut_anywhere_it_says_the_same(times: list[int | None], partitions: list[int], cut: int) -> None:
    def part(first: int, last: int, known: dict[str, list[int]]) -> tuple[dict[int, Skipped], dict[str, list[int]]]:
        here = [(i, times[i], partitions[i]) for i in range(first, min(last, len(times)))]
        rows = [row(i, at, p) for i, at, p in here if at is not None]
        skips = [Skip(where(i, p), f"r{i % 2}") for i, at, p in here if at is None]
        after = {
            f"p/{p}": sorted([*known.get(f"p/{p}", []), *(r.at for r in rows if r.where.partition == p)])[-5:]
            for p in range(3)
        }
        return by_window(skips, rows, known, length=LENGTH, closed=None), after

    whole, _ = part(0, 30, {})
    first, known = part(0, cut, {})
    second, _ = part(cut, 30, known)
    assert add_by_window(first, second) == add_by_window(second, first) == whole
    assert sum(one.total for one in whole.values()) == sum(at is None for at in times)


def test_a_window_takes_with_it_what_came_while_there_were_no_rows() -> None:
    one, two, three = (Skipped(rows={"r": n}, offsets={"r": {"p": {0: (n, n + 1)}}}) for n in (1, 2, 3))
    left, mine = up_to({4: one, 6: two, 9: three}, 6)
    assert (left, mine) == ({9: three}, add(one, two))
    assert mine == Skipped(rows={"r": 3}, offsets={"r": {"p": {0: (1, 3)}}})
    assert up_to({}, 3) == ({}, Skipped())
