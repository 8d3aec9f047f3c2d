"""Scores as series: what is told, and that it is bounded."""

import numpy as np
import torch

from stream_trainer.evaluation.series import MOST_SEGMENT_VALUES, scores_of, segment_scores
from stream_trainer.evaluation.table import evaluation
from stream_trainer.prequential import Answers, Prequential


def scored(rows: int, segments: list[list[str]], *, served: bool = True) -> Prequential:
    labels = torch.tensor([float(i % 2) for i in range(rows)], dtype=torch.float64)
    says = Answers(versions=np.ones(rows, dtype=np.int64), outputs=np.full(rows, 0.25))
    fresh = Prequential.fresh("binary", 1, segments=len(segments))
    answers = says if served else None
    return fresh.score(torch.full((rows,), 0.5), labels, answers=answers, segments=segments)[0]


def test_each_forecast_and_forecaster_tells_the_scores_it_has() -> None:
    metrics = scored(10, []).metrics()
    told = {score[:-1]: score.value for score in scores_of(metrics)}
    assert told["trained", "model", "log_loss"] == metrics["log_loss"]
    assert told["served", "model", "ece"] == metrics["served"]["ece"]
    assert told["served", "majority", "accuracy"] == metrics["served"]["majority"]["accuracy"]
    assert len(told) == 2 * 3 * 4
    assert {key[0] for key in (s[:-1] for s in scores_of(scored(10, [], served=False).metrics()))} == {"trained"}
    assert list(scores_of(Prequential.fresh("binary", 1).metrics())) == []


def test_strange_metrics_of_an_older_or_foreign_version_tell_nothing() -> None:
    assert list(scores_of({"rows": 5, "log_loss": "low", "majority": 3, "served": [1], "roc_auc": None})) == []


def test_however_many_segments_there_are_the_series_are_bounded() -> None:
    rows, count = 2_000, 9
    columns = [[f"{s}-{i % 20}" for i in range(rows)] for s in range(count)]
    names = [f"s{s}" for s in range(count)]
    table = evaluation(scored(rows, columns), names).to_pylist()
    told = segment_scores(table)
    assert len({(row["segment"], row["value"]) for row in table}) > 3 * MOST_SEGMENT_VALUES
    assert len({(score.segment, score.value) for score in told}) == MOST_SEGMENT_VALUES
    assert {score.forecast for score in told} == {"trained", "served"}
    kept = {
        tuple(row[n] for n in ("forecast", "segment", "value", "forecaster", "metric")): row["score"] for row in table
    }
    assert all(kept[score[:-1]] == score.score for score in told)
