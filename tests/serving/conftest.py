from pathlib import Path

import pytest

from stream_trainer.store import ModelStore
from stream_trainer.store.storage import LocalStorage
from tests.serving.fixtures import PIPELINE, Harness


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(LocalStorage(tmp_path), PIPELINE.name)


@pytest.fixture
def harness(store: ModelStore) -> Harness:
    return Harness(store)
