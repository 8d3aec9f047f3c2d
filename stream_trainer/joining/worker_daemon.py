"""The process that a joiner's Python workers are forked from: `stream_trainer.worker_daemon`, and what `transformWithState` asks for.

pyspark imports its test utilities, and pandas with them, at the first state access of each worker: a second of CPU, for
each worker of each start.
"""

from pyspark import daemon
from pyspark.sql.streaming import stateful_processor_util
from pyspark.sql.streaming.proto import StateMessage_pb2
from pyspark.testing import utils

from stream_trainer import worker_daemon
from stream_trainer.joining import processor

PRELOADED = (*worker_daemon.PRELOADED, stateful_processor_util, StateMessage_pb2, utils, processor)

if __name__ == "__main__":
    daemon.manager()
