"""A store in a folder, and one in a bucket of an S3 server on this machine."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from stream_trainer.settings import StoreSettings
from stream_trainer.store.storage import Storage, open_storage
from tests.bucket import BUCKET, bucket


@pytest.fixture(scope="session")
def s3() -> Iterator[StoreSettings]:
    """An S3 server with an empty bucket."""
    with bucket() as settings:
        yield settings


@pytest.fixture(params=["folder", "bucket"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """Each kind of storage, empty."""
    if request.param == "folder":
        return open_storage(str(tmp_path / "models"), StoreSettings())
    settings: StoreSettings = request.getfixturevalue("s3")
    return open_storage(f"s3://{BUCKET}/{secrets.token_hex(8)}", settings)
