"""The year is loaded once a session; everything else is small."""

import pytest

from examples.flights.data import Raw, Timeline, build_timeline, read_raw


@pytest.fixture(scope="session")
def raw() -> Raw:
    return read_raw()


@pytest.fixture(scope="session")
def timeline(raw: Raw) -> Timeline:
    return build_timeline(raw)
