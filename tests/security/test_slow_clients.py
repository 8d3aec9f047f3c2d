"""Clients that are slow, silent, endless or gone keep nothing of the service."""

import json
import logging
import socket
import threading
from contextlib import ExitStack

import pytest

from tests.security.sockets import Running, read_all, running, status_of

HEAD = b"GET / HTTP/1.1\r\nhost: x\r\n"
WHOLE = HEAD + b"\r\n"


def problem_of(answer: bytes) -> dict[str, object]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head
    assert b"connection: close" in head
    assert b"x-content-type-options: nosniff" in head
    found: dict[str, object] = json.loads(body)
    return found


def drip(client: socket.socket, part: bytes, stop: threading.Event) -> None:
    """Sends a little again and again, faster than any bound, until the server has had enough."""
    try:
        while not stop.wait(0.005):
            client.sendall(part)
    except OSError:
        pass


@pytest.mark.parametrize(
    ("first", "part", "status"),
    [
        (b"GET / HTTP/1.1\r\n", b"x: y\r\n", 408),
        (b"G", b"", 408),
        (b"POST / HTTP/1.1\r\nhost: x", b"x", 408),
        (b"", b"\r\n", None),
        (b"", b"", None),
    ],
    ids=["headers for ever", "one letter", "one header for ever", "empty lines", "nothing"],
)
def test_s07_a_head_that_never_ends_is_ended(first: bytes, part: bytes, status: int | None) -> None:
    with running(head_seconds=0.2) as service, service.connect() as client:
        client.sendall(first)
        stop = threading.Event()
        sender = threading.Thread(target=drip, args=(client, part, stop))
        sender.start()
        answer = read_all(client)
        stop.set()
        sender.join()
        assert service.settled(lambda: service.connections() == 0)
        # Bytes that were on their way when we closed make the kernel reset, and the answer may be lost with that.
        if status is not None and answer:
            assert status_of(answer) == status
            assert problem_of(answer)["reason"] == "head_timeout"
        assert service.cut("silent" if status is None else "head_timeout") == 1


def test_s07_the_same_on_a_connection_that_was_well_behaved(stop_soon: threading.Event) -> None:
    with running(head_seconds=0.2, keep_alive_seconds=60) as service, service.connect() as client:
        client.sendall(WHOLE)
        assert status_of(client.recv(4096)) == 200
        sender = threading.Thread(target=drip, args=(client, b"\r\n", stop_soon))
        sender.start()
        read_all(client)
        stop_soon.set()
        sender.join()
        assert service.settled(lambda: service.connections() == 0)


def test_s07_the_same_for_a_body_whose_answer_is_given(stop_soon: threading.Event) -> None:
    with running(head_seconds=0.2, keep_alive_seconds=60) as service, service.connect() as client:
        client.sendall(b"POST /early HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000000\r\n\r\n")
        assert status_of(client.recv(4096)) == 200
        sender = threading.Thread(target=drip, args=(client, b"x", stop_soon))
        sender.start()
        read_all(client)
        stop_soon.set()
        sender.join()
        assert service.settled(lambda: service.connections() == 0)


@pytest.fixture
def stop_soon() -> threading.Event:
    return threading.Event()


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("shape", ["one header", "many headers", "the line"])
def test_s07_a_head_that_is_too_large_is_refused(shape: str, whole: bool) -> None:
    head = {
        "one header": HEAD + b"x: " + b"y" * 9000,
        "many headers": HEAD + b"".join(b"x%d: y\r\n" % i for i in range(1500))[:-2],
        "the line": b"GET /" + b"y" * 9000,
    }[shape]
    end = b" HTTP/1.1\r\n\r\n" if shape == "the line" else b"\r\n\r\n"
    with running(max_head_bytes=4096, head_seconds=60) as service, service.connect() as client:
        client.sendall(head + (end if whole else b""))
        answer = read_all(client)
        assert status_of(answer) == 431
        assert problem_of(answer)["reason"] == "head_too_large"
        assert service.settled(lambda: service.connections() == 0)


def test_s07_so_is_one_whose_pieces_are_each_small_enough() -> None:
    piece = b"x: " + b"y" * 2500 + b"\r\n"
    with running(max_head_bytes=4096, head_seconds=60) as service, service.connect() as client:
        client.sendall(HEAD)
        assert service.settled(lambda: begun(service) == len(HEAD))
        client.sendall(piece)
        assert service.settled(lambda: begun(service) == len(HEAD + piece))
        client.sendall(piece + b"\r\n")
        assert status_of(client.recv(4096)) == 431


def begun(service: Running) -> int:
    """So many bytes of an unfinished head the one connection has taken."""
    return sum(protocol._head_bytes for protocol in service.server.server_state.connections)  # type: ignore[union-attr]


def test_s07_trailers_without_end_are_refused() -> None:
    with running(head_seconds=60) as service, service.connect() as client:
        client.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n")
        stop = threading.Event()
        sender = threading.Thread(target=drip, args=(client, b"x: y\r\n", stop))
        sender.start()
        read_all(client)
        stop.set()
        sender.join()
        assert service.settled(lambda: service.connections() == 0)
        assert service.cut("head_too_large") == 1


def test_s07_a_large_body_and_a_head_in_pieces_are_fine() -> None:
    with running(max_head_bytes=1024, head_seconds=60) as service, service.connect() as client:
        client.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n" + b"x" * 1_000_000)
        assert status_of(client.recv(4096)) == 200
        for letter in WHOLE:
            client.sendall(bytes([letter]))
        assert status_of(client.recv(4096)) == 200
        client.sendall(WHOLE * 20)
        seen = b""
        while seen.count(b"HTTP/1.1 200") < 20:
            seen += client.recv(2**16)
        assert sum(service.cut(reason) for reason in ("head_timeout", "silent", "head_too_large", "unread")) == 0


def test_s07_what_is_not_http_is_a_problem_too() -> None:
    with running() as service, service.connect() as client:
        client.sendall(b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n")
        answer = read_all(client)
        assert status_of(answer) == 400
        assert problem_of(answer)["reason"] == "not_http"
        assert service.settled(lambda: service.connections() == 0)


@pytest.mark.parametrize(
    "request_bytes",
    [b"\x00\r\n\r\n", HEAD + b"connection: upgrade\r\nupgrade: websocket\r\n\r\n"],
    ids=["not HTTP", "an upgrade"],
)
def test_s15_bad_requests_write_no_line_of_the_log(request_bytes: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with running() as service:
        for _ in range(3):
            with service.connect() as client:
                client.sendall(request_bytes)
                assert status_of(client.recv(4096)) in (200, 400)
        assert service.settled(lambda: service.connections() == 0)
    assert [r.getMessage() for r in caplog.records if r.levelno > logging.INFO] == []


def read_by_nobody(service: Running, path: bytes) -> socket.socket:
    client = service.connect(receive_buffer=2048)
    client.sendall(b"GET /?" + path + b" HTTP/1.1\r\nhost: x\r\n\r\n")
    return client


def test_f35_an_answer_that_nobody_reads_is_given_up() -> None:
    with running(send_seconds=0.2, keep_alive_seconds=60) as service, read_by_nobody(service, b"50000000"):
        assert service.settled(lambda: service.cut("unread") == 1)
        assert service.settled(lambda: service.connections() == 0 and not service.server.server_state.tasks)


def test_f35_a_client_that_leaves_in_the_middle_leaves_nothing_behind() -> None:
    with running() as service:
        for request in (b"", b"GE", HEAD, b"POST / HTTP/1.1\r\ncontent-length: 9\r\n\r\nx", WHOLE * 3):
            client = service.connect()
            client.sendall(request)
            client.close()
        assert service.settled(lambda: service.connections() == 0 and not service.server.server_state.tasks)


def test_f35_half_open_sockets_do_not_accumulate_and_others_are_answered() -> None:
    with running(head_seconds=0.3) as service, ExitStack() as stack:
        silent = [stack.enter_context(service.connect()) for _ in range(100)]
        assert service.settled(lambda: service.connections() == 100)
        with service.connect() as client:
            client.sendall(WHOLE)
            assert status_of(client.recv(4096)) == 200
        assert service.settled(lambda: service.connections() == 0)
        assert all(one.recv(1) == b"" for one in silent)
        assert service.cut("silent") >= 100


def test_s07_so_many_connections_and_no_more() -> None:
    with running(max_connections=3, head_seconds=60) as service, ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(service.connect())
        assert service.settled(lambda: service.connections() == 3)
        with service.connect() as fourth:
            assert read_all(fourth) == b""
        assert service.cut("too_many") == 1
        stack.close()
        assert service.settled(lambda: service.connections() == 0)
        with service.connect() as client:
            client.sendall(WHOLE)
            assert status_of(client.recv(4096)) == 200


def test_an_idle_connection_is_closed() -> None:
    with running(keep_alive_seconds=1) as service, service.connect() as client:
        client.sendall(WHOLE)
        assert status_of(read_all(client)) == 200
        assert service.settled(lambda: service.connections() == 0)


def test_s16_answers_say_nothing_about_the_server_and_are_not_kept() -> None:
    with running() as service, service.connect() as client:
        client.sendall(WHOLE)
        head = client.recv(4096).lower()
        assert b"server:" not in head
        assert b"x-content-type-options: nosniff" in head
        assert b"cache-control: no-store" in head
        assert b"strict-transport-security" not in head
