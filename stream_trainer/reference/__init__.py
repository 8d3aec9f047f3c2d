"""Frozen bins and counts over them: what a version has learned from, and what a window of requests looks like.

Training and monitoring count with the same bins, so the two can be compared, and added up in any order. `bins` says which bin a
value falls into, `pseudo` which columns are counted beside the features, `freezing` chooses the bins, `counting` counts,
`learned` keeps the counts of a lineage by time, `frozen` is what is stored. No torch: Spark's workers count too.
"""

from stream_trainer.reference.bins import Bins, numbers
from stream_trainer.reference.counting import Coded, Moments, coded, moments, pack, unpack
from stream_trainer.reference.freezing import freeze
from stream_trainer.reference.frozen import Outdated, Reference, Segments, table_from_bytes, table_to_bytes
from stream_trainer.reference.learned import Learned
from stream_trainer.reference.pseudo import LABEL, OUTPUT, OUTPUT_PROBABILITY, PROJECTION

__all__ = [
    "LABEL",
    "OUTPUT",
    "OUTPUT_PROBABILITY",
    "PROJECTION",
    "Bins",
    "Coded",
    "Learned",
    "Moments",
    "Outdated",
    "Reference",
    "Segments",
    "coded",
    "freeze",
    "moments",
    "numbers",
    "pack",
    "table_from_bytes",
    "table_to_bytes",
    "unpack",
]
