"""What whoever answers a request is asked, and what it says: the seam between protocols and models.

A protocol (`/predict`, the Open Inference Protocol) turns bytes into rows of the contract and an `Outcome` into bytes;
it never sees a tensor, a version's files or Kafka.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from serving.model import Served
from serving.rows import Rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a caller demands of the version that answers.

    Attributes:
        version: exactly this one; None takes the champion (or, for a share of keys, a canary).
        min_version: this one or a later one; waits for it, up to a bound.
        max_staleness: seconds; refused rather than answered with older knowledge.
        conflict: answer 409 instead of 503 when `min_version` was not reached in time.
    """

    version: int | None = None
    min_version: int = 0
    max_staleness: float = math.inf
    conflict: bool = False


ANY = Wish()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The answer to one request: a prediction id and an output a row, all by one version.

    Attributes:
        served: the version that answered.
        ids: UUIDv7, ascending.
        outputs: a row each: a probability, a probability for each class, or a number.
        staleness: seconds, when it answered.
    """

    served: Served
    ids: Sequence[str]
    outputs: Sequence[Any]
    staleness: float


class Answers(Protocol):
    """Whoever predicts."""

    async def answer(self, rows: Rows, requested_at: datetime, wish: Wish = ANY) -> Outcome:
        """Predict rows, log them, and say which version did.

        Raises:
            Problem: no version fits the wish, the service is full, or it took too long.
        """
        ...

    @property
    def busy(self) -> bool:
        """Whether whoever comes now will wait."""
        ...

    def versions(self) -> list[Served]:
        """The versions that can be asked for by number, the champion first; empty before the first one."""
        ...
