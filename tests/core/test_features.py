import math
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stream_trainer.contract import BinaryLabel, Categorical, Contract
from stream_trainer.decode import decode
from stream_trainer.features import Standardiser, encode, feature_spec, hash_bucket
from stream_trainer.schema import struct_type, to_columns
from tests.core.test_decode import RECORDS
from tests.core.worlds import CONTRACT, GOOD, changed, json_bytes, kafka_batch, without

REQUEST = struct_type(CONTRACT, "request")


def from_topic(*records: dict[str, Any], contract: Contract = CONTRACT) -> Tensor:
    batch = decode(contract, kafka_batch([json_bytes(r) for r in records]))
    return encode(contract, {f.name: batch.column(f.name) for f in contract.features})


def from_requests(*records: dict[str, Any]) -> Tensor:
    parsed = [msgspec.json.decode(json_bytes(r), type=REQUEST) for r in records]
    return encode(CONTRACT, to_columns(CONTRACT, "request", parsed))


def test_the_layout_follows_the_contract() -> None:
    spec = feature_spec(CONTRACT)
    assert spec.columns == (
        "distance",
        "pressure",
        "pressure?",
        "carrier=AA",
        "carrier=UA",
        "carrier=*",
        *(f"tail#{i}" for i in range(8)),
        "place[0]",
        "place[1]",
    )
    assert spec.scaled == (True, True, False, *(False,) * 11, True, True)
    assert (spec.task, spec.outputs, spec.width) == ("binary", 1, 16)


def test_each_value_stands_in_its_column() -> None:
    (row,) = from_topic(GOOD).tolist()
    named = dict(zip(feature_spec(CONTRACT).columns, row, strict=True))
    hot = f"tail#{hash_bucket('N123', 8)}"
    expected = {"distance": 250.5, "pressure": 1013.0, "carrier=AA": 1.0, hot: 1.0, "place[0]": 1.0, "place[1]": -2.0}
    assert {name: value for name, value in named.items() if value} == expected


def test_an_unseen_word_is_other() -> None:
    row = from_topic(changed(carrier="ZZ"))[0]
    assert row[3:6].tolist() == [0.0, 0.0, 1.0]


def test_what_is_missing_is_marked_and_a_missing_category_has_no_one() -> None:
    rows = from_topic(without("pressure", "tail"), GOOD)
    assert math.isnan(rows[0, 1])
    assert rows[:, 2].tolist() == [1.0, 0.0]
    assert rows[0, 6:14].sum() == 0.0
    assert rows[1, 6:14].sum() == 1.0


@pytest.mark.parametrize(
    ("text", "buckets", "bucket"),
    [("", 64, 36), ("AA", 64, 4), ("AA", 2, 0), ("UA", 1000003, 222910), ("Zürich", 64, 48), ("a\x00b", 64, 63)],
)
def test_a_word_hashes_to_the_bucket_it_always_had(text: str, buckets: int, bucket: int) -> None:
    assert hash_bucket(text, buckets) == bucket


def test_a_vocabulary_may_hold_any_text() -> None:
    odd = Contract(
        features=[Categorical("c", vocabulary=["", "a\0b", "*"])], label=BinaryLabel("y"), key="k", event_time="t"
    )
    record = {"y": 1, "k": "k", "t": 0}
    rows = from_topic(*({**record, "c": word} for word in ("", "a\0b", "*", "a")), contract=odd)
    assert torch.equal(rows, torch.eye(4, dtype=torch.float64))


def test_no_rows_give_an_empty_tensor_of_full_width() -> None:
    assert encode(CONTRACT, to_columns(CONTRACT, "request", [])).shape == (0, 16)


def test_a_slice_of_columns_gives_the_rows_of_the_slice() -> None:
    columns = to_columns(
        CONTRACT, "request", [msgspec.convert(changed(distance=i, place=[i, i]), REQUEST) for i in range(6)]
    )
    whole = encode(CONTRACT, columns)
    part = encode(CONTRACT, {name: column.slice(2, 3) for name, column in columns.items()})
    assert torch.equal(whole[2:5], part)


@given(st.lists(RECORDS, min_size=1, max_size=6))
@settings(deadline=None)
def test_a_record_means_the_same_bits_in_training_and_in_serving(records: list[dict[str, Any]]) -> None:
    trained, served = from_topic(*records), from_requests(*records)
    assert trained.dtype == served.dtype == torch.float64
    assert trained.numpy().tobytes() == served.numpy().tobytes()


# --- Standardiser ---

FINITE = st.floats(-1e6, 1e6)
COLUMNS = st.lists(st.lists(FINITE | st.just(math.nan), max_size=20), min_size=1, max_size=5)


def learned(*batches: list[float], window: int = 10**9) -> Standardiser:
    zero = torch.zeros(1, dtype=torch.float64)
    found = Standardiser(zero, zero, zero, window)
    for batch in batches:
        found = found.update(torch.tensor(batch, dtype=torch.float64).reshape(-1, 1))
    return found


@given(COLUMNS)
@settings(deadline=None)
def test_batches_add_up_to_the_mean_and_variance_of_all(batches: list[list[float]]) -> None:
    found = learned(*batches)
    known = np.array([v for batch in batches for v in batch if not math.isnan(v)])
    assert found.count.item() == len(known)
    if len(known):
        assert found.mean.item() == pytest.approx(known.mean(), rel=1e-9, abs=1e-6)
        assert found.m2.item() / len(known) == pytest.approx(known.var(), rel=1e-6, abs=1e-3)


def test_a_constant_column_never_gets_a_negative_variance_and_scales_to_zero() -> None:
    found = learned(*[[0.1] * 7] * 50)
    assert found.m2.item() >= 0.0
    assert found.scale(torch.full((2, 1), 0.1, dtype=torch.float64), (True,)).abs().max() < 1e-6


def test_a_large_offset_does_not_hide_a_small_spread() -> None:
    found = learned([1e9, 1e9 + 2], [1e9 + 1, 1e9 + 1])
    assert found.m2.item() == pytest.approx(2.0)


def test_an_empty_batch_changes_nothing() -> None:
    before = learned([1.0, 2.0, 4.0])
    after = before.update(torch.zeros((0, 1), dtype=torch.float64))
    assert (after.count, after.mean, after.m2) == (before.count, before.mean, before.m2)


def test_a_missing_number_takes_no_part_and_scales_to_the_mean() -> None:
    found = learned([1.0, math.nan, 3.0])
    assert (found.count.item(), found.mean.item()) == (2.0, 2.0)
    assert found.scale(torch.tensor([[math.nan]], dtype=torch.float64), (True,)).item() == 0.0


def test_a_column_of_which_nothing_was_ever_seen_stays_finite() -> None:
    found = learned([math.nan], [math.nan])
    assert found.scale(torch.tensor([[2.0]], dtype=torch.float64), (True,)).item() == 2.0


def test_old_rows_fade_once_the_window_is_full() -> None:
    found = learned([0.0] * 100, *[[10.0] * 100] * 20, window=200)
    assert found.count.item() <= 300
    assert found.mean.item() > 9.9
    assert learned([0.0] * 100, *[[10.0] * 100] * 20).mean.item() == pytest.approx(2000 / 210, rel=1e-6)


def test_the_largest_numbers_stay_finite() -> None:
    big = 3.4e38
    found = learned([big, -big], [big] * 10)
    assert all(torch.isfinite(t).all() for t in (found.count, found.mean, found.m2))
    assert torch.isfinite(found.scale(torch.tensor([[big], [-big]], dtype=torch.float64), (True,))).all()


def test_scaling_clips_and_leaves_the_other_columns_alone() -> None:
    spec_rows = torch.tensor([[1e9, 1.0]], dtype=torch.float64)
    found = Standardiser.fresh(2).update(torch.tensor([[0.0, 0.0], [2.0, 1.0]], dtype=torch.float64))
    scaled = found.scale(spec_rows, (True, False))
    assert scaled.tolist() == [[8.0, 1.0]]
    assert scaled.dtype == torch.float32


def test_updating_leaves_the_given_value_alone() -> None:
    before = learned([1.0, 2.0])
    kept = (before.count.clone(), before.mean.clone(), before.m2.clone())
    before.update(torch.tensor([[5.0]], dtype=torch.float64))
    assert (before.count, before.mean, before.m2) == kept


def test_an_all_missing_category_column_encodes() -> None:
    columns = to_columns(CONTRACT, "request", [msgspec.convert(changed(tail=None), REQUEST)] * 2)
    assert columns["tail"].null_count == 2
    assert encode(CONTRACT, columns | {"tail": pa.nulls(2, pa.string())})[:, 6:14].sum() == 0.0


def robustly(*batches: list[float], window: int = 5_000) -> Standardiser:
    found = Standardiser.fresh(1)
    for batch in batches:
        found = Standardiser(found.count, found.mean, found.m2, window)
        found = found.update(torch.tensor(batch, dtype=torch.float64)[:, None], robust=True)
    return found


def test_absurd_numbers_do_not_flatten_their_column() -> None:
    plain = [math.sin(n) for n in range(100)]
    spoiled = [*plain[:-2], 1e15, -1e15]
    for batches in ([spoiled] * 5, [plain, *[spoiled] * 30]):
        assert 0.5 < float(robustly(*batches).deviation()) < 3.0


def test_a_column_that_has_moved_is_followed() -> None:
    plain = [math.sin(n) for n in range(200)]
    moved = robustly(plain, *[[1_000.0 + 1_000.0 * x for x in plain]] * 200)
    assert float(moved.mean) == pytest.approx(1_000.0, rel=0.05)
    assert float(moved.deviation()) == pytest.approx(707.0, rel=0.1)


def test_a_constant_column_that_wakes_is_followed_at_once() -> None:
    assert float(robustly([3.0] * 50, [4.0] * 50).mean) == pytest.approx(3.5)


def test_few_rows_are_believed() -> None:
    assert float(robustly([1.0, 1.0, 100.0]).mean) == pytest.approx(34.0)
