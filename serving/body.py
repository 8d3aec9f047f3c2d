"""Reading a request: its body within bounds of size and time, and the body into rows of the contract.

What is too large is refused while it is read, whatever `Content-Length` claims.
"""

import asyncio
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive

from serving.problems import Problem
from serving.row_count import RowCount, TooMany
from stream_trainer.contract import Contract
from stream_trainer.schema import struct_type

BODY_SECONDS = 10.0


async def read_body(request: Request, limit: int) -> bytes:
    """The whole body; see `receive_body`."""
    return await receive_body(request.receive, request.headers.get("content-length", ""), limit)


async def receive_body(receive: Receive, content_length: str, limit: int) -> bytes:
    """The whole body of an ASGI request.

    Raises:
        Problem: 413 beyond `limit` bytes, 408 when it takes longer than `BODY_SECONDS`.
        ClientDisconnect: the client went away.
    """
    if content_length.isdecimal() and int(content_length[:20]) > limit:
        raise _too_large(limit)
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            more = True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                chunk = message.get("body", b"")
                size += len(chunk)
                if size > limit:
                    raise _too_large(limit)
                chunks.append(chunk)
                more = message.get("more_body", False)
    except TimeoutError:
        detail = f"the body did not arrive within {BODY_SECONDS:g} seconds"
        raise Problem(408, "body_timeout", detail, headers={"connection": "close"}) from None
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def refuse_encoded(content_encoding: str) -> None:
    """Bodies are read as they are.

    Raises:
        Problem: 415, the header names another encoding than `identity`.
    """
    if content_encoding != "identity":
        # What is refused before it is read cannot be followed by another request on the same connection.
        detail = "send the body without a content encoding"
        raise Problem(415, "unsupported_encoding", detail, headers={"connection": "close"})


def _too_large(limit: int) -> Problem:
    # The rest of the body is unread, so the connection cannot carry another request.
    return Problem(413, "body_too_large", f"at most {limit} bytes are read", headers={"connection": "close"})


UNREADABLE = (ValueError, RecursionError)


def unreadable(error: Exception, status: int) -> Problem:
    """What is wrong with a body that msgspec could not decode (`UNREADABLE`), and where in it."""
    if isinstance(error, msgspec.ValidationError):
        what, _, where = str(error).partition(" - at `")
        return Problem(status, "invalid_value", what, where=where.rstrip("`") or "$")
    if isinstance(error, UnicodeDecodeError):
        return Problem(status, "bad_utf8", "the text is not UTF-8", where="$")
    if isinstance(error, RecursionError):
        return Problem(status, "too_deep", "the value is nested too deeply", where="$")
    return Problem(status, "invalid_json", str(error), where="$")


class RowParser:
    """`{"instances": [...]}` to the contract's structs; unknown fields are ignored."""

    def __init__(self, contract: Contract, max_rows: int) -> None:
        row = struct_type(contract, "request")
        some: Any = Annotated[list[row], Meta(min_length=1)]  # type: ignore[valid-type]
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(
            msgspec.defstruct("Instances", [("instances", some)])
        )
        self._max_rows = max_rows
        self._count = RowCount(row, max_rows)

    def parse(self, body: bytes) -> list[Any]:
        """The rows of a request.

        Raises:
            Problem: 422 with what is wrong and where, 413 when there are too many rows.
        """
        try:
            self._count.check(body)
            rows: list[Any] = self._decoder.decode(body).instances
        except UNREADABLE as error:
            raise unreadable(error, 422) from None
        except TooMany:
            raise self._refusal() from None
        if len(rows) > self._max_rows:
            raise self._refusal()
        return rows

    def _refusal(self) -> Problem:
        detail = f"at most {self._max_rows} instances are answered at once"
        return Problem(413, "too_many_rows", detail, where="$.instances")
