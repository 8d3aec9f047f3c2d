"""Where a trainer begins and when it ends: what the command line says, light enough to be read before torch."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Where to begin: `origin` is earliest, latest or the number of a version to start the weights from.

    `history`: files and folders that a new lineage learns from before the log. `accept_data_loss`: go on when records that the lineage needs are gone, and record that in the next version.
    """

    origin: str = "earliest"
    until_caught_up: bool = False
    create_topics: bool = True
    accept_data_loss: bool = False
    history: tuple[Path, ...] = ()
