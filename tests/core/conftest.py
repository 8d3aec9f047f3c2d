"""A store in a folder, and one in a bucket of an S3 server on this machine."""

import secrets
from collections.abc import Callable, Iterator
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
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], Storage]:
    """Opens the storage of a name, at first empty, as a process of its own would; of each kind."""
    if request.param == "folder":
        return lambda name: open_storage(str(tmp_path / name), StoreSettings())
    settings: StoreSettings = request.getfixturevalue("s3")
    own = secrets.token_hex(8)
    return lambda name: open_storage(f"s3://{BUCKET}/{own}/{name}", settings)


@pytest.fixture
def storage(place: Callable[[str], Storage]) -> Storage:
    """Each kind of storage, empty."""
    return place("models")
