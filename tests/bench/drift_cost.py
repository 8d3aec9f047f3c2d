"""What watching costs; the section of that name."""

from tests.bench.drift.cost import measure

__all__ = ["measure"]
