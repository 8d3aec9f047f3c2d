"""Who may ask what: every route of both ports, with and without each kind of key."""

import asyncio
import hmac
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from serving.access import ADMIN, ADMIN_PORT, PUBLIC, Gate, Table, presented
from serving.keys import Caller
from serving.metrics import Metrics
from stream_trainer.store import ModelStore
from tests.security.callers import Callers, bearer, client, doors, routes_of
from tests.serving.fixtures import ROWS

# Written down again, apart from the table under test. A route that is added is added here too, by whoever decided.
PUBLIC_ROUTES = {
    "/predict": "predict",
    "/lineage/{version}": "predict",
    "/metrics": "predict",
    "/openapi.json": "predict",
    "/docs": "predict",
    "/docs/oauth2-redirect": "predict",
    "/health/live": None,
    "/health/ready": None,
    "/v2": "predict",
    "/v2/health/live": None,
    "/v2/health/ready": None,
    "/v2/models/{name}": "predict",
    "/v2/models/{name}/ready": "predict",
    "/v2/models/{name}/infer": "predict",
    "/v2/models/{name}/versions/{version}": "predict",
    "/v2/models/{name}/versions/{version}/ready": "predict",
    "/v2/models/{name}/versions/{version}/infer": "predict",
    "/v2/{rest:path}": "predict",
    "/": None,
    "/static/page.js": None,
    "/static/page.css": None,
    "/static/icon.svg": None,
    "/page/state": "predict",
    "/page/contract": "predict",
}
ADMIN_ROUTES = {
    "/promote": "admin",
    "/rollback": "admin",
    "/pin": "admin",
    "/release": "admin",
    "/reload": "admin",
    "/status": "admin",
    "/health/live": None,
}
# Paths of parts that may or may not be there yet, and what they take when they are.
LATER: dict[str, str | None] = {
    "/feedback": "feedback",
}
WHO = ("none", "bad", "basic", "two", "expired", "predict", "feedback", "admin")


def headers_of(callers: Callers, who: str) -> list[tuple[str, str]]:
    known = callers.texts
    odd = {
        "none": [],
        "bad": [("authorization", f"Bearer {known['admin'][:-1]}{'0' if known['admin'][-1] != '0' else '1'}")],
        "basic": [("authorization", "Basic " + known["admin"])],
        "two": [("x-api-key", known["admin"]), ("x-api-key", known["predict"])],
    }
    return odd[who] if who in odd else [("x-api-key", known[who])]


def expected(need: str | None, who: str) -> int | None:
    """The status of who is stopped, None for whoever gets through."""
    if need is None:
        return None
    if who not in ("predict", "feedback", "admin"):
        return 401
    return None if who == need else 403


def paths_of(routes: dict[str, set[str]]) -> list[tuple[str, str, str]]:
    return [
        (path, re.sub(r"\{[^}]*\}", "1", path), method)
        for path, methods in routes.items()
        for method in methods - {"HEAD", "OPTIONS"}
    ]


@pytest.mark.parametrize("port", ["public", "admin"])
def test_s05_every_route_takes_the_scope_that_is_written_down_for_it(
    store: ModelStore, callers: Callers, port: str
) -> None:
    there = doors(store, callers.ring())
    app, gate, needs = {
        "public": (there.public_app, there.public, PUBLIC_ROUTES | LATER),
        "admin": (there.admin_app, there.admin, ADMIN_ROUTES),
    }[port]
    routes = routes_of(app)
    assert len(routes) >= 7
    asker = client(gate)
    for path, concrete, method in paths_of(routes):
        named = path if path in needs else concrete
        assert named in needs, f"{path} is new: write down in this test what it takes"
        for who in WHO:
            answer = asker.request(method, concrete, headers=headers_of(callers, who), follow_redirects=False)
            wanted = expected(needs[named], who)
            if wanted is None:
                assert answer.status_code not in (401, 403), (method, path, who)
            else:
                assert answer.status_code == wanted, (method, path, who)


@pytest.mark.parametrize("port", ["public", "admin"])
def test_s05_every_route_is_in_the_table(store: ModelStore, callers: Callers, port: str) -> None:
    there = doors(store, callers.ring())
    app, table = (there.public_app, PUBLIC) if port == "public" else (there.admin_app, ADMIN_PORT)
    for path, concrete, _ in paths_of(routes_of(app)):
        assert table.named(concrete) is not None, f"{path} is not in the table of serving/access.py"


def test_s05_a_route_that_nobody_wrote_down_is_closed(store: ModelStore, callers: Callers) -> None:
    there = doors(store, callers.ring())

    async def said(_: Any) -> Any:
        raise AssertionError

    there.public_app.routes.append(Route("/new", said))  # type: ignore[attr-defined]
    assert "/new" in routes_of(there.public_app)
    assert PUBLIC.named("/new") is None
    assert [client(there.public).get("/new", headers=headers_of(callers, w)).status_code for w in WHO[:-1]] == (
        [401] * 5 + [403] * 2
    )


@pytest.mark.parametrize(("path", "scope"), LATER.items())
def test_s05_paths_of_other_parts_take_what_is_written_down(path: str, scope: str | None) -> None:
    assert PUBLIC.need(path).scope == scope


@given(st.text(alphabet="/.%abv2helthpagsicrdy\x00é", max_size=30).map(lambda text: "/" + text))
def test_s05_what_is_open_is_a_short_list(path: str) -> None:
    opened = {path for path, scope in (PUBLIC_ROUTES | LATER).items() if scope is None}
    if PUBLIC.need(path).scope is None:
        assert path in opened or (path.startswith("/static/") and ".." not in path)
    if ADMIN_PORT.need(path).scope is None:
        assert path == "/health/live"


@pytest.mark.parametrize(
    "path", ["/predict/", "//predict", "/PREDICT", "/health/live/", "/static/../predict", "/promote", "/v2health"]
)
def test_s05_what_only_looks_like_a_path_of_the_table_is_closed(path: str) -> None:
    assert PUBLIC.need(path) == ADMIN


def test_s05_whoever_is_refused_learns_nothing_and_all_are_refused_alike(store: ModelStore, callers: Callers) -> None:
    asker = client(doors(store, callers.ring()).public)
    answers = [asker.get("/metrics", headers=headers_of(callers, who)) for who in WHO[:5]]
    assert {a.content for a in answers} == {answers[0].content}
    for answer in answers:
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json() == {
            "type": "about:blank",
            "title": "Unauthorized",
            "status": 401,
            "detail": "this takes an API key",
            "reason": "unauthorized",
        }


def test_s05_a_refusal_has_the_form_of_the_protocol_that_was_spoken(store: ModelStore, callers: Callers) -> None:
    answer = client(doors(store, callers.ring()).public).post("/v2/models/flights/infer", json={})
    assert (answer.status_code, answer.headers["content-type"]) == (401, "application/json")
    assert (answer.json()["error"], answer.json()["reason"]) == ("this takes an API key", "unauthorized")
    assert answer.headers["www-authenticate"] == "Bearer"


def test_s05_keys_are_compared_in_constant_time_also_those_that_nobody_has(
    callers: Callers, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[int, int]] = []
    real = hmac.compare_digest

    def watched(given: bytes, known: bytes) -> bool:
        compared.append((len(given), len(known)))
        return real(given, known)

    monkeypatch.setattr("serving.keys.compare_digest", watched)
    ring = callers.ring()
    good = callers.texts["predict"]
    unknown = "st_" + "0" * 12 + good[15:]
    assert ring.verify(good.encode()) is not None
    assert [ring.verify(text.encode()) for text in (unknown, good[:-1] + "-", callers.texts["expired"])] == [None] * 3
    assert compared == [(32, 32)] * 4


def test_s05_the_caller_is_told_to_whoever_answers(callers: Callers) -> None:
    seen: list[Caller] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["state"]["caller"])
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    gate = Gate(app, PUBLIC, keys=callers.ring(), metrics=Metrics(), most=1)
    client(gate).post("/predict", headers=bearer(callers.texts["predict"]))
    client(gate).get("/health/live", headers=bearer(callers.texts["predict"]))
    key = callers.keys["predict"]
    assert seen == [Caller(key.id, "predict", frozenset({"predict"})), Caller("", "nobody", frozenset())]


def test_s05_a_key_is_shown_in_one_way() -> None:
    bearer, other = (b"authorization", b"bEARER  k "), (b"x-api-key", b"x")
    assert presented([(b"host", b"h"), bearer]) == b"k"
    assert presented([bearer, other]) == b"x"
    for bad in ([], [bearer, bearer], [other, other], [(b"authorization", b"Basic k")], [(b"authorization", b"k")]):
        assert presented(bad) is None


def test_s05_a_web_socket_is_closed_and_a_lifespan_reaches_the_app(callers: Callers) -> None:
    reached: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        reached.append(scope["type"])

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        raise AssertionError

    gate = Gate(app, PUBLIC, keys=callers.ring(), metrics=Metrics(), most=1)
    for kind in ("websocket", "lifespan"):
        asyncio.run(gate({"type": kind, "path": "/predict", "headers": []}, receive, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]
    assert reached == ["lifespan"]


def test_s06_no_order_is_carried_out_on_the_public_port(store: ModelStore, callers: Callers) -> None:
    there = doors(store, callers.ring())
    admin_only = set(ADMIN_ROUTES) - {"/health/live"}
    assert not admin_only & set(routes_of(there.public_app))
    for path in admin_only:
        for method in ("GET", "POST"):
            answer = client(there.public).request(
                method, path, headers=bearer(callers.texts["admin"]), json={"version": 1}
            )
            assert answer.status_code == 404, path
    assert store.alias_entry("champion") == (0, None)


def test_s06_production_has_neither_docs_nor_a_document(store: ModelStore, callers: Callers) -> None:
    there = doors(store, callers.ring(), profile="production")
    for path in ("/docs", "/openapi.json", "/redoc"):
        assert client(there.public).get(path).status_code == 401
        assert client(there.public).get(path, headers=bearer(callers.texts["admin"])).status_code in (403, 404)
        assert path not in routes_of(there.public_app)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8000", 200),
        ("localhost", 200),
        ("LOCALHOST:1", 200),
        ("[::1]", 200),
        ("[::1]:8000", 200),
        ("127.9.9.9", 200),
        ("evil.example", 421),
        ("127.0.0.1.evil.example:8000", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1@evil.example", 421),
        ("10.0.0.1", 421),
        ("0.0.0.0:8000", 421),
        ("", 421),
    ],
)
@pytest.mark.parametrize("port", ["public", "admin"])
def test_s05_without_keys_only_loopback_names_are_answered(
    store: ModelStore, host: str, status: int, port: str
) -> None:
    there = doors(store, None)
    asker = client(there.public if port == "public" else there.admin)
    assert asker.get("/health/live", headers={"host": host}).status_code == status


def test_s05_without_keys_a_page_of_another_site_can_neither_ask_nor_decide(store: ModelStore) -> None:
    there = doors(store, None)
    for origin in ("https://evil.example", "null", "http://127.0.0.1.evil.example", "file://", "http://[::1"):
        answer = client(there.admin).post("/rollback", headers={"origin": origin}, json={})
        assert (answer.status_code, answer.json()["reason"]) == (403, "foreign_origin"), origin
    assert store.alias_entry("champion") == (0, None)
    assert client(there.public).get("/metrics", headers={"origin": "http://localhost:3000"}).status_code == 200
    answer = client(there.public).post("/predict", json={"instances": ROWS})
    assert answer.status_code == 200


def test_s05_two_host_headers_are_refused_without_keys() -> None:
    answers: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError

    async def send(message: Message) -> None:
        answers.append(message)

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    gate = Gate(app, Table({}), keys=None, metrics=Metrics(), most=1)
    for headers in ([(b"host", b"127.0.0.1"), (b"host", b"evil.example")], []):
        asyncio.run(gate({"type": "http", "path": "/", "headers": headers, "method": "GET"}, receive, send))
    assert [m["status"] for m in answers if "status" in m] == [421, 421]


def test_cors_is_off_and_lists_who_may_ask(store: ModelStore, callers: Callers) -> None:
    shop = {"origin": "https://shop.example"}
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "x-api-key"}
    off = client(doors(store, callers.ring()).public)
    assert "access-control-allow-origin" not in off.get("/health/live", headers=shop).headers
    assert off.request("OPTIONS", "/predict", headers=shop | asked).status_code == 401


def test_cors_answers_a_preflight_without_a_key_and_errors_readably(store: ModelStore, callers: Callers) -> None:
    shop = {"origin": "https://shop.example"}
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "x-api-key"}
    listed = client(doors(store, callers.ring(), cors_origins=["https://shop.example"]).public)
    answer = listed.request("OPTIONS", "/predict", headers=shop | asked)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "https://shop.example")
    assert "access-control-allow-credentials" not in answer.headers
    refused = listed.get("/metrics", headers=shop)
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, "https://shop.example")
    other = listed.get("/health/live", headers={"origin": "https://evil.example"})
    assert "access-control-allow-origin" not in other.headers


@pytest.mark.parametrize(
    "header",
    ["x-min-model-version", "x-max-staleness", "x-on-conflict", "inference-header-content-length", "traceparent"],
)
def test_cors_lets_a_page_send_what_the_documents_name(store: ModelStore, callers: Callers, header: str) -> None:
    shop = {"origin": "https://shop.example"}
    asked = {"access-control-request-method": "POST", "access-control-request-headers": f"content-type,{header}"}
    listed = client(doors(store, callers.ring(), cors_origins=["https://shop.example"]).public)
    assert listed.request("OPTIONS", "/predict", headers=shop | asked).status_code == 200
    exposed = listed.get("/health/live", headers=shop).headers["access-control-expose-headers"]
    assert exposed == "retry-after, inference-header-content-length"


def test_s16_no_error_tells_a_path_a_stack_or_a_version(
    store: ModelStore, callers: Callers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = doors(store, callers.ring())
    public, admin = client(there.public), client(there.admin)
    texts = {name: bearer(text) for name, text in callers.texts.items()}
    order = texts["admin"]

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError(f"{tmp_path}/secret")

    answers = [
        public.get("/nothing", headers=texts["admin"]),
        public.get("/predict", headers=texts["predict"]),
        public.get("/metrics"),
        public.get("/metrics", headers=texts["feedback"]),
        public.get("/lineage/99", headers=texts["predict"]),
        public.get("/lineage/x", headers=texts["predict"]),
        public.post("/predict", headers=texts["predict"], content=b"{"),
        admin.post("/promote", headers=order, json={"version": 99}),
        admin.post("/promote", headers=order, json={"version": "../../etc/passwd"}),
        admin.post("/promote", headers=order, json={"path": "/etc/passwd"}),
        admin.post("/promote", headers=order, content=b"{}"),
        admin.post("/promote", headers=order, json={}),
        admin.post("/release", headers=order, json={}),
        admin.post("/nothing", headers=order),
        admin.get("/promote", headers=order),
    ]
    monkeypatch.setattr("stream_trainer.championing.pin", broken)
    answers.append(admin.post("/pin", headers=order, json={"version": 1}))
    assert answers[-1].status_code == 500
    for answer in answers:
        assert 400 <= answer.status_code <= 500
        assert answer.headers["content-type"] == "application/problem+json", answer.text
        assert {"type", "title", "status", "detail", "reason"} <= answer.json().keys()
        told = f"{answer.text}{answer.headers}".lower()
        for word in (str(tmp_path), "traceback", ".py", "uvicorn", "starlette", "fastapi", "python", "/work", "line "):
            assert word.lower() not in told, answer.text
