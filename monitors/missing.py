"""In how many rows of a window two columns are missing together: exact, additive, and only where something is missing.

Runs in Spark's workers. What is made of it is `companions`'s.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from stream_trainer.reference import Reference, pack

MOST_COLUMNS = 100  # of a contract, the first ones


def watched_columns(reference: Reference) -> tuple[str, ...]:
    """The columns whose missing values are counted together."""
    return tuple(bins.feature for bins in reference.bins if not bins.pseudo)[:MOST_COLUMNS]


def both_missing(names: Sequence[str], columns: Mapping[str, pa.Array]) -> bytes:
    """Rows in which two columns are missing, and those in which one is, packed; adding up packed ones is exact.

    Args:
        names: as `watched_columns` gives them.
        columns: equally long; a column that is not there is missing nowhere.
    """
    holes = [i for i, name in enumerate(names) if name in columns and columns[name].null_count]
    if not holes:
        return b""
    missing = np.stack([columns[names[i]].is_null().to_numpy(zero_copy_only=False) for i in holes])
    rows = missing.astype(np.float32)  # whole numbers below 2**24
    found = np.zeros((len(names), len(names)), np.int64)
    found[np.ix_(holes, holes)] = np.triu(rows @ rows.T)
    return pack(found.ravel())
