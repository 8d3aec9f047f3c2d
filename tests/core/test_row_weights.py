"""How much a record counts, on its way from the column `_weight` to what the learner is given."""

import numpy as np
import pyarrow as pa
import pytest

from stream_trainer.learning import to_batch
