"""The body of an error over HTTP, as RFC 9457 problem details; how it is sent, and when, is for those who answer."""

from http import HTTPStatus
from typing import Any

import msgspec

MEDIA_TYPE = "application/problem+json"


def problem_body(status: int, reason: str, detail: str, **more: Any) -> bytes:
    """A problem, to be sent as `MEDIA_TYPE`.

    Args:
        status: of HTTP, a known one.
        reason: a stable code.
        detail: what is wrong, for people; never a path of this machine or a stack.
        more: further members.
    """
    title = HTTPStatus(status).phrase
    return msgspec.json.encode(
        {"type": "about:blank", "title": title, "status": status, "detail": detail, "reason": reason, **more}
    )
