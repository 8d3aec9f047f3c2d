"""A year of flights through the monitor; the section of that name."""

from tests.bench.drift.flights import measure

__all__ = ["measure"]
