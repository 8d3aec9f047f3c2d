"""Whatever a body holds, it is rows or a refusal that says why; never anything else."""

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from serving.oip.fields import inputs
from serving.oip.request import HEADER_LENGTH, RequestParser
from serving.oip.tensors import FIXED
from serving.problems import Problem
from tests.core.worlds import CONTRACT
from tests.serving.oip.world import as_binary, binary_body, tensors

PARSER = RequestParser(CONTRACT, 8)
BODY, HEADERS = binary_body([one if one["name"] == "tail" else as_binary(one) for one in tensors()])
LENGTH = HEADERS[HEADER_LENGTH]
NAMES = [field.name for field in inputs(CONTRACT)]

ELEMENT = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
JSON = st.recursive(ELEMENT, lambda inner: st.lists(inner, max_size=3), max_leaves=6)
PARAMETERS = st.none() | st.dictionaries(st.sampled_from(["binary_data_size", "x"]), JSON, max_size=2)
TENSOR = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(NAMES) | JSON,
        "shape": st.lists(st.integers(0, 3), max_size=3) | JSON,
        "datatype": st.sampled_from([*FIXED, "BYTES"]) | JSON,
        "parameters": PARAMETERS,
        "data": JSON,
    },
)
REQUEST = st.fixed_dictionaries(
    {"inputs": st.lists(TENSOR, max_size=4) | JSON},
    optional={"id": JSON, "parameters": PARAMETERS, "outputs": st.lists(TENSOR, max_size=2) | JSON},
)


def rows_or_refusal(body: bytes, header_length: str | None) -> None:
    refused: Problem | None = None
    rows = 0
    try:
        rows = len(PARSER.parse(body, header_length).rows)
    except Problem as problem:
        refused = problem
    assert 1 <= rows <= 8 if refused is None else refused.status in (400, 413)


def test_the_unchanged_body_is_rows() -> None:
    assert len(PARSER.parse(BODY, LENGTH).rows) == 6


@given(st.integers(0, len(BODY) - 1), st.binary(max_size=9), st.integers(0, 9))
def test_changed_bytes(at: int, inserted: bytes, removed: int) -> None:
    rows_or_refusal(BODY[:at] + inserted + BODY[at + removed :], LENGTH)


@given(REQUEST, st.binary(max_size=40), st.booleans())
def test_other_json(request: dict[str, Any], binary: bytes, with_header: bool) -> None:
    text = msgspec.json.encode(request)
    rows_or_refusal(text + binary, str(len(text)) if with_header else None)


@given(st.integers(0, len(NAMES) - 1), TENSOR)
def test_one_tensor_is_another(i: int, changes: dict[str, Any]) -> None:
    heads: list[dict[str, Any]] = tensors()
    heads[i] = heads[i] | changes
    rows_or_refusal(msgspec.json.encode({"inputs": heads}), None)
