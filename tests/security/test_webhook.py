"""S11: the webhook of alerts calls no address of the inside, whatever its URL, its name server or its answer says."""

import hashlib
import hmac
import ipaddress
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pydantic import SecretStr, ValidationError

from monitors import outgoing, webhook
from monitors.outgoing import Failed, Forbidden, choose, is_public, look_up, parse, post
from monitors.status import Metrics
from stream_trainer.errors import UsageError
from stream_trainer.settings import MonitorSettings, Settings
from tests.monitors.worlds import alert

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ALERT = alert(alert_key="drift/distance", severity="critical", feature="distance", message="distance differs")
BODY = msgspec.json.encode(ALERT)


def never(host: str, port: int) -> list[str]:
    raise AssertionError(f"{host} was looked up")


def leads_to(*addresses: str) -> outgoing.Resolver:
    return lambda host, port: addresses


@pytest.fixture(autouse=True)
def connected(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every address that something tried to connect to; only loopback is let through."""
    tried: list[Any] = []
    real = socket.create_connection

    def watched(address: tuple[str, int], *args: Any, **options: Any) -> socket.socket:
        tried.append(address)
        if address[0] not in ("127.0.0.1", "::1"):
            raise OSError("there is no outside in a test")
        return real(address, *args, **options)

    monkeypatch.setattr(socket, "create_connection", watched)
    return tried


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "gopher://example.com/",
        "ftp://example.com/",
        "dict://example.com:11211/",
        "data:text/plain,x",
        "javascript:alert(1)",
        "example.com/hook",
        "//example.com/hook",
        "",
        "http://",
        "http:///path",
        "http://user:password@example.com/",
        "http://127.0.0.1@example.com/",
        "http://example.com@127.0.0.1/",
        "http://example.com#@127.0.0.1/",
        "http://example.com\\@127.0.0.1/",
        "http://exam ple.com/",
        "http://example.com/\r\nX: y",
        "http://exa\tmple.com/",
        "http://ex\u00e4mple.com/",
        "http://\u2460\u2461\u2466.0.0.1/",
        "http://127\u30020.0.1/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0x7f.0.0.1/",
        "http://0177.0.0.1/",
        "http://017700000001/",
        "http://127.1/",
        "http://127.0.1/",
        "http://0/",
        "http://example.0x7f/",
        "http://127.0.0.1.1/",
        "http://[::1%25lo]/",
        "http://[fe80::1%eth0]/",
        "http://[::1/",
        "http://::1/",
        "http://[127.0.0.1]/",
        "http://[v1.x]/",
        "http://example.com:0/",
        "http://example.com:99999/",
        "http://example.com:x/",
        "http://" + "a" * 300 + ".com/",
        "http://-a.com/",
        "http://a..com/",
    ],
)
def test_s11_a_url_that_readers_disagree_about_is_forbidden(url: str) -> None:
    with pytest.raises(Forbidden):
        parse(url)
    with pytest.raises((UsageError, ValidationError)):
        webhook.webhook_of(MonitorSettings(webhook_url=SecretStr(url)), lambda _: None)


def test_s11_a_plain_url_is_read() -> None:
    found = parse("https://Hooks.Example.com./a/b?c=d")
    assert (found.scheme, found.host, found.port, found.path) == ("https", "hooks.example.com", 443, "/a/b?c=d")
    assert parse("http://[2606:4700::1]:8080").port == 8080
    assert str(parse("https://hooks.example.com/secret")) == "https://hooks.example.com:443"


INSIDE = [
    "169.254.169.254",
    "127.0.0.1",
    "127.255.255.254",
    "0.0.0.0",  # noqa: S104 - refused
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "100.64.0.1",
    "192.0.0.8",
    "192.0.2.1",
    "198.18.0.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:8.8.8.8",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "2002:7f00:1::",
    "2001::1",
    "2001:db8::1",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "fc00::1",
    "fd00:ec2::254",
    "ff02::1",
]


@pytest.mark.parametrize("address", INSIDE)
def test_s11_an_address_of_the_inside_is_not_called(address: str, connected: list[Any]) -> None:
    for resolver in (leads_to(address), leads_to("8.8.8.8", address), leads_to(address, "8.8.8.8")):
        with pytest.raises(Forbidden, match="not a public address"):
            post(parse("http://hooks.example.com/"), b"", {}, resolver=resolver)
    with pytest.raises(Forbidden):
        post(parse("http://hooks.example.com/"), b"", {}, resolver=leads_to(address), allow=["hooks.example.com"])
    assert connected == []


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "172.32.0.1", "2606:4700::1111", "2a00:1450::1"])
def test_s11_a_public_address_is_public(address: str) -> None:
    assert choose(parse("http://hooks.example.com/"), (), leads_to(address)) == [address]


@pytest.mark.parametrize("host", ["localhost", "[::1]", "127.0.0.1", "169.254.169.254", "[::ffff:127.0.0.1]"])
def test_s11_the_systems_resolver_leads_nowhere_inside(host: str, connected: list[Any]) -> None:
    with pytest.raises(Forbidden, match="not a public address"):
        post(parse(f"http://{host}:9/"), b"", {})
    assert connected == []


def test_s11_a_name_that_leads_elsewhere_the_second_time_is_asked_once(connected: list[Any]) -> None:
    answers = iter([["8.8.8.8"], ["127.0.0.1"], ["127.0.0.1"]])
    asked: list[str] = []

    def rebinding(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return next(answers)

    with pytest.raises(Failed):
        post(parse("http://rebind.example.com/"), b"", {}, resolver=rebinding)
    assert asked == ["rebind.example.com"]
    assert connected == [("8.8.8.8", 80)]
    with pytest.raises(Forbidden):
        post(parse("http://rebind.example.com/"), b"", {}, resolver=rebinding)
    assert connected == [("8.8.8.8", 80)]


def test_s11_a_look_up_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch, connected: list[Any]) -> None:
    released = threading.Event()

    def hang(*_: object, **__: object) -> None:
        released.wait(60)
        raise OSError("at last")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    resolver = partial(look_up, seconds=0.05)
    try:
        with pytest.raises(Failed, match="cannot be looked up: no answer within") as failed:
            post(parse("http://hooks.example.com/"), b"", {}, resolver=resolver)
    finally:
        released.set()
    assert failed.value.again
    assert connected == []


def test_s11_what_the_resolver_refuses_is_a_failed_look_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise UnicodeError("label too long")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises(Failed, match="label too long"):
        post(parse("http://hooks.example.com/"), b"", {})


def test_s11_a_body_that_is_too_large_is_not_sent() -> None:
    with pytest.raises(Failed, match="at most 262144 are sent") as failed:
        post(parse("http://hooks.example.com/"), bytes(outgoing.MAX_BODY_BYTES + 1), {}, resolver=never)
    assert not failed.value.again


def test_s11_with_a_list_only_what_is_on_it_is_called() -> None:
    target = parse("https://hooks.example.com/")
    for allow in (["hooks.example.com"], ["HOOKS.example.com:443"], ["other", "hooks.example.com"]):
        assert choose(target, allow, leads_to("8.8.8.8")) == ["8.8.8.8"]
    for allow in (["example.com"], ["hooks.example.com:80"], [".example.com"], ["8.8.8.8"], [""]):
        with pytest.raises(Forbidden, match="webhook_allow"):
            choose(target, allow, leads_to("8.8.8.8"))


def test_s11_a_private_address_needs_its_address_and_port_on_the_list() -> None:
    target = parse("http://hooks.example.com:9000/")
    assert choose(target, ["10.0.0.5:9000"], leads_to("10.0.0.5")) == ["10.0.0.5"]
    for allow in (["10.0.0.5"], ["10.0.0.5:80"], ["10.0.0.0/8:9000"], ["hooks.example.com:9000"]):
        with pytest.raises(Forbidden):
            choose(target, allow, leads_to("10.0.0.5"))
    for never_allowed in ("169.254.169.254", "224.0.0.1", "0.0.0.0"):  # noqa: S104 - refused
        with pytest.raises(Forbidden):
            choose(target, [f"{never_allowed}:9000"], leads_to(never_allowed))
    assert not is_public(ipaddress.ip_address("10.0.0.5"))


# Real servers on loopback, which the list permits.


@dataclass
class Receiver:
    """What a server was sent, and how it answers."""

    answer: Callable[[BaseHTTPRequestHandler], None]
    got: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    port: int = 0

    @property
    def allow(self) -> list[str]:
        return [f"127.0.0.1:{self.port}"]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?token=secret"


def plain(status: int, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("content-length", "0")
        handler.end_headers()

    return answer


@contextmanager
def receiver(answer: Callable[[BaseHTTPRequestHandler], None], tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    found = Receiver(answer)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            found.got.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            found.answer(self)

        def log_message(self, *_: object) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            pass

    server = Quiet(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    found.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_s11_a_redirect_to_the_inside_is_not_followed() -> None:
    with receiver(plain(200)) as inside:
        for status in (301, 302, 303, 307, 308):
            with receiver(plain(status, location=inside.url)) as outside:
                with pytest.raises(Failed, match="redirects are not followed") as failed:
                    post(parse(outside.url), b"{}", {}, allow=outside.allow + inside.allow)
                assert not failed.value.again
                assert len(outside.got) == 1
        assert inside.got == []


def test_s11_proxies_of_the_environment_are_not_asked(monkeypatch: pytest.MonkeyPatch, connected: list[Any]) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "")
    with receiver(plain(204)) as found:
        assert post(parse(found.url), b"{}", {}, allow=found.allow) == 204
        assert connected == [("127.0.0.1", found.port)]


def test_s11_of_several_addresses_the_next_is_tried_when_one_does_not_answer(connected: list[Any]) -> None:
    outside = ["2a00:1450:4001::64", "8.8.8.8", "127.0.0.1"]
    with receiver(plain(204)) as found:
        target = parse(f"http://hooks.example.com:{found.port}/")
        allow = [*found.allow, "hooks.example.com"]
        assert post(target, b"{}", {}, allow=allow, resolver=leads_to(*outside)) == 204
        assert connected == [(address, found.port) for address in outside]
        with pytest.raises(Failed, match="did not answer") as failed:
            post(target, b"{}", {}, allow=allow, resolver=leads_to(*outside[:2]))
        assert failed.value.again
        with pytest.raises(Forbidden):
            post(target, b"{}", {}, allow=allow, resolver=leads_to(*outside, "10.0.0.1"))
    many = [f"8.8.8.{last}" for last in range(1, 200)]
    assert choose(target, [], leads_to(*many)) == many[: outgoing.MOST_ADDRESSES]


def huge(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("content-length", str(2**40))
    handler.end_headers()
    sent = 0
    try:
        while sent < 2**30:
            sent += handler.wfile.write(bytes(2**16))
    except OSError:
        handler.server.sent = sent  # type: ignore[attr-defined]


def test_s11_a_huge_answer_is_not_read() -> None:
    done = threading.Event()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        huge(handler)
        assert handler.server.sent < 64 * 2**20  # type: ignore[attr-defined]
        done.set()

    with receiver(answer) as found:
        assert post(parse(found.url), b"{}", {}, allow=found.allow) == 200
        assert done.wait(10)


@pytest.mark.parametrize("part", ["status", "headers", "continue"])
def test_s11_an_answer_that_never_ends_is_cut(part: str) -> None:
    released = threading.Event()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        drops = {"status": b"H", "headers": b"x: y\r\n", "continue": b"HTTP/1.1 100 Continue\r\n\r\n"}[part]
        try:
            if part == "headers":
                handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
            while not released.wait(0.02):
                handler.wfile.write(drops)
        except OSError:
            pass

    with receiver(answer) as found:
        with pytest.raises(Failed, match="did not answer") as failed:
            post(parse(found.url), b"{}", {}, allow=found.allow, seconds=0.3)
        released.set()
    assert failed.value.again


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "hooks.example.com")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("hooks.example.com")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "hooks.pem"
    encoding = serialization.Encoding.PEM
    path.write_bytes(
        key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.public_bytes(encoding)
    )
    return path


def test_s11_tls_asks_for_the_hosts_name_at_the_pinned_address(certificate: Path) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate)
    with receiver(plain(200), server) as found:
        pinned = leads_to("127.0.0.1")
        trusted = ssl.create_default_context(cafile=certificate)

        def call(host: str, tls: ssl.SSLContext | None) -> int:
            target = parse(f"https://{host}:{found.port}/")
            return post(target, b"{}", {}, allow=found.allow, resolver=pinned, tls=tls)

        assert call("hooks.example.com", trusted) == 200
        assert found.got[0][1]["host"] == f"hooks.example.com:{found.port}"
        for host, tls in (("other.example.com", trusted), ("hooks.example.com", None)):
            with pytest.raises(Failed, match="SSLCertVerificationError"):
                call(host, tls)
        assert len(found.got) == 1


# What becomes of an alert.


class Sender:
    """Answers tries with what it is told."""

    def __init__(self, *outcomes: Exception | None) -> None:
        self.outcomes = list(outcomes)
        self.tried: list[webhook.Delivery] = []
        self.counted: list[str] = []

    def __call__(self, body: bytes, delivery_id: str) -> None:
        self.tried.append(webhook.Delivery(body, delivery_id))
        outcome = self.outcomes.pop(0) if self.outcomes else None
        if outcome is not None:
            raise outcome


def test_s11_opened_updated_and_resolved_are_posted_and_signed() -> None:
    events = [
        msgspec.structs.replace(ALERT, status=s, updated_at=NOW + timedelta(minutes=i))
        for i, s in enumerate(("opened", "updated", "resolved"))
    ]
    metrics = Metrics()
    with receiver(plain(200)) as found:
        chosen = MonitorSettings(
            webhook_url=SecretStr(found.url), webhook_allow=tuple(found.allow), webhook_secret=SecretStr("s" * 16)
        )
        sending = webhook.webhook_of(chosen, metrics.webhook)
        assert sending is not None
        assert [sending.post(msgspec.json.encode(event)) for event in events] == ["delivered"] * 3
    assert metrics.value("webhook_alerts_total", outcome="delivered") == 3
    assert [json.loads(body)["status"] for _, _, body in found.got] == ["opened", "updated", "resolved"]
    assert len({headers["x-stream-trainer-delivery"] for _, headers, _ in found.got}) == 3
    path, headers, body = found.got[0]
    at, mac = (part.split("=")[1] for part in headers["x-stream-trainer-signature"].split(","))
    assert mac == hmac.new(b"s" * 16, f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    assert path == "/hook?token=secret"


def test_s11_what_a_later_try_may_help_is_counted_when_it_was_the_last_and_has_one_id() -> None:
    down, gone = Failed("down", again=True), Failed("gone", again=False)
    inside, fault = Forbidden("inside"), RuntimeError("a fault")
    sender = Sender(down, inside, fault, None, gone, down, inside, fault)
    sending = webhook.Webhook(sender, sender.counted.append)
    assert [sending.post(BODY) for _ in range(5)] == [None, None, None, "delivered", "failed"]
    assert [sending.post(BODY, last=True) for _ in range(3)] == ["failed", "refused", "failed"]
    assert sender.counted == ["delivered", "failed", "failed", "refused", "failed"]
    assert len({tried.id for tried in sender.tried}) == 1


def test_s11_the_url_and_the_secret_do_not_show(caplog: pytest.LogCaptureFixture) -> None:
    canary = "canary-of-the-webhook"
    chosen = Settings(
        monitor=MonitorSettings(
            webhook_url=SecretStr(f"http://127.0.0.1:9/{canary}"), webhook_secret=SecretStr(f"{canary}-secret")
        )
    )
    metrics = Metrics()
    sending = webhook.webhook_of(chosen.monitor, metrics.webhook)
    assert sending is not None
    assert sending.post(BODY, last=True) == "refused"
    assert metrics.value("webhook_alerts_total", outcome="refused") == 1
    assert "not a public address" in caplog.text
    assert canary not in caplog.text + repr(chosen) + chosen.model_dump_json() + repr(sending.__dict__)


@pytest.mark.parametrize("fields", [{"webhook_secret": "s" * 16}, {"webhook_allow": ["a"]}])
def test_s11_settings_without_a_url_are_a_mistake(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        MonitorSettings.model_validate(fields)
