"""Where a trainer begins and when it ends: what the command line says, light enough to be read before torch."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Where to begin: `origin` is earliest, latest or the number of a version to start the weights from."""

    origin: str = "earliest"
    until_caught_up: bool = False
    create_topics: bool = True
