import math

import pytest
from starlette.datastructures import Headers

from serving.answers import ANY, Wish
from serving.consistency import both, wish
from serving.problems import Problem


def test_without_headers_any_version_will_do() -> None:
    assert wish(Headers({"accept": "*/*"})) == ANY


def test_each_header_is_one_demand() -> None:
    headers = {"X-Min-Model-Version": "7", "X-Max-Staleness": "0.5", "X-On-Conflict": "409"}
    assert wish(Headers(headers)) == Wish(min_version=7, max_staleness=0.5, conflict=True)
    assert wish(Headers({"x-on-conflict": "503"})) == ANY
    assert wish(Headers({"x-min-model-version": "0", "x-max-staleness": " 30 "})) == Wish(max_staleness=30.0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("X-Min-Model-Version", v) for v in ("", "-1", "+1", "01", "1.0", "1e3", "1_0", "v1", "²", "9" * 20, "1,2")),
        *(
            ("X-Max-Staleness", v)
            for v in ("", "0", "0.0", "-1", "nan", "inf", "1e3", "1_0", ".5", "5.", "9" * 13, "²")
        ),
        *(("X-On-Conflict", v) for v in ("", "400", "0409", "409.0", "yes")),
    ],
)
def test_a_header_of_another_form_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(Problem) as caught:
        wish(Headers({name: value}))
    assert (caught.value.status, caught.value.reason, caught.value.more) == (400, "invalid_header", {"header": name})


def test_a_repeated_header_is_refused() -> None:
    raw = [(b"x-min-model-version", b"1"), (b"x-min-model-version", b"1")]
    with pytest.raises(Problem, match="more than once"):
        wish(Headers(raw=raw))


def test_of_two_wishes_both_are_granted() -> None:
    one = Wish(version=3, min_version=2, max_staleness=5.0)
    other = Wish(min_version=1, max_staleness=math.inf, conflict=True)
    expected = Wish(version=3, min_version=2, max_staleness=5.0, conflict=True)
    assert both(one, other) == both(other, one) == expected
    assert both(one, ANY) == one
