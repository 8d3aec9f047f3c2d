import json

import pytest

from stream_trainer.problems import problem_body


def test_a_problem_has_the_members_of_rfc_9457_its_reason_and_what_else_is_known() -> None:
    assert json.loads(problem_body(421, "misdirected", "no")) == {
        "type": "about:blank",
        "title": "Misdirected Request",
        "status": 421,
        "detail": "no",
        "reason": "misdirected",
    }
    more = json.loads(problem_body(400, "bad_request", "no", where="$[0]", missing=["a"]))
    assert (more["where"], more["missing"]) == ("$[0]", ["a"])


def test_a_status_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="299"):
        problem_body(299, "odd", "no")
