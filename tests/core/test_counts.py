"""How much a row counts: a service that is calibrated scores alike whether or not false labels were sampled away."""

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stream_trainer import learning, offsets
from stream_trainer import lineage as lineages
from stream_trainer.decode import decode
from stream_trainer.evaluation.calibration import calibration_error, roc_auc
from stream_trainer.evaluation.counts import LARGEST, Counted, counted, fair
from stream_trainer.joining.weights import sampled
from stream_trainer.learning import Cut
from stream_trainer.prequential import Answers, Prequential
from tests.core.test_microbatch import PIPELINE
from tests.core.worlds import CONTRACT, NOW, TOPIC, MemoryLog, flight, json_bytes, kafka_batch

RATE = 0.1
ROWS = 4_500
SEGMENT = "left"


class Stream:
    """Rows whose probability of true is known: 3 % on average, and five times as likely in one of two segments."""

    def __init__(self, rows: int = ROWS, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.left = rng.random(rows) < 0.5
        self.chance = np.clip(rng.beta(2, 98, rows) * np.where(self.left, 2.5, 0.5), 1e-4, 0.9)
        self.label = rng.random(rows) < self.chance
        self.taught = self.label | np.array([sampled(f"p{seed}-{i}", RATE) for i in range(rows)])

    @property
    def learned(self) -> Any:
        """What a perfect model of the sampled stream says."""
        return self.chance / (self.chance + RATE * (1 - self.chance))


def scored(stream: Stream, chosen: Any, outputs: Any, counts: Counted | None) -> dict[str, Any]:
    fresh = Prequential.fresh("binary", 1, segments=1).at_version(1)
    answers = Answers(versions=np.ones(chosen.sum(), dtype=np.int64), outputs=stream.chance[chosen])
    names = np.where(stream.left, SEGMENT, "right")[chosen].tolist()
    labels = torch.tensor(stream.label[chosen].astype(np.float64))
    found, _ = fresh.score(torch.tensor(outputs[chosen]), labels, answers=answers, segments=[names], counted=counts)
    part = found.served.codes[:, 0] == found.segments.values[0].index(SEGMENT)
    return found.metrics() | {"part": found.served.over(part), "bins": found.served.reliability()}


@pytest.mark.parametrize("seed", range(3))
def test_a_calibrated_service_scores_alike_with_and_without_sampling(seed: int) -> None:
    stream = Stream(seed=seed)
    whole = scored(stream, np.ones(ROWS, dtype=np.bool_), stream.chance, None)
    taught = stream.taught
    said = Counted(weights=np.ones(taught.sum()), rates=np.full(taught.sum(), RATE))
    found = scored(stream, taught, stream.learned, said)
    assert 0 < found["rows"] < ROWS / 4
    for one, other in ((found["served"], whole["served"]), (found, whole), (found["part"], whole["part"])):
        assert one["log_loss"] == pytest.approx(other["log_loss"], rel=0.1)
        assert one["accuracy"] == pytest.approx(other["accuracy"], abs=0.01)
        assert one["ece"] == pytest.approx(other["ece"], abs=0.01)
        assert one["ece"] < 0.015
        assert one["roc_auc"] == pytest.approx(other["roc_auc"], abs=0.08)  # a standard error of 0.03
        assert one["majority"]["log_loss"] == pytest.approx(other["majority"]["log_loss"], rel=0.1)
    assert found["log_loss"] == pytest.approx(found["served"]["log_loss"], rel=1e-5)
    assert found["since_start"]["log_loss"] == pytest.approx(found["log_loss"], rel=1e-5)
    assert sum(one.weight for one in found["bins"]) == pytest.approx(ROWS, rel=0.1)
    assert sum(one.rows for one in found["bins"]) == taught.sum()


def test_without_the_rate_it_would_be_far_off() -> None:
    stream = Stream()
    found = scored(stream, stream.taught, stream.learned, None)
    assert found["served"]["ece"] > 0.1


def test_a_majority_knows_what_the_rows_stand_for() -> None:
    stream = Stream()
    labels, taught = torch.tensor(stream.label[stream.taught].astype(np.float64)), int(stream.taught.sum())
    said = Counted(weights=np.ones(taught), rates=np.full(taught, RATE))
    found, _ = Prequential.fresh("binary", 1).score(torch.full((taught,), 0.5), labels, counted=said)
    share = (found.known[-1] + 1) / (found.known[-2:].sum() + 2)
    assert share == pytest.approx(stream.label.mean(), rel=0.1)


def test_what_learning_starts_from_is_not_weighted() -> None:
    outputs, labels = torch.tensor([0.5, 0.25]), torch.tensor([1.0, 0.0], dtype=torch.float64)
    plain = Prequential.fresh("binary", 1).score(outputs, labels)[1]
    said = Counted(weights=np.array([3.0, 1.0]), rates=np.full(2, RATE))
    assert Prequential.fresh("binary", 1).score(outputs, labels, counted=said)[1] == plain


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans(), st.integers(0, 3)), max_size=30))
def test_a_weight_is_so_many_rows(drawn: list[tuple[float, bool, int]]) -> None:
    forecast, outcome, weight = (np.array([float(row[i]) for row in drawn]) for i in range(3))
    times = weight.astype(int)
    often = np.repeat(forecast, times), np.repeat(outcome, times)
    assert calibration_error(forecast, outcome, weight) == pytest.approx(calibration_error(*often), abs=1e-9)
    area = roc_auc(*often)
    assert roc_auc(forecast, outcome, weight) == (None if area is None else pytest.approx(area))


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_rows_of_a_weight_score_as_so_many_rows(task: Any) -> None:
    rng, width = np.random.default_rng(1), 3 if task == "multiclass" else 1
    y = rng.integers(0, 2, 40).astype(np.float64)
    p = rng.dirichlet(np.ones(3), 40) if task == "multiclass" else rng.random(40)
    times = rng.integers(0, 4, 40)
    said = Counted(weights=times.astype(np.float64), rates=np.ones(40))
    fresh = Prequential.fresh(task, width).score(torch.tensor(p[:1]), torch.tensor(y[:1]))[0]
    found = fresh.score(torch.tensor(p), torch.tensor(y), counted=said)[0].metrics()
    often = fresh.score(torch.tensor(np.repeat(p, times, 0)), torch.tensor(np.repeat(y, times)))[0].metrics()
    for forecaster in (None, "no_change", "majority"):
        one, other = (m if forecaster is None else m[forecaster] for m in (found, often))
        plain = {k: v for k, v in one.items() if isinstance(v, float)}
        assert plain == pytest.approx({k: other[k] for k in plain}, abs=1e-6)


def test_a_row_counts_a_million_times_at_most_and_never_as_no_number() -> None:
    said = Counted(weights=np.array([3e38, 0.0, 1.0]), rates=np.array([1.0, 5e-324, 1e-300]))
    assert said.each(np.zeros(3)).tolist() == [LARGEST, 0.0, LARGEST]


def table(*fields: dict[str, Any]) -> tuple[pa.Table, Cut]:
    log = MemoryLog({0: []})
    log.append(0, *(flight(i, **more) for i, more in enumerate(fields)))
    cut = Cut(ranges=offsets.ranges_between({TOPIC: {0: 0}}, log.ends()), covered_at=NOW)
    return log.fetch(cut), cut


def test_examples_say_what_they_count_and_old_ones_count_once() -> None:
    rows, _ = table({"_negative_rate": 0.5}, {"_weight": 3.0}, {})
    said = counted("binary", rows)
    assert said is not None
    assert (said.weights.tolist(), said.rates.tolist()) == ([1.0, 3.0, 1.0], [0.5, 1.0, 1.0])
    assert counted("binary", table({}, {})[0]) is None
    assert counted("binary", rows.drop_columns(["_weight", "_negative_rate"])) is None
    assert counted("multiclass", table({"_negative_rate": 0.5})[0]) is None


@pytest.mark.parametrize("rate", [0, -0.1, 1.5, "0.5"])
def test_a_rate_that_makes_no_sense_is_rejected(rate: Any) -> None:
    batch = decode(CONTRACT, kafka_batch([json_bytes(flight(0, _negative_rate=rate))]))
    assert batch.column("_reason")[0].as_py() is not None


def test_a_lineage_scores_what_its_examples_say() -> None:
    """Two false rows, one of them sampled at a tenth: together they count 11."""
    answer = {"_model_version": 1, "late": False}
    rows, cut = table(answer | {"_output": 0.0, "_negative_rate": 0.1}, answer | {"_output": 0.9})
    lineage = learning.learn(PIPELINE, lineages.fresh(PIPELINE, {TOPIC: {0: 0}}), cut, rows)
    served = lineage.prequential.metrics()["served"]
    assert served["accuracy"] == pytest.approx(10 / 11)
    assert served["log_loss"] == pytest.approx(-np.log(0.1) / 11)


def of_stream(stream: Stream) -> pa.RecordBatch:
    """The taught rows, decoded."""
    more: dict[str, Any] = {"_negative_rate": RATE, "_model_version": 1}
    values = [
        json_bytes(flight(0, late=bool(stream.label[i]), _output=float(stream.chance[i]), **more))
        for i in np.flatnonzero(stream.taught).tolist()
    ]
    return decode(CONTRACT, kafka_batch(values))


def test_a_fair_sample_has_the_labels_of_the_stream_and_false_rows_stay() -> None:
    stream = Stream(30_000)
    rows = of_stream(stream)
    kept = fair("binary", "late", rows)
    labels = kept.column("late").to_numpy(zero_copy_only=False)
    assert (labels == 0).sum() == (stream.taught & ~stream.label).sum()
    assert labels.mean() == pytest.approx(stream.label.mean(), rel=0.25)  # some 90 true rows: a standard error of 10 %
    parts = pa.concat_batches([fair("binary", "late", rows.slice(0, 700)), fair("binary", "late", rows.slice(700))])
    assert parts.equals(kept)


def test_of_rows_that_count_once_all_are_kept_as_they_are() -> None:
    rows = decode(CONTRACT, kafka_batch([json_bytes(flight(i)) for i in range(5)]))
    assert fair("binary", "late", rows) is rows


def test_a_weight_leaves_as_many_rows_on_average() -> None:
    values = [json_bytes(flight(0, _weight=2.5)) for _ in range(2_000)]
    kept = fair("binary", "late", decode(CONTRACT, kafka_batch(values)))
    assert kept.num_rows == pytest.approx(5_000, rel=0.02)
    absurd = decode(CONTRACT, kafka_batch([json_bytes(flight(0, _weight=3e38)), json_bytes(flight(0, _weight=0))]))
    assert fair("binary", "late", absurd).num_rows == 1_000


def test_what_is_learned_of_the_distribution_is_of_the_rows_that_were_asked() -> None:
    stream = Stream(8_000)
    log = MemoryLog({0: []})
    for i in np.flatnonzero(stream.taught).tolist():
        said = {"_negative_rate": RATE, "_model_version": 1, "_output": float(stream.chance[i])}
        log.append(0, flight(0, late=bool(stream.label[i]), distance=5_000.0 * bool(stream.label[i]), **said))
    cut = Cut(ranges=offsets.ranges_between({TOPIC: {0: 0}}, log.ends()), covered_at=NOW)
    pipeline = replace(PIPELINE, reference_rows=10_000)
    lineage = learning.learn(pipeline, lineages.fresh(pipeline, {TOPIC: {0: 0}}), cut, log.fetch(cut))
    baseline = lineage.seen.baseline
    assert baseline is not None
    far = np.array(baseline.column("distance").to_pylist()) > 0
    assert far.mean() == pytest.approx(stream.label.mean(), rel=0.5)  # some 24 true rows: a standard error of 20 %
    assert stream.label[stream.taught].mean() > 4 * stream.label.mean()
