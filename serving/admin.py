"""The admin port: which version serves is decided here, by the same functions as `stream-trainer models …`.

An app of its own behind a `Gate` of its own, on a port of its own: no route of it is ever mounted on the public one.
Decisions read and write the store, so they run in a thread, one at a time; each is logged with who took it.
"""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from serving.body import read_body
from serving.clock import Clock, utc_now
from serving.daemon_threads import DaemonThreads
from serving.follower import Follower
from serving.keys import Caller
from serving.problems import Problem, answer_http_exception
from stream_trainer import championing
from stream_trainer.championing import Decided
from stream_trainer.deciding import Undecidable
from stream_trainer.errors import Corrupt, Retryable, StoreDamaged, StoreUnwritable
from stream_trainer.settings import KafkaSettings
from stream_trainer.store import ModelStore

logger = logging.getLogger(__name__)

MOST_BYTES = 16 * 2**10
SECONDS = 30.0
_ANNOUNCE_SECONDS = 3.0
_MOST_WAITING = 8

# The store's own words name where it is.
_UNDECIDABLE = {
    "unknown_version": "there is no version of this number",
    "failed_gates": "this version did not pass its gates; choose one that did",
    "pruned": "retention has deleted this version's data; choose a newer one",
    "nothing_held": "nothing is held, so there is nothing to release",
    "nothing_before": "there is no usable version before the champion",
    "contended": "others are deciding at the same time; look at /status, and ask again",
}

_Version = Annotated[int, Meta(ge=1, lt=10**18)]


class Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a decision; `hold` is of `/promote` alone."""

    version: _Version | None = None
    reason: Annotated[str, Meta(max_length=500, pattern=r"\A[^\x00-\x1f\x7f-\x9f]*\Z")] = ""
    hold: bool = False


class Admin:
    """What the routes do.

    Args:
        store: where the versions and the alias are.
        follower: what serves.
        kafka: through which other services are told.
        look: asks this service to look at the store soon; called from any thread.
        clock: the present instant.
    """

    def __init__(
        self, store: ModelStore, follower: Follower, kafka: KafkaSettings, look: Callable[[], None], clock: Clock
    ) -> None:
        self._store = store
        self._follower = follower
        # What was decided stands in the store already: a broker that does not answer must not hold up who decided.
        seconds = min(kafka.request_timeout_seconds, _ANNOUNCE_SECONDS)
        self._kafka = kafka.model_copy(update={"request_timeout_seconds": seconds})
        self._look = look
        self._clock = clock
        self._thread = DaemonThreads("admin")
        self._waiting = 0

    async def promote(self, request: Request) -> Response:
        """`POST /promote {version, reason?, hold?}`."""
        return await self._decide(
            request, lambda o, by: championing.promote(self._store, _named(o), by=by, reason=o.reason, hold=o.hold)
        )

    async def rollback(self, request: Request) -> Response:
        """`POST /rollback {version?, reason?}`."""
        return await self._decide(
            request, lambda o, by: championing.rollback(self._store, o.version, by=by, reason=o.reason)
        )

    async def pin(self, request: Request) -> Response:
        """`POST /pin {version, reason?}`."""
        return await self._decide(
            request, lambda o, by: championing.pin(self._store, _named(o), by=by, reason=o.reason)
        )

    async def release(self, request: Request) -> Response:
        """`POST /release {reason?}`."""
        return await self._decide(request, lambda o, by: championing.release(self._store, by=by, reason=o.reason))

    async def reload(self, request: Request) -> Response:
        """`POST /reload`: look at the store soon, not only when the poll interval has passed."""
        await _order(request)
        self._look()
        return JSONResponse({"status": "looking", **self._served()}, status_code=202)

    async def status(self, request: Request) -> Response:  # noqa: ARG002 - a route
        """`GET /status`: what serves, and what the store says should."""
        return JSONResponse(await self._in_thread(self._state))

    async def live(self, request: Request) -> Response:  # noqa: ARG002 - a route
        """`GET /health/live`."""
        return JSONResponse({"status": "live"})

    async def _decide(self, request: Request, decide: Callable[[Order, str], Decided]) -> Response:
        order = await _order(request)
        by = _who(request.scope["state"]["caller"])

        def run() -> dict[str, Any]:
            decided = decide(order, by)
            self._look()
            told, problem = championing.outcome(self._store, decided, self._kafka)
            if problem is not None:
                logger.warning("others follow at their next look at the store: %s", problem)
            return told

        told = await self._in_thread(run)
        logger.info("%s by %s: version %s, %s", request.url.path[1:], by, told["champion"], told["until"])
        return JSONResponse(told)

    async def _in_thread(self, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        if self._waiting >= _MOST_WAITING:
            raise Problem(503, "busy", "too many decisions wait for the model store", headers={"retry-after": "1"})
        self._waiting += 1
        running = asyncio.get_running_loop().run_in_executor(self._thread, work)
        running.add_done_callback(self._done)
        try:
            return await asyncio.wait_for(asyncio.shield(running), SECONDS)
        except TimeoutError:
            raise _unavailable(f"within {SECONDS:g} s; look at /status before you ask again") from None
        except Undecidable as error:
            logger.warning("refused: %s", error)
            raise Problem(409, error.why, _UNDECIDABLE[error.why]) from None
        except StoreDamaged as error:
            logger.warning("refused: %s", error)
            raise Problem(409, "damaged_version", "this version is not what was committed; choose another") from None
        except (Retryable, StoreUnwritable, Corrupt) as error:
            logger.warning("the store: %s", error)
            raise _unavailable("as it should; the service's log says why") from None

    def _done(self, running: "asyncio.Future[dict[str, Any]]") -> None:
        self._waiting -= 1
        if not running.cancelled():
            running.exception()  # whoever asked may have left

    def _state(self) -> dict[str, Any]:
        number, alias = championing.newest_entry(self._store)
        entry = None if alias is None else {"number": number, **msgspec.to_builtins(alias)}
        return {**self._served(), "newest_version": self._store.highest(), "champion": entry}

    def _served(self) -> dict[str, Any]:
        served = self._follower.served
        return {
            "model_name": self._store.pipeline,
            "model_version": None if served is None else served.number,
            "staleness_seconds": None if served is None else served.staleness(self._clock()),
            "reason": self._follower.reason,
        }


def create_admin(
    store: ModelStore,
    follower: Follower,
    kafka: KafkaSettings,
    *,
    look: Callable[[], None],
    clock: Clock = utc_now,
) -> Starlette:
    """The app of the admin port, without its `Gate`; see `Admin`."""
    admin = Admin(store, follower, kafka, look, clock)
    posts = (admin.promote, admin.rollback, admin.pin, admin.release, admin.reload)
    return Starlette(
        routes=[
            *(Route(f"/{post.__name__}", _answered(post), methods=["POST"]) for post in posts),
            Route("/status", _answered(admin.status), methods=["GET"]),
            Route("/health/live", admin.live, methods=["GET"]),
        ],
        exception_handlers={HTTPException: answer_http_exception},
    )


def _answered(route: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """The route, with every failure as a problem that tells no more than it must."""

    async def endpoint(request: Request) -> Response:
        try:
            return await route(request)
        except Problem as problem:
            return problem.response()
        except Exception:
            logger.exception("an order could not be carried out")
            return Problem(500, "internal_error", "this failed; the service's log says why").response()

    return endpoint


async def _order(request: Request) -> Order:
    # A page of another site can send a form without asking, but not this content type.
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Problem(415, "not_json", "send content-type: application/json")
    body = await read_body(request, MOST_BYTES)
    try:
        return msgspec.json.decode(body or b"{}", type=Order)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        detail = "an object with version (1 or more), reason (text up to 500 characters) and, for promote, hold"
        raise Problem(422, "invalid_value", detail, where="$") from None


def _named(order: Order) -> int:
    if order.version is None:
        raise Problem(422, "invalid_value", "which version?", where="$.version")
    return order.version


def _who(caller: Caller) -> str:
    via = f"the admin port of {socket.gethostname()}"
    return f"key {caller.id} ({caller.name}) through {via}" if caller.id else f"{caller.name} through {via}"


def _unavailable(detail: str) -> Problem:
    return Problem(503, "store_unavailable", f"the model store did not answer {detail}", headers={"retry-after": "5"})
