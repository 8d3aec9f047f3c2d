"""What a measurement may be told on the command line."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """None leaves a measurement its own default."""

    runs: int | None = None
    seconds: float | None = None
