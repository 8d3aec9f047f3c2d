"""All false alarms together; the section of that name."""

from tests.bench.drift.whole import measure

__all__ = ["measure"]
