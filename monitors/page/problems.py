"""Errors as RFC 9457 problem details: what is wrong, never a path of this machine or a stack."""

from collections.abc import Mapping

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from stream_trainer.problems import MEDIA_TYPE, problem_body

_REASONS = {400: "bad_request", 404: "not_found", 405: "method_not_allowed"}


def problem(status: int, reason: str, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """The answer to a request that cannot be answered; `reason` is a stable code."""
    body = problem_body(status, reason, detail)
    return Response(body, status_code=status, media_type=MEDIA_TYPE, headers=dict(headers or {}))


async def answer_http_exception(request: Request, error: Exception) -> Response:  # noqa: ARG001 - Starlette's shape
    """Unknown paths and methods, and what a route refused."""
    if not isinstance(error, HTTPException):
        raise error
    return problem(error.status_code, _REASONS.get(error.status_code, "http_error"), str(error.detail), error.headers)


async def answer_invalid(request: Request, error: Exception) -> Response:  # noqa: ARG001 - Starlette's shape
    """A parameter that is no such thing: which one, and why."""
    if not isinstance(error, RequestValidationError):
        raise error
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:])
    return problem(400, "bad_request", f"{where}: {first['msg']}")
