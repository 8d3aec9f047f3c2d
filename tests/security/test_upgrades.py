"""An offer to speak another protocol changes nothing about how a request is read: not its body, not where it ends."""

import json
from functools import partial

import pytest
from starlette.types import Receive, Scope, Send

from serving.protocol import BoundedProtocol
from tests.security.sockets import Running, read_all, running, status_of

INNER = b"GET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n"
H2C = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"
WEBSOCKET = b"upgrade: websocket\r\nconnection: Upgrade\r\n"
LAST = b"GET /last HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"


async def tell(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with what came: path, body and names of headers."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    names = [name.decode() for name, _ in scope["headers"]]
    told = json.dumps({"path": scope["path"], "body": body.decode(), "names": names}).encode()
    headers = [(b"content-length", b"%d" % len(told))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": told})


def post(offer: bytes, body: bytes, *, chunked: bool) -> bytes:
    head = b"POST /predict?a=1 HTTP/1.1\r\nhost: x\r\n" + offer
    if chunked:
        return head + b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    return head + b"content-length: %d\r\n\r\n%b" % (len(body), body)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What the server has read, as it came."""
    parts: list[bytes] = []
    real = BoundedProtocol.data_received

    def data_received(self: BoundedProtocol, data: bytes) -> None:
        parts.append(data)
        real(self, data)

    monkeypatch.setattr(BoundedProtocol, "data_received", data_received)
    return parts


def answers(service: Running, reads: list[bytes], pieces: list[bytes]) -> list[tuple[str, str]]:
    """Path and body of every request that was answered, each piece having been read before the next was sent."""
    with service.connect() as client:
        for i in range(len(pieces)):
            client.sendall(pieces[i])
            sent = sum(map(len, pieces[: i + 1]))
            assert service.settled(partial(_all_read, reads, sent))
        told = read_all(client)
    bodies = [part.partition(b"\r\n\r\n")[2] for part in told.split(b"HTTP/1.1 200 OK")[1:]]
    found = [json.loads(body) for body in bodies]
    assert all("upgrade" not in one["names"] for one in found)
    return [(one["path"], one["body"]) for one in found]


def _all_read(reads: list[bytes], size: int) -> bool:
    return sum(map(len, reads)) == size


@pytest.mark.parametrize("chunked", [True, False], ids=["chunked", "content-length"])
@pytest.mark.parametrize("offer", [b"", H2C, WEBSOCKET], ids=["none", "h2c", "websocket"])
@pytest.mark.parametrize("cut", ["nowhere", "in the head", "after the head", "in the body"])
def test_a_body_after_an_offer_is_the_body_of_its_request(
    offer: bytes, cut: str, chunked: bool, reads: list[bytes]
) -> None:
    request = post(offer, INNER, chunked=chunked)
    end = request.index(b"\r\n\r\n") + 4
    at = {"nowhere": 0, "in the head": end - 20, "after the head": end, "in the body": end + 12}[cut]
    pieces = [piece for piece in (request[:at], request[at:], LAST) if piece]
    with running(tell) as service:
        assert answers(service, reads, pieces) == [("/predict", INNER.decode()), ("/last", "")]


def test_requests_in_one_piece_are_answered_in_order_whatever_they_offer(reads: list[bytes]) -> None:
    offered = INNER.replace(b"host: x\r\n", b"host: x\r\n" + H2C)
    piece = offered * 20 + post(H2C, b"one", chunked=False) + INNER + post(WEBSOCKET, b"two", chunked=True) + LAST
    expected = [("/smuggled", "")] * 20 + [("/predict", "one"), ("/smuggled", ""), ("/predict", "two"), ("/last", "")]
    with running(tell) as service:
        assert answers(service, reads, [piece]) == expected


def test_an_offer_on_a_connection_that_is_to_be_closed_is_answered_once(reads: list[bytes]) -> None:
    request = post(H2C.replace(b"Upgrade,", b"Upgrade, close,"), b"one", chunked=False)
    with running(tell) as service:
        assert answers(service, reads, [request + INNER]) == [("/predict", "one")]


def test_a_tunnel_is_refused() -> None:
    with running(tell) as service, service.connect() as client:
        client.sendall(b"CONNECT /x HTTP/1.1\r\nhost: x\r\n\r\n" + INNER)
        answer = read_all(client)
    assert status_of(answer) == 400
    assert answer.count(b"HTTP/1.1") == 2  # of the status, and of the problem's words
