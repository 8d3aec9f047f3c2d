"""TLS of the ports, with certificates that the test makes."""

import ssl
import subprocess
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from serving.metrics import Metrics
from serving.ports import config_of
from serving.tls import tls_context
from stream_trainer.errors import UsageError
from stream_trainer.settings import ServingSettings
from tests.security.sockets import echo, running


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`server` and `client` are self-signed: each is its own authority."""
    made = tmp_path_factory.mktemp("tls")
    for name in ("server", "client"):
        openssl(
            made,
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"),
            *("-keyout", f"{name}.key", "-out", f"{name}.crt", "-subj", f"/CN={name}"),
            *("-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"),
        )
    openssl(made, "ec", "-in", "server.key", "-aes128", "-passout", "pass:x", "-out", "locked.key")
    return made


def settings(folder: Path, **more: object) -> ServingSettings:
    files = {"tls_certfile": folder / "server.crt", "tls_keyfile": folder / "server.key"}
    return ServingSettings.model_validate({**files, **more})


def trusting(folder: Path, *, own: bool = False) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(folder / "server.crt"))
    if own:
        context.load_cert_chain(folder / "client.crt", folder / "client.key")
    return context


def ask(port: int, context: ssl.SSLContext) -> httpx.Response:
    with httpx.Client(verify=context, trust_env=False) as client:
        return client.get(f"https://127.0.0.1:{port}/")


def test_answers_come_over_tls_to_who_trusts_the_certificate(folder: Path) -> None:
    with running(tls=tls_context(settings(folder))) as service:
        assert ask(service.port, trusting(folder)).status_code == 200
        with pytest.raises(httpx.ConnectError):
            ask(service.port, ssl.create_default_context())
        with pytest.raises(httpx.HTTPError), httpx.Client(trust_env=False) as plain:
            plain.get(f"http://127.0.0.1:{service.port}/")


def test_nothing_older_than_tls_1_2(folder: Path) -> None:
    context = tls_context(settings(folder))
    assert context is not None
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    for version, spoken in ((ssl.TLSVersion.TLSv1_2, "TLSv1.2"), (ssl.TLSVersion.TLSv1_3, "TLSv1.3")):
        with running(tls=context) as service, service.connect() as raw:
            client = trusting(folder)
            client.maximum_version = client.minimum_version = version
            with client.wrap_socket(raw, server_hostname="127.0.0.1") as wrapped:
                assert wrapped.version() == spoken


def test_a_certificate_of_the_client_can_be_demanded(folder: Path) -> None:
    context = tls_context(settings(folder, tls_client_ca=folder / "client.crt"))
    with running(tls=context) as service:
        assert ask(service.port, trusting(folder, own=True)).status_code == 200
        with pytest.raises(httpx.HTTPError):
            ask(service.port, trusting(folder))


def test_f35_a_handshake_that_is_never_begun_is_ended(folder: Path) -> None:
    with running(tls=tls_context(settings(folder)), head_seconds=0.2) as service, service.connect() as client:
        with suppress(ConnectionResetError):
            assert client.recv(1) == b""
        assert ask(service.port, trusting(folder)).status_code == 200


@pytest.mark.parametrize(
    ("certificate", "key", "says"),
    [
        ("server.crt", "client.key", "not possible"),
        ("none.crt", "server.key", "not possible"),
        ("server.crt", "locked.key", "encrypted"),
    ],
)
def test_files_that_do_not_fit_are_refused_at_start(folder: Path, certificate: str, key: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        tls_context(ServingSettings(tls_certfile=folder / certificate, tls_keyfile=folder / key))


def test_without_a_certificate_there_is_no_tls_and_production_with_one_asks_browsers_to_stay(folder: Path) -> None:
    assert tls_context(ServingSettings()) is None
    headers = dict(config_of(echo, settings(folder, profile="production"), Metrics()).headers)
    assert "max-age" in headers["strict-transport-security"]
