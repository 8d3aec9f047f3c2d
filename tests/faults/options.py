"""What the command line says."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """`seeds` None: as many as the section does by itself; `seed` is the first."""

    seconds: float
    seeds: int | None
    seed: int
