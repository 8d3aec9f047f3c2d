"""The rows that a frozen reference keeps, as a table: what reports and explanations compare a window's sample with."""

import pyarrow as pa

from stream_trainer.reference import Reference


def sample_of(reference: Reference, rows: int) -> pa.Table:
    """At most so many rows of the plain features, as long as the shortest column; a feature without values is left out."""
    columns = {bins.feature: bins.sample_words if bins.categorical else bins.sample for bins in reference.bins}
    known = {name: pa.array(values[:rows]) for name, values in columns.items() if values}
    shortest = min((len(values) for values in known.values()), default=0)
    return pa.table({name: values[:shortest] for name, values in known.items()})
