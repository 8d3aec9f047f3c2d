"""`worker_daemon` with torch, for strategies that learn in Spark's workers (`spark.python.daemon.module`).

torch takes seconds to import, and `torch.optim` seconds more at first use: here they are paid once, before any fork.
"""

import torch
import torch.optim
from pyspark import daemon
from torch import _dynamo

from stream_trainer.worker_daemon import PRELOADED

ALSO_PRELOADED = (*PRELOADED, torch, torch.optim, _dynamo)

if __name__ == "__main__":
    torch.set_num_threads(1)
    daemon.manager()
