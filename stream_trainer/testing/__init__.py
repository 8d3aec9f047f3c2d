"""Test a pipeline of your own without Kafka, Spark or Java, on the trainer that runs in production.

from stream_trainer.testing import Abort, Pause, Poison, ScriptedLog, train

def test_a_crash_repeats_nothing(tmp_path):
log = ScriptedLog(pipeline, [*examples, Poison(b"not json"), Abort(), *more])
with pytest.raises(Aborted):
train(pipeline, log, tmp_path)
lineage = train(pipeline, log, tmp_path)
assert lineage.total.trained == len(examples) + len(more)
"""

from stream_trainer.testing.clock import FakeClock
from stream_trainer.testing.crash import Crash, crash_at, crash_points, kill_at
from stream_trainer.testing.disk import FaultyDisk, LostAnswers, faulty_storage
from stream_trainer.testing.log import Abort, Aborted, Gap, Pause, Poison, ScriptedLog
from stream_trainer.testing.outside import MemoryOutbox, MemoryRequests, ScriptedOutside, train

__all__ = [
    "Abort",
    "Aborted",
    "Crash",
    "FakeClock",
    "FaultyDisk",
    "Gap",
    "LostAnswers",
    "MemoryOutbox",
    "MemoryRequests",
    "Pause",
    "Poison",
    "ScriptedLog",
    "ScriptedOutside",
    "crash_at",
    "crash_points",
    "faulty_storage",
    "kill_at",
    "train",
]
