"""The dashboard's API and events, over a made-up past."""

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from httpx import ASGITransport, AsyncClient, Client, Response
from starlette.types import ASGIApp, Message

from monitors.history import History, WindowRecord
from monitors.page.app import MAX_FINDINGS, create_page
from monitors.page.board import Board
from monitors.page.events import Events, Hub, Pace
from monitors.page.protocol import PageProtocol
from monitors.page.server import MAX_CONNECTIONS, bound, served
from monitors.page.sources import Age, ShownAlert, Sources
from stream_trainer.errors import StoreUnavailable, UsageError
from stream_trainer.store.storage import LocalStorage
from tests.monitors.histories import QUIET, START, WINDOW, Past, alerts, sources, versions

PAST = Past(windows=QUIET + 10, segments=("origin=EWR",), features=("temp", "distance"))
HOSTS = ["127.0.0.1", "127.0.0.1:8002", "localhost:8002", "[::1]:8002"]
FOREIGN = ["evil.example", "127.0.0.1.evil.example", "10.0.0.1:8002", ""]


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    return sources(tmp_path_factory.mktemp("history"), PAST)


class Asking:
    """Asks an application without a port."""

    def __init__(self, app: ASGIApp) -> None:
        self._transport = ASGITransport(app)

    def get(self, path: str, **options: Any) -> Response:
        return self.request("GET", path, **options)

    def request(self, method: str, path: str, **options: Any) -> Response:
        async def ask() -> Response:
            async with AsyncClient(transport=self._transport, base_url="http://127.0.0.1") as client:
                return await client.request(method, path, **options)

        return asyncio.run(ask())


def client_of(board: Board, hub: Hub | None = None, **options: Any) -> Asking:
    return Asking(create_page(board, hub or Hub(), **options))


@pytest.fixture(scope="module")
def client(known: Sources) -> Asking:
    board = Board(known)
    board.refresh()
    return client_of(board)


def instant(at: datetime) -> str:
    return quote(at.isoformat().replace("+00:00", "Z"))


def problem(response: Response, status: int, reason: str) -> str:
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert (body["status"], body["reason"]) == (status, reason)
    return str(body["detail"])


# --- what it answers


def test_the_heat_map_tells_the_shift_from_the_quiet_weeks(client: Asking) -> None:
    grid = client.get("/api/windows", params={"limit": 20}).json()
    rows = {row["feature"]: row for row in grid["rows"]}
    assert len(grid["columns"]) == 20
    assert grid["more"]
    assert "d" not in rows["distance"]["states"]
    assert rows["temp"]["states"][-9:].count("d") >= 8
    assert max(e for e in rows["temp"]["effects"] if e is not None) > 0.1
    assert "n" in rows["temp"]["states"]
    earlier = client.get("/api/windows", params={"limit": 20, "before": grid["columns"][0]["start"]}).json()
    assert earlier["columns"][-1]["end"] == grid["columns"][0]["start"]


def test_a_window_holds_what_is_behind_a_cell(client: Asking) -> None:
    start = START + (QUIET + 8) * WINDOW
    found = client.get(f"/api/windows/{instant(start)}", params={"feature": "temp", "segment": ""}).json()
    assert {finding["feature"] for finding in found["findings"]} == {"temp"}
    assert found["findings"][0]["state"] == "drift"
    assert found["findings"][0]["p_value"] <= found["findings"][0]["threshold"]
    (curve,) = found["curves"]
    assert len(curve["bins"]) == len(curve["window"]) == len(curve["learned"]) == len(curve["baseline"])
    assert found["offsets"] == {
        "flights.predictions": {"0": [64400, 64400 + found["rows"] // 2], "1": [55200, 55200 + found["rows"] // 2]}
    }
    assert datetime.fromisoformat(found["since"]) == START + QUIET * WINDOW
    assert datetime.fromisoformat(found["previous"]) == start - WINDOW
    assert datetime.fromisoformat(found["next"]) == start + WINDOW
    whole = client.get(f"/api/windows/{instant(start)}").json()
    assert len(whole["findings"]) <= MAX_FINDINGS
    assert {finding["feature"] for finding in whole["findings"]} > {"temp", "distance"}


def test_a_segment_without_a_histogram_of_its_own_is_shown_that_of_all_rows(client: Asking) -> None:
    start = START + (QUIET + 8) * WINDOW
    found = client.get(f"/api/windows/{instant(start)}", params={"feature": "temp", "segment": "origin=EWR"}).json()
    assert {finding["segment"] for finding in found["findings"]} == {"origin=EWR"}
    assert [curve["segment"] for curve in found["curves"]] == [""]


def test_scores_versions_alerts_and_freshness(client: Asking) -> None:
    scores = client.get("/api/scores").json()
    assert {len(values) for values in scores["scores"].values()} == {PAST.windows} == {len(scores["ends"])}
    assert "estimated_log_loss" in scores["scores"]
    found = client.get("/api/alerts").json()
    assert [one["status"] for one in found] == ["updated", "opened", "resolved"]
    assert found[0]["severity"] == "critical"
    shown = client.get("/api/versions").json()
    assert (shown["champion"], shown["highest"], len(shown["promotions"])) == (44, 56, 4)
    assert [one["version"] for one in shown["versions"] if not one["passed"]] == [20, 40]
    assert {one["name"] for one in client.get("/api/freshness").json()} >= {"Window closed", "Version made"}
    state = client.get("/api/state").json()
    assert (state["pipeline"], state["windows"], state["problems"]) == ("flights", PAST.windows, {})
    assert state["names"]["segments"] == ["origin=EWR"]


def test_an_empty_monitor_answers_everywhere(tmp_path: Path) -> None:
    board = Board(Sources(pipeline="flights", history=History(LocalStorage(tmp_path))))
    board.refresh()
    client = client_of(board)
    assert client.get("/api/windows").json() == {"columns": [], "rows": [], "left_off": 0, "more": False}
    assert client.get("/api/scores").json()["scores"] == {}
    assert client.get("/api/alerts").json() == []
    assert client.get("/api/versions").json()["versions"] == []
    problem(client.get(f"/api/windows/{instant(START)}"), 404, "not_found")


# --- what it refuses


@pytest.mark.parametrize(
    "path",
    [
        "/api/windows?limit=0",
        "/api/windows?limit=1000000",
        "/api/windows?per=0",
        "/api/windows?per=x",
        "/api/windows?before=yesterday",
        "/api/windows?before=2026-01-01T00:00:00",
        "/api/windows/never",
        "/api/windows/2026-01-01T00:00:00",
        f"/api/windows?feature={'x' * 501}",
    ],
)
def test_a_parameter_that_is_no_such_thing_is_a_problem(client: Asking, path: str) -> None:
    assert problem(client.get(path), 400, "bad_request")


@pytest.mark.parametrize(
    "path", ["/nothing", "/docs", "/openapi.json", "/reports/x", "/reports/..%2f..%2fetc%2fpasswd", "/static/x/page.js"]
)
def test_what_is_not_there_is_a_problem(client: Asking, path: str) -> None:
    problem(client.get(path), 404, "not_found")


def test_asking_for_the_head_of_the_events_takes_no_place(known: Sources) -> None:
    response = client_of(Board(known)).request("HEAD", "/events")
    assert response.status_code == 200
    assert response.content == b""


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_it_only_reads(client: Asking, method: str) -> None:
    for path in ("/", "/api/alerts", "/events"):
        response = client.request(method, path)
        problem(response, 405, "method_not_allowed")
        assert response.headers["allow"] == "GET, HEAD"


def test_on_loopback_only_loopback_names_and_pages_are_answered(known: Sources) -> None:
    board = Board(known)
    near, far = client_of(board), client_of(board, near_only=False)
    for host in HOSTS:
        assert near.get("/api/alerts", headers={"host": host}).status_code == 200
    for host in FOREIGN:
        problem(near.get("/api/alerts", headers={"host": host}), 421, "misdirected")
        assert far.get("/api/alerts", headers={"host": host or "x"}).status_code == 200
    assert near.get("/api/alerts", headers={"origin": "http://127.0.0.1:8000"}).status_code == 200
    problem(near.get("/events", headers={"origin": "https://evil.example"}), 403, "foreign_origin")
    problem(near.get("/api/alerts", headers={"origin": "null"}), 403, "foreign_origin")


def test_every_answer_tells_the_browser_to_do_nothing_else(client: Asking) -> None:
    for path in ("/", "/api/alerts", "/nothing"):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert (headers["x-content-type-options"], headers["x-frame-options"]) == ("nosniff", "DENY")
    assert client.get("/api/alerts").headers["cache-control"] == "no-store"


def test_files_are_kept_by_the_browser_under_a_name_that_changes_with_them(client: Asking) -> None:
    index = client.get("/")
    assert index.headers["cache-control"] == "no-cache"
    assert "REVISION" not in index.text
    assert "https://" not in index.text
    assert "onclick" not in index.text
    paths = sorted({part.split('"')[0] for part in index.text.split('="') if part.startswith("/static/")})
    assert {path.rpartition("/")[2] for path in paths} >= {"page.js", "plotly.js", "page.css"}
    for path in paths:
        response = client.get(path)
        assert response.status_code == 200
        assert "immutable" in response.headers["cache-control"]
        assert response.headers["content-encoding"] == "gzip"
    plain = client.get(paths[0], headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers


def test_a_report_has_an_origin_of_its_own_and_no_network(client: Asking) -> None:
    name = alerts()[-1].report
    response = client.get(f"/reports/{name}")
    assert response.status_code == 200
    policy = response.headers["content-security-policy"]
    assert policy.startswith("sandbox allow-scripts;")
    assert "allow-same-origin" not in policy
    assert "connect-src" not in policy
    assert "default-src 'none'" in policy


# --- what changes


class Flaky:
    """Sources of which each may be told to fail."""

    def __init__(self, folder: Path) -> None:
        self.history = History(LocalStorage(folder))
        self.failing: set[str] = set()
        self.raised: list[ShownAlert] = []

    def alerts(self) -> list[ShownAlert]:
        if "alerts" in self.failing:
            raise StoreUnavailable("Kafka does not answer")
        return self.raised

    def sources(self) -> Sources:
        return Sources(pipeline="flights", history=self.history, alerts=self.alerts, versions=versions)


def test_only_what_has_changed_has_a_new_revision_and_a_restart_changes_none(tmp_path: Path) -> None:
    flaky, told = Flaky(tmp_path), list[dict[str, str]]()
    board = Board(flaky.sources(), lambda revisions: told.append(dict(revisions)))
    assert set(board.refresh()) == {"windows", "alerts", "versions", "freshness"}
    assert board.refresh() == {}
    flaky.history.add(PAST.record(0))
    assert set(board.refresh()) == {"windows"}
    flaky.raised = alerts()
    assert set(board.refresh()) == {"alerts"}
    flaky.history.add(msgspec.structs.replace(PAST.record(0), late=99))
    assert set(board.refresh()) == {"windows"}
    assert [set(one) for one in told[1:]] == [{"windows"}, {"alerts"}, {"windows"}]
    again = Board(flaky.sources())
    again.refresh()
    assert again.state().revisions == board.state().revisions


def test_a_source_that_fails_leaves_what_was_known_and_says_so(tmp_path: Path) -> None:
    flaky = Flaky(tmp_path)
    flaky.raised = alerts()
    board = Board(flaky.sources())
    board.refresh()
    before = board.state()
    client = client_of(board)
    flaky.failing.add("alerts")
    assert set(board.refresh()) == {"alerts"}
    assert client.get("/api/state").json()["problems"] == {"alerts": "Kafka does not answer"}
    assert len(client.get("/api/alerts").json()) == 3
    assert board.refresh() == {}
    flaky.failing.clear()
    assert set(board.refresh()) == {"alerts"}
    assert board.state() == before


def test_s15_what_a_source_complains_of_is_one_line_of_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> Any:
        raise OSError("gone\nWARNING root: all is well\x1b[2J" + "x" * 10_000)

    history = History(LocalStorage(tmp_path))
    board = Board(Sources(pipeline="flights", history=history, versions=broken))
    for _ in range(3):
        board.refresh()
    (told,) = [record.getMessage() for record in caplog.records]
    assert told.isprintable()
    assert len(told) < 400


def test_windows_that_the_history_has_dropped_are_dropped(tmp_path: Path) -> None:
    history = History(LocalStorage(tmp_path), kept=3)
    board = Board(Sources(pipeline="flights", history=history))
    for index in range(5):
        history.add(PAST.record(index))
        board.refresh()
    assert [slot.start for slot in board.grid(_all()).columns] == [START + n * WINDOW for n in (2, 3, 4)]


def _all() -> Any:
    from monitors.page.cells import Ask

    return Ask(columns=200)


def test_a_history_that_is_too_large_for_memory_keeps_its_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monitors.page.board.MAX_CELLS", 60)
    history = History(LocalStorage(tmp_path))
    for index in range(6):
        history.add(PAST.record(index))
    board = Board(Sources(pipeline="flights", history=history))
    board.refresh()
    shown = board.grid(_all()).columns
    assert 0 < len(shown) < 6
    assert shown[-1].start == START + 5 * WINDOW
    read: list[datetime] = []
    board.sources = replace(board.sources, history=Counted(history, read))
    board.refresh()
    assert set(read) == {START + 4 * WINDOW, START + 5 * WINDOW}


class Counted:
    """A history that notes what is read of it."""

    def __init__(self, history: History, read: list[datetime]) -> None:
        self._history = history
        self._read = read

    def starts(self) -> list[datetime]:
        return self._history.starts()

    def get(self, start: datetime) -> WindowRecord | None:
        self._read.append(start)
        return self._history.get(start)


def test_a_long_history_is_read_a_part_at_a_time_the_newest_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monitors.page.board.NEW_PER_LOOK", 3)
    history = History(LocalStorage(tmp_path))
    for index in range(6):
        history.add(PAST.record(index))
    board = Board(Sources(pipeline="flights", history=history))
    seen = []
    for _ in range(9):
        board.refresh()
        seen.append([slot.start for slot in board.grid(_all()).columns])
    assert seen[0] == [START + n * WINDOW for n in (3, 4, 5)]
    assert seen[-1] == [START + n * WINDOW for n in range(6)]


# --- events


class Reader:
    """The other end of an ASGI stream: reads when it is told to."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.said = asyncio.Event()
        self.reading = asyncio.Event()
        self.reading.set()
        self.left = asyncio.Event()

    async def receive(self) -> Message:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        await self.reading.wait()
        self.sent.append(message)
        self.said.set()

    async def until(self, text: str) -> None:
        async with asyncio.timeout(10):
            while text not in self.text:
                self.said.clear()
                await self.said.wait()

    @property
    def text(self) -> str:
        return b"".join(message.get("body", b"") for message in self.sent).decode()

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])


def follow(hub: Hub, client: Reader, pace: Pace | None = None) -> "asyncio.Task[None]":
    events = Events(hub, lambda: {"windows": "w0"}, pace or Pace())
    return asyncio.create_task(events({"type": "http", "method": "GET"}, client.receive, client.send))


def test_a_stream_begins_with_what_is_and_goes_on_with_what_changes() -> None:
    async def story() -> None:
        hub, client = Hub(), Reader()
        stream = follow(hub, client)
        await client.until('event: hello\ndata: {"windows":"w0"}\n\n')
        threading.Thread(target=hub.publish, args=({"alerts": "a1"},)).start()
        await client.until('event: alerts\ndata: {"revision":"a1"}\n\n')
        client.left.set()
        await stream
        assert len(hub) == 0

    asyncio.run(story())


def test_whoever_is_slow_hears_the_newest_only_and_whoever_never_reads_is_ended() -> None:
    async def story() -> None:
        hub, slow = Hub(), Reader()
        stream = follow(hub, slow)
        await slow.until("hello")
        slow.reading.clear()
        hub.publish({"windows": "w1"})
        await asyncio.sleep(0)
        for number in range(2, 1000):
            hub.publish({"windows": f"w{number}"})
        slow.reading.set()
        await slow.until("w999")
        assert slow.text.count("event: windows") <= 2
        slow.left.set()
        await stream
        deaf = Reader()
        stream = follow(hub, deaf, Pace(unread=0.01))
        await deaf.until("hello")
        deaf.reading.clear()
        hub.publish({"windows": "w"})
        await stream
        assert len(hub) == 0

    asyncio.run(story())


def test_streams_are_bounded_in_number_and_age_and_a_heart_beats_in_between() -> None:
    async def story() -> None:
        hub, first, second = Hub(most=1), Reader(), Reader()
        stream = follow(hub, first, Pace(heartbeat=0.01))
        await first.until(": still here")
        await follow(hub, second)
        assert second.status == 503
        assert (b"retry-after", b"10") in second.sent[0]["headers"]
        first.left.set()
        await stream
        old = Reader()
        await follow(hub, old, Pace(age=0.02))
        assert old.sent[-1] == {"type": "http.response.body", "body": b""}
        third = Reader()
        again = follow(hub, third)
        await third.until("hello")
        hub.close()
        await again
        assert len(hub) == 0

    asyncio.run(story())


def test_it_looks_as_soon_as_somebody_listens_and_not_often_before() -> None:
    async def story() -> None:
        hub, client = Hub(), Reader()
        waiting = asyncio.create_task(asyncio.to_thread(hub.idle, 60.0))
        stream = follow(hub, client)
        await client.until("hello")
        async with asyncio.timeout(30):
            assert await waiting in (True, False)
        assert not hub.idle(60.0)
        client.left.set()
        await stream
        hub.close()
        assert not hub.idle(60.0)

    asyncio.run(story())


# --- the server


@pytest.fixture
def live(known: Sources) -> Iterator[tuple[Board, Client, list[str]]]:
    said: list[str] = []
    with (
        bound("127.0.0.1", 0) as address,
        served(address, known, every=3600, said=said.append) as board,
        Client(base_url=address.url, timeout=10) as client,
    ):
        yield board, client, said


def test_a_free_port_is_taken_and_told_and_events_come_over_it(live: tuple[Board, Client, list[str]]) -> None:
    board, client, said = live
    assert said == [str(client.base_url)]
    with client.stream("GET", "/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        lines = stream.iter_lines()
        assert next(lines) == "retry: 2000"
        revisions = json.loads(next(line for line in lines if line.startswith("data: "))[6:])
        assert set(revisions) == {"windows", "alerts", "versions", "freshness"}
        board.sources = replace(board.sources, ages=lambda: [Age(name="new", since=datetime.now(UTC))])
        board.refresh()
        assert "event: freshness" in lines


def silent(to: tuple[str, int], sent: bytes = b"") -> socket.socket:
    """A connection without a whole request."""
    made = socket.create_connection(to, timeout=30)
    made.sendall(sent)
    return made


@pytest.mark.parametrize("sent", [b"", b"GET /api/state HTT", b"GET /api/nothing HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"])
def test_connections_that_ask_nothing_end_and_leave_the_page_to_others(
    known: Sources, sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PageProtocol, "look_seconds", 0.05)
    with bound("127.0.0.1", 0) as address, served(address, known, every=3600), ExitStack() as opened:
        to = address.listener.getsockname()
        many = [opened.enter_context(closing(silent(to, sent))) for _ in range(MAX_CONNECTIONS + 2)]
        for connection in many:
            while connection.recv(4096):
                pass
        with Client(base_url=address.url) as client:
            assert client.get("/api/state").status_code == 200


def test_an_answer_that_goes_on_is_not_ended(known: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PageProtocol, "look_seconds", 0.01)
    with (
        bound("127.0.0.1", 0) as address,
        served(address, known, every=3600) as board,
        Client(base_url=address.url, timeout=10) as client,
        client.stream("GET", "/events") as stream,
    ):
        lines = stream.iter_lines()
        assert next(lines) == "retry: 2000"
        for _ in range(3):  # each is looked at once and ended, and so was the stream looked at
            with closing(silent(address.listener.getsockname())) as other:
                assert other.recv(1) == b""
        board.sources = replace(board.sources, ages=lambda: [Age(name="new", since=datetime.now(UTC))])
        board.refresh()
        assert "event: freshness" in lines


def test_the_end_does_not_wait_for_open_streams(known: Sources) -> None:
    before = set(threading.enumerate())
    with bound("127.0.0.1", 0) as address:
        with served(address, known, every=3600):
            client = Client(base_url=address.url, timeout=10)
            request = client.build_request("GET", "/events")
            response = client.send(request, stream=True)
            lines = response.iter_lines()
            assert next(lines) == "retry: 2000"
        assert list(lines)[-1] == ""  # ended, not cut off
        response.close()
        client.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("page") and t not in before]


def test_a_port_in_use_is_one_line_that_says_what_to_do() -> None:
    with bound("127.0.0.1", 0) as taken:
        port = taken.listener.getsockname()[1]
        with (
            pytest.raises(UsageError, match=rf"127\.0\.0\.1:{port}: .*; choose another --port") as told,
            bound("127.0.0.1", port),
        ):
            pass
    assert told.value.exit_code == 2
    assert "\n" not in str(told.value)


def test_beyond_loopback_it_warns_and_answers_every_name(caplog: pytest.LogCaptureFixture) -> None:
    with bound("0.0.0.0", 0) as address:  # noqa: S104 - the point of it
        assert not address.near_only
    assert "no keys" in caplog.text


def test_records_are_found_by_any_way_of_writing_their_start(client: Asking) -> None:
    start = START + timedelta(hours=6)
    for text in ("2026-02-02T06:00:00Z", "2026-02-02T06:00:00%2B00:00", "2026-02-02T08:00:00.000%2B02:00"):
        assert datetime.fromisoformat(client.get(f"/api/windows/{text}").json()["start"]) == start
