"""`create_page`: the routes of the dashboard, and what each answers. Pure wiring; the board and the hub are the caller's.

Every answer but the files and `/events` is JSON of a bounded size; errors are problem details (RFC 9457): 400 for a parameter that
is no such thing, 404 for what is not there, 405 for anything but GET, 421 and 403 for who may not ask, 503 for too many.
"""

from datetime import datetime
from typing import Annotated, Any

import msgspec
from fastapi import FastAPI, Path, Query
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route

from monitors.findings import Finding
from monitors.history import WindowRecord
from monitors.page.board import Board
from monitors.page.cells import MAX_COLUMNS, STATES, Ask
from monitors.page.events import Events, Hub, Pace
from monitors.page.files import add_files
from monitors.page.guard import Guard
from monitors.page.problems import answer_http_exception, answer_invalid
from monitors.page.sources import is_report_name

MAX_FINDINGS = 300
MAX_CURVES = 40
MAX_TOGETHER = 2_000
# A report is a page of somebody else's making: it gets an origin of its own, and no way to ask for anything.
REPORT_POLICY = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval' data: blob:; "
    "style-src 'unsafe-inline'; img-src data: blob:; font-src data:; frame-ancestors 'none'"
)

Name = Annotated[str, Query(max_length=500)]


def create_page(board: Board, hub: Hub, *, near_only: bool = True, pace: Pace | None = None) -> Guard:
    """The application, behind its guard.

    Args:
        board: what is shown; refreshed by the caller.
        hub: tells open pages what has changed; the board's `changed` should lead to its `publish`.
        near_only: it is bound to loopback, so only loopback names are answered.
        pace: of the events.
    """
    app = FastAPI(title=board.sources.pipeline, openapi_url=None, docs_url=None, redoc_url=None)
    add_files(app)
    _add_windows(app, board)
    _add_parts(app, board)
    app.router.routes.append(Route("/events", Events(hub, lambda: board.state().revisions, pace or Pace())))
    app.add_exception_handler(HTTPException, answer_http_exception)
    app.add_exception_handler(RequestValidationError, answer_invalid)
    return Guard(app, near_only=near_only)


def _add_windows(app: FastAPI, board: Board) -> None:
    @app.get("/api/windows")
    def windows(
        *,
        feature: Name = "",
        segment: Name = "",
        kind: Name = "",
        against: Name = "",
        per: Annotated[int, Query(ge=1, le=MAX_TOGETHER)] = 1,
        limit: Annotated[int, Query(ge=1, le=MAX_COLUMNS)] = 60,
        before: datetime | None = None,
    ) -> Response:
        """The heat map: `{columns, rows, left_off, more}`, see `cells.Grid`.

        One row a feature in `segment` ("" is all rows), or with `feature` one row a segment of it; of one `kind` and
        `against` one reference, or of all; at most `limit` columns of `per` windows, those that began `before`.
        """
        ask = Ask(
            kind=kind,
            against=against,
            feature=feature,
            segment=segment,
            per=per,
            columns=limit,
            before=None if before is None else _aware(before),
        )
        return _json(board.grid(ask))

    @app.get("/api/windows/{start}")
    def window(
        start: Annotated[datetime, Path()], feature: Name | None = None, segment: Name | None = None
    ) -> Response:
        """One window by its start (RFC 3339): its figures, findings and curves, see `history.WindowRecord`.

        With `feature` ("" is all together), those of it alone, and `since`: when the drift of it (in `segment`) that the window shows began. At
        most 300 findings, drift first, and 40 curves. `previous` and `next` are the starts of its neighbours.
        """
        at = _aware(start)
        record = board.window(at)
        if record is None:
            raise HTTPException(404, "no such window is kept: it is too old, or has not closed yet")
        before, after = board.neighbours(record.start)
        return _json(
            {
                **_detail(record, feature, segment),
                "since": None if feature is None else board.since(feature, segment or "", record.start),
                "previous": before,
                "next": after,
            }
        )

    @app.get("/api/scores")
    def scores() -> Response:
        """The figures of all windows: `{starts, ends, versions, scores: {name: [...]}}`, oldest first."""
        return _json(board.scores())


def _add_parts(app: FastAPI, board: Board) -> None:
    @app.get("/api/state")
    def state() -> Response:
        """`{pipeline, revisions, problems, windows, newest, names}`: what there is, and which parts cannot be read."""
        return _json({**msgspec.to_builtins(board.state()), "names": board.names()})

    @app.get("/api/alerts")
    def alerts() -> Response:
        """Alerts, open ones first, then the newest resolved ones; at most 500. See `sources.ShownAlert`."""
        return _encoded(board.answer("alerts"))

    @app.get("/api/versions")
    def versions() -> Response:
        """`{versions, promotions, champion, challenger, highest}`, the newest of each. See `sources.Versions`."""
        return _encoded(board.answer("versions"))

    @app.get("/api/freshness")
    def freshness() -> Response:
        """How fresh things are: instants, and limits in seconds. See `sources.Age`."""
        return _encoded(board.answer("freshness"))

    @app.get("/reports/{name}")
    def report(name: str) -> Response:
        """A report that an alert names, in an origin of its own."""
        content = board.sources.report(name) if is_report_name(name) else None
        if content is None:
            raise HTTPException(404, "no such report: it was pruned, or is still being written")
        return Response(content, media_type="text/html", headers={"content-security-policy": REPORT_POLICY})


def _detail(record: WindowRecord, feature: str | None, segment: str | None) -> dict[str, Any]:
    def mine(found: str, part: str) -> bool:
        return (feature is None or found == feature) and (segment is None or part == segment)

    findings = sorted((f for f in record.findings if mine(f.feature, f.segment)), key=_interest)
    curves = [c for c in record.curves if mine(c.feature, c.segment)]
    curves = curves or [c for c in record.curves if mine(c.feature, segment or "") and not c.segment]
    fields = {name: getattr(record, name) for name in record.__struct_fields__}
    return {**fields, "findings": findings[:MAX_FINDINGS], "curves": curves[:MAX_CURVES]}


def _interest(finding: Finding) -> tuple[int, float]:
    return -STATES[finding.state], finding.p_value


def _aware(instant: datetime) -> datetime:
    if instant.tzinfo is None:
        raise HTTPException(400, f"{instant.isoformat()} says no offset from UTC")
    return instant


def _json(value: object) -> Response:
    return _encoded(msgspec.json.encode(value))


def _encoded(content: bytes) -> Response:
    return Response(content, media_type="application/json")
