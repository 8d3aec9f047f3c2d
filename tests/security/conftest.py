from pathlib import Path

import pytest

from stream_trainer.store import ModelStore
from stream_trainer.store.storage import LocalStorage
from tests.security.callers import Callers, all_kinds
from tests.serving.fixtures import PIPELINE


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(LocalStorage(tmp_path / "models"), PIPELINE.name)


@pytest.fixture
def callers(tmp_path: Path) -> Callers:
    return all_kinds(tmp_path / "keys.json")
