"""What a caller demands of the version that answers, read from a request's headers.

Every protocol reads the same headers, so that a demand means one thing. A header that cannot be read is refused:
ignoring it would answer with less than was asked for.
"""

import re
from dataclasses import replace

from starlette.datastructures import Headers

from serving.answers import ANY, Wish
from serving.problems import Problem

MIN_VERSION = "X-Min-Model-Version"
MAX_STALENESS = "X-Max-Staleness"
ON_CONFLICT = "X-On-Conflict"

_VERSION = re.compile(r"0|[1-9][0-9]{0,18}")
_SECONDS = re.compile(r"[0-9]{1,12}(\.[0-9]{1,9})?")
_NAMES = frozenset(name.lower().encode() for name in (MIN_VERSION, MAX_STALENESS, ON_CONFLICT))


def wish(headers: Headers) -> Wish:
    """The wish of a request.

    `X-Min-Model-Version`: a version number, this one or a later one answers. `X-Max-Staleness`: seconds above 0.
    `X-On-Conflict`: 409 or 503, the status when the version is not reached in time.

    Raises:
        Problem: 400, a header is repeated or has another form; `header` names it.
    """
    found = ANY
    if _NAMES.isdisjoint(name for name, _ in headers.raw):
        return found
    if (text := _only(headers, MIN_VERSION)) is not None:
        if not _VERSION.fullmatch(text):
            raise _bad(MIN_VERSION, "a version number is needed: digits without a leading zero, at most 19")
        found = replace(found, min_version=int(text))
    if (text := _only(headers, MAX_STALENESS)) is not None:
        if not _SECONDS.fullmatch(text) or not float(text) > 0:
            raise _bad(MAX_STALENESS, "seconds above 0 are needed, such as 30 or 0.5")
        found = replace(found, max_staleness=float(text))
    if (text := _only(headers, ON_CONFLICT)) is not None:
        if text not in ("409", "503"):
            raise _bad(ON_CONFLICT, "409 or 503 is needed")
        found = replace(found, conflict=text == "409")
    return found


def both(one: Wish, other: Wish) -> Wish:
    """The wish that grants the two; an exact version of `other` counts before one of `one`."""
    if other == ANY:
        return one
    return Wish(
        version=one.version if other.version is None else other.version,
        min_version=max(one.min_version, other.min_version),
        max_staleness=min(one.max_staleness, other.max_staleness),
        conflict=one.conflict or other.conflict,
    )


def _only(headers: Headers, name: str) -> str | None:
    values = headers.getlist(name)
    if len(values) > 1:
        raise _bad(name, "the header is there more than once")
    return values[0].strip() if values else None


def _bad(name: str, detail: str) -> Problem:
    return Problem(400, "invalid_header", f"{name}: {detail}", header=name)
