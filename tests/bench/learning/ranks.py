"""Ranks from 1, the best; those that are equal share the mean of their places."""

from collections.abc import Mapping


def ranked(values: Mapping[str, float | None], *, higher_is_better: bool) -> dict[str, float]:
    """None (did not finish) comes last."""
    worst = float("inf")
    keys = {name: worst if v is None else -v if higher_is_better else v for name, v in values.items()}
    order = list(keys.values())
    return {
        name: 1.0 + sum(other < key for other in order) + (sum(other == key for other in order) - 1) / 2.0
        for name, key in keys.items()
    }
