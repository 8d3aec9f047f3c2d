"""S16: requests drawn from the service's own OpenAPI document, and against it: no answer that it does not describe.

Over ASGI, in this process: some thousand requests in seconds. What a socket adds is in `test_faults.py`.
"""

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, CheckContext, GenerationMode, Response
from schemathesis.checks import load_all_checks
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from stream_trainer.store import ModelStore
from stream_trainer.store.storage import LocalStorage
from tests.serving.fixtures import PIPELINE, Harness, app_of, commit_version, learned_state

load_all_checks()

TEMPORARY = 503  # the one failure of the service that is documented everywhere where it occurs


def no_failure(_: CheckContext, response: Response, case: Case[Any]) -> None:
    """Nothing that a client sends makes the service fail."""
    assert response.status_code < 500 or response.status_code == TEMPORARY, case.as_curl_command()


CHECKS: list[Any] = [no_failure, status_code_conformance, content_type_conformance, response_schema_conformance]


def app_with(folder: Path, versions: int) -> FastAPI:
    """A service that has so many versions."""
    harness = Harness(ModelStore(LocalStorage(folder), PIPELINE.name), min_version_wait_seconds=0.001)
    for _ in range(versions):
        commit_version(harness.store, PIPELINE, learned_state())
        harness.follower.look()
    return app_of(harness)


def asked(app: FastAPI, examples: int, start: int) -> int:
    """Ask so many times an operation, half of it against the document; how many requests that were.

    The same `start` draws the same requests.
    """
    count = 0
    for operation in schemathesis.openapi.from_asgi("/openapi.json", app).get_all_operations():
        assert isinstance(operation, Ok), operation
        drawn = operation.ok()
        for mode in GenerationMode:
            if mode is GenerationMode.NEGATIVE and not (drawn.body or drawn.path_parameters or drawn.headers):
                continue

            @seed(start)
            @settings(
                max_examples=examples,
                database=None,
                deadline=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=drawn.as_strategy(generation_mode=mode))
            def ask(case: Case[Any]) -> None:
                nonlocal count
                count += 1
                case.call_and_validate(checks=CHECKS)

            # Of an operation that allows any text in its path there are no requests against the document.
            with suppress(*((Unsatisfiable,) if mode is GenerationMode.NEGATIVE else ())):
                ask()
    return count


@pytest.mark.parametrize("versions", [0, 1])
def test_s16_no_request_gets_an_answer_that_is_not_described(tmp_path: Path, versions: int) -> None:
    assert asked(app_with(tmp_path, versions), 80, 1) > 500


@pytest.mark.slow
def test_s16_ten_thousand_requests_get_no_answer_that_is_not_described(tmp_path: Path) -> None:
    app = app_with(tmp_path, 1)
    count = start = 0
    while count < 10_000:
        count += asked(app, 1_000, start)
        start += 1
