"""The reload storm under clients that leave the cores some rest, as those of a service that is not overloaded do."""

from tests.bench import storm
from tests.bench.options import Options
from tests.bench.section import Section

EVERY_SECONDS = 0.02


def measure(options: Options) -> Section:
    """See `storm.measure`."""
    return storm.measure(options, every=EVERY_SECONDS)
