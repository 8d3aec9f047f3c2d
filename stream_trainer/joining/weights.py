"""Which examples are taught, and how much each counts: negative sampling and importance weights. Pure.

Negative sampling and its correction are those of Monolith (arXiv 2209.07663); the weights are those of Ktena et al.
(arXiv 1907.06558), for a stream in which only a share of the true labels comes after false was taught.
"""

import hashlib
from typing import Any

_SPACE = float(2**64)


def sampled(prediction_id: str, rate: float) -> bool:
    """Whether a false label of this prediction is taught; the same for every replay."""
    if rate >= 1:
        return True
    digest = hashlib.blake2b(prediction_id.encode(), digest_size=8, person=b"negative").digest()
    return int.from_bytes(digest, "big") / _SPACE < rate


def corrected(probability: Any, rate: Any) -> Any:
    """The probability (a float, or a tensor of them; so may be `rate`) of true for a model that was taught `rate` of the false labels: its odds times `rate`."""
    return rate * probability / (rate * probability + 1.0 - probability)


def importance(label: bool, probability: float, late_share: float) -> float:
    """The weight that makes the taught stream count as the true one.

    Of an event that is true with `probability` p, the part `late_share` s comes after false was taught. The taught
    stream then holds, of 1 + s p examples, p true ones and 1 - (1 - s) p false ones.

    Args:
        label: what is taught.
        probability: of true, as predicted.
        late_share: see `Join.late_share`.
    """
    late = late_share * probability
    if label:
        return 1.0 + late
    return (1.0 - probability) * (1.0 + late) / (1.0 - (1.0 - late_share) * probability) if probability < 1 else 0.0
