"""A store in a folder, and one in a bucket of an S3 server on this machine."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from moto.server import ThreadedMotoServer

from stream_trainer.settings import StoreSettings
from stream_trainer.store.storage import Storage, open_storage

BUCKET = "models"


@pytest.fixture(scope="session")
def s3() -> Iterator[StoreSettings]:
    """An S3 server with an empty bucket."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    httpx.put(f"{endpoint}/{BUCKET}").raise_for_status()
    yield StoreSettings.model_validate(
        {
            "url": f"s3://{BUCKET}",
            "s3_endpoint": endpoint,
            "s3_access_key_id": "test",
            "s3_secret_access_key": "test",
            "s3_allow_http": True,
        }
    )
    server.stop()


@pytest.fixture(params=["folder", "bucket"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """Each kind of storage, empty."""
    if request.param == "folder":
        return open_storage(str(tmp_path / "models"), StoreSettings())
    settings: StoreSettings = request.getfixturevalue("s3")
    return open_storage(f"s3://{BUCKET}/{secrets.token_hex(8)}", settings)
