"""`GET /lineage/{version}`: what a version has learned from, as its manifest says.

Reading the store takes a thread of its own, so a store that hangs delays neither predictions nor the event loop.
"""

import asyncio
import logging
import re
from collections import OrderedDict

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from serving.daemon_threads import DaemonThreads
from serving.problems import Problem
from stream_trainer.errors import Corrupt, NoVersion, StoreUnavailable
from stream_trainer.store import ModelStore

logger = logging.getLogger(__name__)

FIELDS = (
    "version",
    "previous",
    "parent",
    "parent_sha256",
    "ranges",
    "cuts",
    "quarantined",
    "lost",
    "next_offsets",
    "topic_ids",
    "rows",
    "total",
    "event_time",
    "trained_through",
    "contract",
    "created_at",
    "libraries",
    "seed",
    "history",
)
SECONDS = 5.0
_NUMBER = re.compile(r"[1-9][0-9]{0,17}", re.ASCII)
_THREADS = 2
_MOST_WAITING = 32
_KEPT = 64


class LineageEndpoint:
    """Answers from the store; a manifest never changes, so the newest answers are kept."""

    def __init__(self, store: ModelStore, *, seconds: float = SECONDS) -> None:
        self._store = store
        self._seconds = seconds
        self._threads = DaemonThreads("lineage", _THREADS)
        self._waiting = 0
        self._kept: OrderedDict[int, bytes] = OrderedDict()

    async def endpoint(self, request: Request) -> Response:
        """The route."""
        try:
            return Response(await self._answer(request.path_params["version"]), media_type="application/json")
        except Problem as problem:
            return problem.response()
        except Exception:
            logger.exception("a lineage could not be told")
            return Problem(
                500, "internal_error", "the lineage could not be told; the service's log says why"
            ).response()

    async def _answer(self, text: str) -> bytes:
        if _NUMBER.fullmatch(text) is None:
            raise Problem(404, "unknown_version", "a version is a whole number, 1 or more")
        number = int(text)
        if (kept := self._kept.get(number)) is not None:
            return kept
        if self._waiting >= _MOST_WAITING:
            raise _unavailable("too many requests wait for the model store")
        self._waiting += 1
        read = asyncio.get_running_loop().run_in_executor(self._threads, self._read, number)
        read.add_done_callback(self._done)
        try:
            found = await asyncio.wait_for(asyncio.shield(read), self._seconds)
        except TimeoutError:
            raise _unavailable(f"the model store did not answer within {self._seconds:g} s") from None
        self._kept[number] = found
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return found

    def _done(self, read: "asyncio.Future[bytes]") -> None:
        self._waiting -= 1
        if not read.cancelled():
            read.exception()  # whoever asked may have left: then nobody else looks at it

    def _read(self, number: int) -> bytes:
        try:
            version = self._store.read(number)
        except NoVersion:
            raise Problem(404, "unknown_version", f"there is no version {number}") from None
        except StoreUnavailable as error:
            logger.warning("lineage of version %d: %s", number, error)
            raise _unavailable("the model store did not answer") from None
        except Corrupt as error:
            logger.warning("lineage of version %d: %s", number, error)
            detail = f"the manifest of version {number} is not what was committed; the service's log says more"
            raise Problem(500, "damaged_version", detail) from None
        manifest = version.manifest
        told = {name: getattr(manifest, name) for name in FIELDS}
        told |= {"manifest_sha256": version.sha256, "history": manifest.history or []}
        return msgspec.json.encode(msgspec.to_builtins(told, str_keys=True))


def _unavailable(detail: str) -> Problem:
    return Problem(503, "store_unavailable", f"{detail}; ask again soon", headers={"retry-after": "1"})
