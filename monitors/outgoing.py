"""One HTTP request to a place that a person configured, which must not become a request to the inside of the network.

The host is looked up once, every address found is judged, and the connection goes to one of those that were judged: a
second look-up could answer otherwise (DNS rebinding). TLS still asks for the host's name. No redirects, no proxies, no
more than a few kilobytes of answer, and an end to all of it after some seconds.
"""

import http.client
import ipaddress
import queue
import re
import socket
import ssl
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolver = Callable[[str, int], Sequence[str]]

MAX_BODY_BYTES = 256 * 2**10
MAX_ANSWER_BYTES = 16 * 2**10
LOOK_UP_SECONDS = 10.0
MOST_ADDRESSES = 4
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_NUMERIC = re.compile(r"[0-9]+|0x[0-9a-f]*")
# RFC 6890 and the registries of special-purpose addresses; of IPv6 only what is global unicast is let through.
_SPECIAL = tuple(
    ipaddress.ip_network(block)
    for block in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",
        "2001::/23",
        "2001:db8::/32",
        "2002::/16",
        "3fff::/20",
    )
)
_GLOBAL_6 = ipaddress.ip_network("2000::/3")
_PERMISSIBLE = tuple(
    ipaddress.ip_network(block)
    for block in ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7")
)


class Forbidden(ValueError):
    """The address is not one that may be called."""


class Failed(Exception):
    """It did not accept, or could not be asked; `again` says whether a later try may succeed."""

    def __init__(self, message: str, *, again: bool) -> None:
        self.again = again
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Target:
    """Where to. `str` shows no path: that of a webhook is often a secret."""

    scheme: str
    host: str
    port: int
    path: str

    def __str__(self) -> str:
        return f"{self.scheme}://{_bracketed(self.host)}:{self.port}"


def parse(url: str) -> Target:
    """The parts of a URL.

    Raises:
        Forbidden: it is not http(s), names a user, or writes its host in a way that readers disagree about.
    """
    if not url.isascii() or re.search(r"[\x00-\x20\x7f\\]", url):
        raise Forbidden("the URL holds spaces, control characters or other than ASCII")
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname or ""
    except ValueError as error:
        raise Forbidden("the URL cannot be read") from error
    if parts.scheme not in ("http", "https"):
        raise Forbidden(f"the scheme is {parts.scheme or 'missing'}: use https or http")
    if "@" in parts.netloc or parts.fragment:
        raise Forbidden("the URL names a user or a fragment")
    if port == 0 or not _is_host(host, bracketed=parts.netloc.startswith("[")):
        raise Forbidden("the host is neither a name nor an address in its usual form")
    path = parts.path or "/"
    return Target(
        parts.scheme,
        host.removesuffix("."),
        port or {"http": 80, "https": 443}[parts.scheme],
        f"{path}?{parts.query}" if parts.query else path,
    )


def _is_host(host: str, *, bracketed: bool) -> bool:
    with suppress(ValueError):
        literal = ipaddress.ip_address(host)
        return "%" not in host and bracketed == (literal.version == 6)
    name = host.removesuffix(".")
    if bracketed:
        return False
    # 2130706433, 0x7f.1 and 0177.0.0.1 are addresses to the resolver of the system.
    return len(name) <= 253 and bool(_NAME.fullmatch(name)) and not _NUMERIC.fullmatch(name.rsplit(".", 1)[-1])


def choose(target: Target, allow: Sequence[str], resolver: Resolver) -> list[str]:
    """The addresses to try in turn. All that the name leads to must be fit to be called.

    Args:
        target: where to.
        allow: when not empty, the only hosts (`host` or `host:port`) that may be called; a private or loopback
            address is called only if `address:port` stands here.
        resolver: host and port to addresses.

    Raises:
        Forbidden: it may not be called.
        Failed: the name leads nowhere just now.
    """
    allow = [entry.lower() for entry in allow]
    try:
        found = [ipaddress.ip_address(text) for text in resolver(target.host, target.port)]
    except OSError as error:
        raise Failed(f"{target}: the host cannot be looked up: {error}", again=True) from error
    except ValueError as error:
        raise Forbidden(f"{target}: the host has an address that is none: {error}") from error
    if not found:
        raise Failed(f"{target}: the host has no address", again=True)
    for address in found:
        if f"{_bracketed(str(address))}:{target.port}" in allow and any(address in block for block in _PERMISSIBLE):
            continue
        if not is_public(address):
            raise Forbidden(f"{target} leads to {address}, which is not a public address")
        if allow and target.host not in allow and f"{_bracketed(target.host)}:{target.port}" not in allow:
            raise Forbidden(f"{target} is not in monitor.webhook_allow")
    return [str(address) for address in found[:MOST_ADDRESSES]]


def is_public(address: Address) -> bool:
    """Whether an address belongs to the internet: not to this machine, this network, a tunnel or a translator."""
    if address.version == 6 and (address not in _GLOBAL_6 or address.scope_id is not None):
        return False
    return not any(address in block for block in _SPECIAL)


def look_up(host: str, port: int, *, seconds: float = LOOK_UP_SECONDS) -> list[str]:
    """The system's resolver, which knows no end of its own: it is left behind in its thread after so long.

    Raises:
        OSError: it does not know the host, or did not answer.
    """
    answers: queue.SimpleQueue[list[str] | OSError] = queue.SimpleQueue()

    def ask() -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            answers.put(error if isinstance(error, OSError) else OSError(str(error)))
        else:
            answers.put(list(dict.fromkeys(str(entry[4][0]) for entry in found)))

    threading.Thread(target=ask, name="look-up", daemon=True).start()
    try:
        answer = answers.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no answer within {seconds:g} s") from None
    if isinstance(answer, OSError):
        raise answer
    return answer


def post(
    target: Target,
    body: bytes,
    headers: Mapping[str, str],
    *,
    allow: Sequence[str] = (),
    seconds: float = 5.0,
    resolver: Resolver = look_up,
    tls: ssl.SSLContext | None = None,
) -> int:
    """Post, and read the status; what else is answered is thrown away.

    Args:
        target: where to.
        body: what is sent; at most `MAX_BODY_BYTES`.
        headers: beside `Host` and `Content-Length`.
        allow: see `choose`.
        seconds: for everything after the look-up.
        resolver: see `choose`.
        tls: None verifies against the system's certificates.

    Raises:
        Forbidden: it may not be called; nothing was sent.
        Failed: it did not take it.
    """
    if len(body) > MAX_BODY_BYTES:
        raise Failed(f"the body has {len(body)} bytes, at most {MAX_BODY_BYTES} are sent", again=False)
    addresses = choose(target, allow, resolver)
    connection = _connection(target, addresses, seconds, tls)
    late = threading.Event()
    timer = threading.Timer(seconds, _cut, [connection, late])  # a socket's timeout begins anew with every byte
    timer.daemon = True
    timer.start()
    try:
        connection.connect()
        if late.is_set():  # there was nothing to cut yet
            raise TimeoutError
        connection.request("POST", target.path, body=body, headers=dict(headers))
        answer = connection.getresponse()
        answer.read(MAX_ANSWER_BYTES)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Failed(f"{target} did not answer: {type(error).__name__}", again=True) from error
    finally:
        timer.cancel()
        connection.close()
    if late.is_set():  # what was cut may look whole
        raise Failed(f"{target} did not answer within {seconds:g} s", again=True)
    return _judged(target, answer.status)


def _judged(target: Target, status: int) -> int:
    if 200 <= status < 300:
        return status
    if 300 <= status < 400:
        raise Failed(f"{target} answered {status}: redirects are not followed", again=False)
    raise Failed(f"{target} answered {status}", again=status >= 500 or status in (408, 425, 429))


def _connection(
    target: Target, addresses: Sequence[str], seconds: float, tls: ssl.SSLContext | None
) -> http.client.HTTPConnection:
    if target.scheme == "http":
        return _Pinned(target, addresses, seconds, None)
    return _Pinned(target, addresses, seconds, tls or ssl.create_default_context())


class _Pinned(http.client.HTTPConnection):
    """Speaks to the first of these addresses that answers, whatever the host's name leads to by now."""

    def __init__(self, target: Target, addresses: Sequence[str], seconds: float, tls: ssl.SSLContext | None) -> None:
        self.default_port = 80 if tls is None else 443
        super().__init__(target.host, target.port, timeout=seconds)
        self._addresses = addresses
        self._seconds = seconds
        self._tls = tls

    def connect(self) -> None:
        self.sock = self._reached()
        self.sock.settimeout(self._seconds)
        if self._tls is not None:
            self.sock = self._tls.wrap_socket(self.sock, server_hostname=self.host, do_handshake_on_connect=False)
            self.sock.do_handshake()

    def _reached(self) -> socket.socket:
        each = self._seconds / len(self._addresses)
        for address in self._addresses[:-1]:
            with suppress(OSError):
                return socket.create_connection((address, self.port), each)
        return socket.create_connection((self._addresses[-1], self.port), each)


def _cut(connection: http.client.HTTPConnection, late: threading.Event) -> None:
    late.set()
    with suppress(OSError, AttributeError):
        connection.sock.shutdown(socket.SHUT_RDWR)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
