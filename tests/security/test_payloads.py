"""S07: what a request may hold and how it may be framed, against the real server; other clients are answered meanwhile."""

import gzip
import json
import socket
import tracemalloc
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from httpx import Client

from serving import body as bodies
from stream_trainer.store import ModelStore
from stream_trainer.store.storage import LocalStorage
from tests.core.test_store import Unsynced
from tests.security.measured import MIB
from tests.serving.fixtures import PIPELINE, ROWS, Harness, app_of, commit_version, learned_state, serving

GOOD = json.dumps({"instances": ROWS[:1]}).encode()


class Service:
    """A running service and what it logged."""

    def __init__(self, harness: Harness, client: Client) -> None:
        self.harness = harness
        self.client = client

    @property
    def answered(self) -> int:
        return len(self.harness.log.answered)

    def raw(self, *parts: bytes, half_close: bool = False) -> bytes:
        """Everything that comes back on one connection."""
        with socket.create_connection(("127.0.0.1", self.client.base_url.port or 0), 10) as wire:
            try:
                for part in parts:
                    wire.sendall(part)
                if half_close:
                    wire.shutdown(socket.SHUT_WR)
                return b"".join(iter(lambda: wire.recv(65_536), b""))
            except ConnectionError:
                return b""

    def healthy(self) -> None:
        before = self.answered
        answer = self.client.post("/predict", content=GOOD)
        assert answer.status_code == 200, answer.text
        assert self.answered == before + 1


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    store = ModelStore(LocalStorage(tmp_path_factory.mktemp("models"), Unsynced()), PIPELINE.name)
    commit_version(store, PIPELINE, learned_state())
    harness = Harness(store)
    harness.follower.look()
    app = app_of(harness)
    with serving(app) as client:
        yield Service(harness, client)


def row(**fields: Any) -> bytes:
    return json.dumps({"instances": [ROWS[0] | fields]}).encode()


BODIES = {
    "a million rows": b'{"instances":[' + b"{}," * 1_000_000 + b"{}]}",
    "a million nulls": b'{"instances":[' + b"null," * 1_000_000 + b"null]}",
    "many good rows": b'{"instances":[' + b",".join([json.dumps(ROWS[0]).encode()] * 40_000) + b"]}",
    "deep lists": b'{"instances":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "deep in an unknown field": GOOD[:-3] + b',"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}]}",
    "NaN": GOOD.replace(b'"distance": 0.0', b'"distance": NaN'),
    "Infinity": GOOD.replace(b'"distance": 0.0', b'"distance": Infinity'),
    "-Infinity": GOOD.replace(b'"distance": 0.0', b'"distance": -Infinity'),
    "1e400": GOOD.replace(b'"distance": 0.0', b'"distance": 1e400'),
    "-1e400": GOOD.replace(b'"distance": 0.0', b'"distance": -1e400'),
    "a number of a million digits": GOOD.replace(b'"distance": 0.0', b'"distance": ' + b"9" * 1_000_000),
    "a text of NaN": row(distance="NaN"),
    "a list for a number": row(distance=[1.0]),
    "true for a number": row(distance=True),
}


@pytest.mark.parametrize("name", BODIES)
def test_s07_a_body_that_asks_for_much_is_refused_in_bounded_memory(service: Service, name: str) -> None:
    body = BODIES[name]
    assert body != GOOD
    before = service.answered
    tracemalloc.start()
    try:
        answer = service.client.post("/predict", content=body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert answer.status_code in (413, 422), answer.text[:300]
    assert len(answer.content) < 4_096
    assert service.answered == before
    # The body at the client and at the server, and what was parsed of it before it was refused.
    assert peak < 6 * len(body) + 16 * MIB
    service.healthy()


@pytest.mark.parametrize("path", ["/predict", f"/v2/models/{PIPELINE.name}/infer"])
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "identity, gzip", "x-unknown"])
def test_s07_a_compressed_body_is_not_unpacked(service: Service, encoding: str, path: str) -> None:
    bomb = b'{"instances":[' + b" " * 64 * MIB + b"]}"
    packed = {"deflate": zlib.compress(bomb, 1)}.get(encoding, gzip.compress(bomb, 1))
    tracemalloc.start()
    try:
        answer = service.client.post(path, content=packed, headers={"content-encoding": encoding})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (answer.status_code, answer.headers["connection"]) == (415, "close")
    assert peak < 16 * MIB
    service.healthy()


@pytest.mark.parametrize("path", [b"/predict", f"/v2/models/{PIPELINE.name}/infer".encode()])
def test_s07_each_header_of_an_encoding_counts(service: Service, path: bytes) -> None:
    twice = (b"Content-Encoding: identity", b"Content-Encoding: gzip")
    answer = service.raw(request(*twice, length(len(GOOD)), path=path) + GOOD)  # read to its end: the server closes
    assert answer.startswith(b"HTTP/1.1 415")


def request(*headers: bytes, path: bytes = b"/predict") -> bytes:
    return b"\r\n".join([b"POST " + path + b" HTTP/1.1", b"Host: x", *headers, b"", b""])


def length(n: int | bytes) -> bytes:
    return b"Content-Length: " + (n if isinstance(n, bytes) else str(n).encode())


CHUNKED = b"Transfer-Encoding: chunked"
SMUGGLED = request(length(len(GOOD)), b"Connection: close") + GOOD


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def test_s07_the_raw_client_is_answered(service: Service) -> None:
    before = service.answered
    assert service.raw(SMUGGLED).startswith(b"HTTP/1.1 200")
    framed = request(CHUNKED, b"Connection: close") + chunk(GOOD) + chunk(b"")
    assert service.raw(framed).startswith(b"HTTP/1.1 200")
    assert service.answered == before + 2


def test_s07_a_length_that_is_too_large_times_out(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "BODY_SECONDS", 0.2)
    before = service.answered
    answer = service.raw(request(length(len(GOOD) + 100)) + GOOD)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"connection: close" in answer.lower()
    assert service.answered == before
    service.healthy()


def test_s07_a_length_that_is_too_large_and_a_client_that_leaves(service: Service) -> None:
    before = service.answered
    answer = service.raw(request(length(len(GOOD) + 100)) + GOOD, half_close=True)
    assert not answer.startswith(b"HTTP/1.1 200")
    assert service.answered == before
    service.healthy()


def test_s07_a_length_that_is_too_small_cuts_the_body_there(service: Service) -> None:
    before = service.answered
    answer = service.raw(request(length(len(GOOD) - 5)) + GOOD)
    statuses = [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]]
    assert statuses[0] in (b"400", b"422")
    assert set(statuses[1:]) <= {b"400"}
    assert service.answered == before
    service.healthy()


# Framings that a proxy in front may read otherwise than the server: at most the one request that both see is answered.
FRAMINGS = {
    "length and chunks": request(length(5), CHUNKED) + chunk(b"") + SMUGGLED,
    "chunks and length": request(CHUNKED, length(5)) + chunk(b"") + SMUGGLED,
    "two lengths": request(length(0), length(len(SMUGGLED))) + SMUGGLED,
    "two lengths in one": request(length(b"0, %d" % len(SMUGGLED))) + SMUGGLED,
    "a length with a sign": request(length(b"+0")) + SMUGGLED,
    "a negative length": request(length(b"-1")) + SMUGGLED,
    "a length in hex": request(length(b"0x0")) + SMUGGLED,
    "a length too long": request(length(b"9" * 40)) + SMUGGLED,
    "a space before the colon": request(b"Transfer-Encoding : chunked", length(5)) + chunk(b"") + SMUGGLED,
    "unknown coding": request(b"Transfer-Encoding: xchunked", length(0)) + SMUGGLED,
    "chunked not last": request(b"Transfer-Encoding: chunked, identity", length(0)) + SMUGGLED,
    "a folded header": request(b"Transfer-Encoding:\r\n chunked", length(5)) + chunk(b"") + SMUGGLED,
    "a vertical tab": request(b"Transfer-Encoding:\x0bchunked", length(0)) + SMUGGLED,
    "a bare line feed": request(b"X: y\nTransfer-Encoding: chunked", length(0)) + SMUGGLED,
    "a chunk that overflows": request(CHUNKED) + b"fffffffffffffffff\r\n" + SMUGGLED,
    "a chunk that is negative": request(CHUNKED) + b"-1\r\n" + SMUGGLED,
    "a chunk longer than told": request(CHUNKED) + b"1\r\nabc\r\n0\r\n\r\n" + SMUGGLED,
    "a NUL in a name": request(b"X\0Y: z", length(0)) + SMUGGLED,
}


@pytest.mark.parametrize("name", FRAMINGS)
def test_s07_no_second_request_is_smuggled_past_a_doubtful_framing(
    service: Service, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "BODY_SECONDS", 0.2)
    before = service.answered
    answer = service.raw(FRAMINGS[name], half_close=True)
    statuses = [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]]
    assert service.answered == before, (name, answer)
    assert b"200" not in statuses
    service.healthy()
