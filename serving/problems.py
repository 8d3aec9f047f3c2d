"""Errors as RFC 9457 problem details: what is wrong and where in the request, never a path or a stack."""

from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from stream_trainer.problems import MEDIA_TYPE, problem_body


class Problem(Exception):
    """A request that cannot be answered; `reason` is a stable code, `where` a JSON path into the body."""

    def __init__(
        self,
        status: int,
        reason: str,
        detail: str,
        *,
        where: str | None = None,
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> None:
        self.status = status
        self.reason = reason
        self.detail = detail
        self.headers = dict(headers or {})
        self.more = more if where is None else {"where": where, **more}
        super().__init__(f"{status} {reason}: {detail}")

    def response(self) -> Response:
        """The answer to send."""
        body = problem_body(self.status, self.reason, self.detail, **self.more)
        return Response(body, status_code=self.status, media_type=MEDIA_TYPE, headers=self.headers)


async def answer_http_exception(request: Request, error: Exception) -> Response:  # noqa: ARG001 - Starlette's shape
    """Unknown paths and methods, in the same form as every other error."""
    if not isinstance(error, HTTPException):
        raise error
    reason = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
    return Problem(error.status_code, reason, str(error.detail), headers=error.headers).response()
