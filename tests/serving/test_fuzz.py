"""S16: nothing that can be drawn from the OpenAPI document gets an answer that the document does not describe."""

from collections import Counter
from pathlib import Path

import pytest

from tests.faults.fuzz import section
from tests.serving.fuzz import MANY, app_with, asked, asked_many


@pytest.mark.parametrize("versions", [0, 1])
def test_s16_no_request_gets_an_answer_that_is_not_described(tmp_path: Path, versions: int) -> None:
    statuses = asked(app_with(tmp_path, versions), 80, 1)
    assert statuses.total() > 500
    assert statuses[400] + statuses[422] > 100  # many reach what reads their bodies


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_s16_ten_thousand_requests_get_no_answer_that_is_not_described(tmp_path: Path) -> None:
    assert asked_many(tmp_path, 0).total() >= MANY


def test_s16_the_report_counts_every_request_and_names_what_was_busy() -> None:
    found = section(Counter({200: 6_000, 422: 3_000, 404: 990, 409: 7, 503: 3}))
    assert list(found.rows) == [["10,000", "6,000", "3,997", "3", "0"]]


def test_s16_a_failure_of_the_service_is_no_report() -> None:
    with pytest.raises(AssertionError, match="500"):
        section(Counter({200: 1, 500: 1}))
