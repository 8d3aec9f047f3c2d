"""Every error this project raises on purpose, in one tree.

    StreamTrainerError
    ├── Retryable             the outside did not answer: back off and try again
    │   ├── BrokerUnavailable
    │   ├── StoreUnavailable
    │   └── StreamFailed
    ├── Poison                one record is bad: reject it, go on
    ├── Corrupt               a stored thing fails its checks: fall back to the last good one, alert
    ├── NoVersion             nothing has been learned yet
    └── Fatal                 a person has to act: exit with a code of its own
        ├── UsageError        2
        ├── Fenced            3  another trainer extended the lineage
        ├── InputLost         4  records this lineage needs are gone
        ├── StoreDamaged      5
        ├── StoreUnwritable   5  disk full, read-only or not ours: what was committed is intact
        ├── RetriesExhausted  6
        ├── SparkLost         7  Spark's JVM ended under the trainer; starting again goes on
        └── SetupError        1  something is missing on this machine

Each message says what happened, where (topic, partition, offset, version) and what to do.
"""

from typing import ClassVar


class StreamTrainerError(Exception):
    """Root of the tree; `exit_code` is what a command ends with when nobody handles it."""

    exit_code: ClassVar[int] = 1


class Retryable(StreamTrainerError):
    """Something outside did not answer; the same call may work later."""


class BrokerUnavailable(Retryable):
    """Kafka cannot be reached or did not answer in time."""


class StoreUnavailable(Retryable):
    """The model store cannot be reached or did not answer in time."""


class StreamFailed(Retryable):
    """Spark could not go on with a query or a job; a new one may."""


class Poison(StreamTrainerError):
    """One record cannot be used; `reason` is what `P.rejected` keeps."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class Corrupt(StreamTrainerError):
    """A stored object does not match its digest, size or format."""


class NoVersion(StreamTrainerError):
    """The pipeline has no version yet: nothing has been learned."""


class Fatal(StreamTrainerError):
    """Going on would be wrong; a person or a supervisor has to act."""


class UsageError(Fatal):
    """The command, the pipeline file or a setting is not usable as given."""

    exit_code = 2


class Fenced(Fatal):
    """Another trainer has committed the version this one was about to commit."""

    exit_code = 3


class InputLost(Fatal):
    """Records between the lineage's position and the log's start no longer exist."""

    exit_code = 4


class StoreDamaged(Fatal):
    """The store holds no version that passes its checks although it should."""

    exit_code = 5


class StoreUnwritable(Fatal):
    """The store refuses to be written, and will until somebody acts; what was committed is intact."""

    exit_code = 5


class RetriesExhausted(Fatal):
    """A retryable failure came back more often than allowed."""

    exit_code = 6


class SparkLost(Fatal):
    """Spark's JVM has ended: this process cannot go on, a new one goes on from the newest version."""

    exit_code = 7


class SetupError(Fatal):
    """A program, jar or package is missing on this machine."""
