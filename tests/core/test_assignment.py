"""The share of a canary: which keys it answers."""

from hypothesis import given
from hypothesis import strategies as st

from stream_trainer.assignment import salt_of, takes

KEYS = st.text(max_size=40)
SHARES = st.floats(0, 1)
SALT = salt_of(3)


@given(KEYS, SHARES, SHARES, st.integers(1, 10**6))
def test_a_larger_share_takes_all_that_a_smaller_one_takes(key: str, one: float, other: float, entry: int) -> None:
    less, more = sorted((one, other))
    assert takes(key, more, salt_of(entry)) or not takes(key, less, salt_of(entry))


@given(KEYS, st.integers(1, 10**6))
def test_nothing_and_everything_are_exact(key: str, entry: int) -> None:
    assert not takes(key, 0.0, salt_of(entry))
    assert takes(key, 1.0, salt_of(entry))


def test_the_keys_that_are_taken_are_the_same_for_ever() -> None:
    """A replica of another version, or on another machine, must not answer for other keys."""
    assert [i for i in range(40) if takes(f"f{i}", 0.2, SALT)] == [5, 13, 24, 35, 39]


def test_a_share_takes_close_to_its_share() -> None:
    for share in (0.001, 0.1, 0.5, 0.9):
        count = sum(takes(f"key-{i}", share, SALT) for i in range(50_000))
        assert abs(count - 50_000 * share) < 5 * (50_000 * share * (1 - share)) ** 0.5


def test_trials_pick_their_keys_independently_of_each_other() -> None:
    both = sum(takes(f"k{i}", 0.5, salt_of(1)) and takes(f"k{i}", 0.5, salt_of(2)) for i in range(20_000))
    assert abs(both - 5_000) < 5 * (20_000 * 0.25 * 0.75) ** 0.5


def test_salt_and_key_do_not_run_into_each_other() -> None:
    shares = [0.1 * i for i in range(1, 10)]
    assert [takes("1x", s, "challenger/") for s in shares] != [takes("x", s, "challenger/1") for s in shares]
