import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_trainer.near import is_near, is_near_page

NEAR = ["127.0.0.1", "127.9.9.9", "localhost", "LocalHost", "[::1]"]
FAR = [
    "evil.example",
    "127.0.0.1.evil.example",
    "localhost.evil.example",
    "127.0.0.1@evil.example",
    "10.0.0.1",
    "[::2]",
]
NO_HOST = ["", ":80", "[::1", "::1", "127.0.0.1:", "127.0.0.1:999999", "127.0.0.1\n", "localhost,localhost"]


@pytest.mark.parametrize("host", NEAR)
@pytest.mark.parametrize("port", ["", ":1", ":8000", ":65535"])
def test_a_loopback_name_or_address_is_near_on_any_port(host: str, port: str) -> None:
    assert is_near(f"{host}{port}".encode())
    assert is_near_page(f"http://{host}{port}".encode())
    assert is_near_page(f"https://{host}{port}".encode())


@pytest.mark.parametrize("host", [*FAR, *NO_HOST])
def test_every_other_name_is_not(host: str) -> None:
    assert not is_near(host.encode())


@pytest.mark.parametrize("origin", [f"{scheme}://{host}" for host in FAR for scheme in ("http", "https")])
def test_a_page_of_elsewhere_is_not_near(origin: str) -> None:
    assert not is_near_page(origin.encode())


@pytest.mark.parametrize(
    "origin", ["", "null", "file://", "file://localhost", "http://[::1", "localhost", "//localhost"]
)
def test_what_is_no_origin_of_a_page_is_not_near(origin: str) -> None:
    assert not is_near_page(origin.encode())


@given(st.binary())
def test_any_header_is_judged_without_an_error(header: bytes) -> None:
    assert is_near(header) in (True, False)
    assert is_near_page(header) in (True, False)
