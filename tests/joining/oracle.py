"""What has to come of a log of predictions and labels, by the rules of docs/joining.md and none of the joiner's code.

For `on="prediction_id"` without `late_share`, labels of one id in one partition.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple


class Told(NamedTuple):
    """A label as it stands in the log."""

    position: str
    name: str
    at: int
    value: Any


def expected(
    predictions: Mapping[str, int], labels: Iterable[Told], *, horizon: int, kept: int, on_timeout: Any
) -> dict[str, Any]:
    """The value of each example, and the reason of each label in `P.unmatched`, by id.

    `predictions` are append times by id, `labels` in the order of their offsets.
    """
    found: dict[str, Any] = {}
    of: defaultdict[str, list[Told]] = defaultdict(list)
    for label in labels:
        of[label.name].append(label)
    for name, told in of.items():
        newest = None
        for label in told:
            delay = label.at - predictions[name] if name in predictions else None
            if delay is None or delay < -horizon or delay > horizon + kept:
                found[label.position] = "orphan"
            elif newest is not None and newest == label.value:
                found[label.position] = "duplicate"
            elif delay > horizon:
                found[label.position] = "late"
            else:
                found[f"{name}:{label.position}"] = newest = label.value
    if on_timeout is not None:
        for name, at in predictions.items():
            if not any(abs(label.at - at) <= horizon for label in of[name]):
                found[f"{name}:timeout"] = on_timeout
    return found
