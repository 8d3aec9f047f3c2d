"""Rows as River takes them: a dictionary each. A missing number is left out; a missing category too.

Trees are given a category as its code, a number, as River's own generators give it: from texts, split as nominal values,
they learned worse (HAT on STAGGER 83 % instead of 93 %, ARF on Agrawal 78 % instead of 87 %). Linear learners and nets
are given one 0/1 feature for each word, and numbers scaled by River's running mean and variance.
"""

from typing import Any

import numpy as np

from tests.bench.learning.scores import Forecast
from tests.bench.learning.stream import Floats, Stream

Row = dict[str, Any]


def plain(stream: Stream, x: Floats) -> list[Row]:
    """For trees."""
    names = [column.name for column in stream.columns]
    return [{name: v for name, v in zip(names, values, strict=True) if v == v} for values in x.tolist()]  # noqa: PLR0124 - NaN alone is unequal to itself


def numbers(stream: Stream, x: Floats) -> list[Row]:
    """What a scaler sees."""
    wanted = [at for at, column in enumerate(stream.columns) if column.words is None]
    names = [stream.columns[at].name for at in wanted]
    return [{name: v for name, v in zip(names, values, strict=True) if v == v} for values in x[:, wanted].tolist()]  # noqa: PLR0124


def indicators(stream: Stream, x: Floats, *, dense: bool) -> list[Row]:
    """One 1 for each category; with `dense` the zeros too, for nets of a fixed width."""
    columns = [(at, c.name, c.words) for at, c in enumerate(stream.columns) if c.words is not None]
    zeros: Row = {f"{name}={word}": 0.0 for _, name, words in columns for word in words} if dense else {}
    found = []
    for values in x:
        present = [(name, words[int(values[at])]) for at, name, words in columns if not np.isnan(values[at])]
        found.append(zeros | {f"{name}={word}": 1.0 for name, word in present})
    return found


def label(stream: Stream, value: float) -> Any:
    """As River names it: True and False, the code of a class, or a number."""
    match stream.task:
        case "binary":
            return bool(value)
        case "multiclass":
            return int(value)
        case "regression":
            return value


def forecast(stream: Stream, answers: list[Any]) -> Forecast:
    """From what `predict_proba_one` or `predict_one` gave: a class that was not named has probability 0."""
    if stream.task == "regression":
        return Forecast(values=np.array(answers, dtype=np.float64))
    values = np.zeros((len(answers), stream.outputs))
    for row, shares in enumerate(answers):
        for name, share in shares.items():
            if not isinstance(name, str):  # deep-river's name for a class that it has not seen
                values[row, int(name)] = share
    return Forecast(values=values)
