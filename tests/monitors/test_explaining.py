"""The weight of a feature is its part in the change of the output: a model that uses one feature only shows which."""

import threading
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitors.baseline import Baseline, Frozen
from monitors.content import Content
from monitors.explaining import Explainer, given_back, ranked, samples_of, shares, weighed
from monitors.findings import Finding
from monitors.questions import Compared
from stream_trainer.contract import BinaryLabel, Categorical, Contract, Numeric, Vector
from stream_trainer.features import encode, feature_spec
from stream_trainer.learner import answer
from stream_trainer.pipeline import Pipeline
from stream_trainer.reference import Reference, table_to_bytes
from stream_trainer.reference.bins import Bins

CONTRACT = Contract(
    features=[
        Numeric("used"),
        Numeric("unused", optional=True),
        Categorical("word", vocabulary=["a", "b", "c"]),
        Vector("place", 2),
    ],
    label=BinaryLabel("late"),
    key="id",
    event_time="at",
)
ROWS = 1_500


def table(seed: int, *, used: float = 0.0, unused: float = 0.0, words: str = "aab") -> pa.Table:
    rng = np.random.default_rng(seed)
    common = rng.normal(size=ROWS)
    return pa.table(
        {
            "used": common + 0.5 * rng.normal(size=ROWS) + used,
            "unused": common + 0.5 * rng.normal(size=ROWS) + unused,
            "word": rng.choice(list(words), ROWS),
        }
    )


def by_used(columns: Any) -> np.ndarray[Any, Any]:
    values: np.ndarray[Any, Any] = 1 / (1 + np.exp(-columns["used"].to_numpy()))
    return values


def by_word(columns: Any) -> np.ndarray[Any, Any]:
    one = np.array([word == "c" for word in columns["word"].to_pylist()], dtype=np.float64)
    return np.stack([one, 1 - one], axis=1)


def explained(window: pa.Table, predict: Any = by_used, reference: pa.Table | None = None) -> dict[str, float]:
    samples = samples_of(CONTRACT, window, table(0) if reference is None else reference)
    assert samples is not None
    return shares(CONTRACT, samples, predict)


def test_a_model_of_one_feature_gives_that_feature_the_weight() -> None:
    found = explained(table(1, used=1.0, unused=3.0, words="ccc"))
    assert next(iter(found)) == "used"
    assert found["used"] > 0.95
    assert found["unused"] == found["word"] == 0
    assert "place" not in found


def test_a_word_can_carry_it_and_classes_are_outputs_too() -> None:
    found = explained(table(1, used=1.0, words="abc"), by_word)
    assert next(iter(found)) == "word"
    assert found["word"] > 0.95


def test_two_features_share_by_what_each_does() -> None:
    def both(columns: Any) -> Any:
        return 2 * columns["used"].to_numpy() + columns["unused"].to_numpy()

    found = explained(table(1, used=1.0, unused=1.0), both)
    assert list(found)[:2] == ["used", "unused"]
    assert found["used"] > 1.5 * found["unused"] > 0
    assert 0.9 < sum(found.values()) <= 1


@pytest.mark.parametrize("seed", range(5))
def test_where_the_output_has_not_changed_there_is_nothing_to_explain(seed: int) -> None:
    assert explained(table(seed + 1)) == {}
    assert explained(table(seed + 1, unused=5.0)) == {}
    assert explained(table(seed + 1), lambda columns: np.full(len(columns["used"]), 0.5)) == {}


def test_it_is_the_same_every_time() -> None:
    window = table(1, used=1.0, words="abc")
    assert explained(window, by_word) == explained(window, by_word)


def test_rows_that_no_model_takes_are_left_out_and_too_few_are_not_explained() -> None:
    window = table(1, used=1.0)
    gaps = pa.array([None if i % 2 else float(i) for i in range(ROWS)], pa.float64())
    samples = samples_of(CONTRACT, window.set_column(0, "used", gaps), table(0))
    assert samples is not None
    assert len(samples.window["used"]) == ROWS // 2
    assert samples_of(CONTRACT, window.set_column(1, "unused", gaps), table(0)) is not None
    assert samples_of(CONTRACT, window.slice(0, 99), table(0)) is None


@given(st.lists(st.floats(-5, 5) | st.none(), min_size=1, max_size=30), st.integers(1, 40))
def test_a_number_takes_the_distribution_of_the_reference_in_the_order_it_had(values: list[Any], rows: int) -> None:
    window = pa.array(np.arange(rows, dtype=np.float64)[::-1])
    found = given_back(Numeric("x", optional=True), window, pa.array(values, pa.float64()), np.random.default_rng(0))
    known = [v for v in found.to_pylist()[::-1] if v is not None]
    assert known == sorted(known)
    if rows % len(values) == 0:
        assert sorted(found.to_pylist(), key=repr) == sorted(values * (rows // len(values)), key=repr)


@given(
    st.lists(st.sampled_from("abc"), min_size=1, max_size=30),
    st.lists(st.sampled_from(["a", "b", "z", None]), min_size=1, max_size=30),
)
def test_words_take_the_counts_of_the_reference_and_no_more_rows_change_than_must(
    window: list[Any], reference: list[Any]
) -> None:
    found = given_back(
        Categorical("x", vocabulary=["a"]), pa.array(window), pa.array(reference, pa.string()), np.random.default_rng(0)
    ).to_pylist()
    for word in {*window, *reference}:
        assert abs(found.count(word) - reference.count(word) * len(window) / len(reference)) < 1
    surplus = sum(max(0, window.count(word) - found.count(word)) for word in set(window))
    assert sum(a != b for a, b in zip(window, found, strict=True)) == surplus


# With a learner of ours, and what may go wrong.


class Store:
    """Gives the state of a net that was never trained."""

    def __init__(self, pipeline: Pipeline, trouble: Exception | None = None) -> None:
        self._pipeline = pipeline
        self._trouble = trouble
        self.read_versions: list[int] = []

    def read(self, number: int) -> int:
        self.read_versions.append(number)
        if self._trouble is not None:
            raise self._trouble
        return number

    def load(self, _version: int, spec: Any, *, training: bool) -> Any:
        assert not training
        return self._pipeline.learner.init(spec, 3)


DRIFT = [
    Finding(kind="drift", feature="used", against="learned", state="drift"),
    Finding(kind="silence", feature="", against="limit", state="quiet"),
]


def explainer(trouble: Exception | None = None, **options: Any) -> tuple[Explainer, Store, list[str]]:
    pipeline = Pipeline(name="explained", contract=CONTRACT)
    store, counted = Store(pipeline, trouble), list[str]()
    return Explainer(pipeline, store, counted.append, **options), store, counted  # type: ignore[arg-type]


def test_the_pipelines_own_learner_and_feature_code_are_asked() -> None:
    explain, store, _ = explainer()
    predict = explain._predict(7)
    samples = samples_of(CONTRACT, table(1), table(0))
    assert samples is not None
    pipeline = Pipeline(name="explained", contract=CONTRACT)
    state = pipeline.learner.init(feature_spec(CONTRACT), 3)
    expected = answer(pipeline.learner, state, encode(CONTRACT, samples.window))
    assert np.array_equal(predict(samples.window), expected.double().numpy())
    assert store.read_versions == [7]


def frozen(window: pa.Table, key: int, table_: pa.Table | None = None) -> tuple[Content, Compared]:
    """A window and what it is compared with, as far as an explanation needs them; `key` tells windows apart."""
    kept = table(0) if table_ is None else table_
    bins = tuple(
        Bins(feature=name, kind="words", words=("a",), sample_words=tuple(kept.column(name).to_pylist()))
        if name == "word"
        else Bins(feature=name, kind="number", sample=tuple(kept.column(name).to_pylist()))
        for name in kept.column_names
    )
    reference = Frozen("digest", Reference(bins))
    served = Baseline(7, reference, np.zeros(0, np.int64))
    return Content(rows=key, sample=table_to_bytes(window)), Compared(frozen=reference, served=served)


def test_findings_get_the_weight_of_their_feature_and_a_window_is_explained_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    explain, _, counted = explainer()
    monkeypatch.setattr(explain, "_predict", lambda _version: by_used)
    for key in (1, 1, 2):
        weights = explain(DRIFT, *frozen(table(1, used=1.0), key))
        found = weighed(DRIFT, weights)
        assert found[0].weight is not None
        assert found[0].weight > 0.95
        assert found[1].weight is None
        assert ranked(weights)[0] == ("used", found[0].weight)
        assert {name for name, _ in ranked(weights)} == {"used", "unused", "word"}
    assert counted == ["explained", "explained"]
    quiet = [Finding(kind="drift", feature="used", against="learned", state="quiet")]
    assert explain(quiet, *frozen(table(1, used=1.0), 3)) == {}
    window, compared = frozen(table(1, used=1.0), 4)
    assert explain(DRIFT, Content(rows=4), compared) == {}
    assert explain(DRIFT, window, Compared(frozen=compared.frozen, served=None)) == {}
    assert counted == ["explained", "explained"]


@pytest.mark.parametrize("trouble", [OSError("the store is away"), ValueError("no such version")])
def test_a_failure_costs_the_explanation_only(trouble: Exception, caplog: pytest.LogCaptureFixture) -> None:
    explain, _, counted = explainer(trouble)
    assert explain(DRIFT, *frozen(table(1, used=1.0), 1)) == {}
    assert counted == ["failed"]
    assert str(trouble) in caplog.text


def test_a_sample_without_a_feature_and_a_model_that_answers_nan_are_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    explain, _, counted = explainer()
    assert explain(DRIFT, *frozen(table(1).drop_columns(["word"]), 1)) == {}
    monkeypatch.setattr(explain, "_predict", lambda _: lambda columns: np.full(len(columns["used"]), np.nan))
    assert explain(DRIFT, *frozen(table(1), 2)) == {}
    assert counted == ["failed", "failed"]


def test_a_model_that_never_answers_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    explain, _, counted = explainer(seconds=0.01)

    def hang(_version: int) -> Any:
        released.wait(60)
        return by_used

    monkeypatch.setattr(explain, "_predict", hang)
    try:
        for key in (1, 2):  # the second does not even start
            assert explain(DRIFT, *frozen(table(1), key)) == {}
    finally:
        released.set()
        busy = explain._busy
        assert busy is not None
        busy.join(30)
    assert counted == ["failed", "failed"]
