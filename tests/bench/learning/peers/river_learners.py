"""River's learners with the settings that River gives them; ten trees an ensemble."""

import sys
from typing import Any

from river import ensemble, forest, linear_model, multiclass, preprocessing, tree

from tests.bench.learning import worker
from tests.bench.learning.peers import rows as r
from tests.bench.learning.scores import Forecast
from tests.bench.learning.stream import Floats, Stream

_TREES = 10


class Trees:
    """One that takes rows as they are."""

    def __init__(self, stream: Stream, model: Any) -> None:
        self.stream = stream
        self.model = model

    def take(self, x: Floats) -> list[r.Row]:
        return r.plain(self.stream, x)

    def predict(self, rows: list[r.Row]) -> Forecast:
        ask = self.model.predict_one if self.stream.task == "regression" else self.model.predict_proba_one
        return r.forecast(self.stream, [ask(row) for row in rows])

    def learn(self, rows: list[r.Row], y: Floats) -> None:
        for row, value in zip(rows, y.tolist(), strict=True):
            self.model.learn_one(row, r.label(self.stream, value))


class Scaled:
    """`StandardScaler` over the numbers, then a model; the scaler learns a row just before the model does."""

    def __init__(self, stream: Stream, model: Any, *, dense: bool = False) -> None:
        self.stream = stream
        self.model = model
        self.dense = dense
        self.scaler = preprocessing.StandardScaler()

    def take(self, x: Floats) -> list[tuple[r.Row, r.Row]]:
        plain = r.numbers(self.stream, x)
        return list(zip(plain, r.indicators(self.stream, x, dense=self.dense), strict=True))

    def predict(self, rows: list[tuple[r.Row, r.Row]]) -> Forecast:
        ask = self.model.predict_one if self.stream.task == "regression" else self.model.predict_proba_one
        return r.forecast(self.stream, [ask(self._scaled(*row)) for row in rows])

    def learn(self, rows: list[tuple[r.Row, r.Row]], y: Floats) -> None:
        for row, value in zip(rows, y.tolist(), strict=True):
            self.scaler.learn_one(row[0])
            self.model.learn_one(self._scaled(*row), r.label(self.stream, value))

    def _scaled(self, plain: r.Row, ones: r.Row) -> r.Row:
        scaled = self.scaler.transform_one(plain)
        if self.dense and len(plain) < self._numbers:
            scaled = {c.name: scaled.get(c.name, 0.0) for c in self.stream.columns if c.words is None}
        return {**scaled, **ones}

    @property
    def _numbers(self) -> int:
        return sum(c.words is None for c in self.stream.columns)


def build(name: str, stream: Stream, seed: int) -> Trees | Scaled:
    """A fresh learner; `seed` for the ones that draw numbers."""
    return (
        Scaled(stream, _linear(name, stream)) if name in ("LR", "ALMA") else Trees(stream, _trees(name, stream, seed))
    )


def _linear(name: str, stream: Stream) -> Any:
    match name, stream.task:
        case "LR", "regression":
            return linear_model.LinearRegression()
        case "LR", "multiclass":
            return linear_model.SoftmaxRegression()
        case "LR", _:
            return linear_model.LogisticRegression()
        case "ALMA", "multiclass":
            return multiclass.OneVsRestClassifier(linear_model.ALMAClassifier())
        case _:
            return linear_model.ALMAClassifier()


def _trees(name: str, stream: Stream, seed: int) -> Any:
    match name, stream.task:
        case "HAT", "regression":
            return tree.HoeffdingAdaptiveTreeRegressor(seed=seed)
        case "HAT", _:
            return tree.HoeffdingAdaptiveTreeClassifier(seed=seed)
        case "ARF10", "regression":
            return forest.ARFRegressor(n_models=_TREES, seed=seed)
        case "ARF10", _:
            return forest.ARFClassifier(n_models=_TREES, seed=seed)
        case "LevBag", _:
            return ensemble.LeveragingBaggingClassifier(tree.HoeffdingTreeClassifier(), n_models=_TREES, seed=seed)
    raise ValueError(f"no learner is called {name}")


if __name__ == "__main__":
    worker.main(sys.argv[1], build)
