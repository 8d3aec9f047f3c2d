"""The process that Spark's Python workers are forked from: it has imported what every worker needs.

Its forks share that memory and start in milliseconds. It must stay fit to be forked: it starts no thread and opens no
connection. torch is not here, because learning happens in the driver and workers only decode.
"""

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute
from pyspark import daemon
from pyspark.sql.pandas import serializers

PRELOADED = (msgspec, np, pa, pyarrow.compute, serializers)

if __name__ == "__main__":
    daemon.manager()
