"""Requests drawn from the service's own OpenAPI document, half of them against it; each answer is checked against it.

Over ASGI, in this process: some thousand requests in seconds. What a socket adds is in `test_faults.py`.
"""

from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

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
MANY = 10_000


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


def aim(case: Case[Any]) -> None:
    """Put names that are there into the path: a drawn text would hardly ever be one, and all that follows not be met.

    Not of `/lineage`: schemathesis writes the pairs of its answers anew, and then takes them for no schema.
    """
    if case.path.startswith("/v2/models/"):
        case.path_parameters = (
            {"name": PIPELINE.name, "version": "1"} if "{version}" in case.path else {"name": PIPELINE.name}
        )


def asked(app: FastAPI, examples: int, start: int) -> Counter[int]:
    """Ask so many times an operation, half of it against the document; how many answers had which status.

    Every other request names a model and a version that are there. The same `start` draws the same requests.

    Raises:
        AssertionError: an answer is one that the document does not describe.
    """
    statuses: Counter[int] = Counter()
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
                if statuses.total() % 2:
                    aim(case)
                statuses[case.call_and_validate(checks=CHECKS).status_code] += 1

            # Of an operation that allows any text in its path there are no requests against the document.
            with suppress(*((Unsatisfiable,) if mode is GenerationMode.NEGATIVE else ())):
                ask()
    return statuses


def asked_many(folder: Path, start: int, rounds: int | None = None) -> Counter[int]:
    """Rounds of a thousand times an operation, as many as it takes for `MANY` requests if not said otherwise."""
    app = app_with(folder, 1)
    statuses: Counter[int] = Counter()
    done = 0
    while done < rounds if rounds is not None else statuses.total() < MANY:
        statuses += asked(app, 1_000, start + done)
        done += 1
    return statuses
