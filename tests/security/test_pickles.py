"""S01: a file that runs code when it is unpickled is refused wherever it lies, and runs nothing."""

import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from serving import model
from stream_trainer.errors import Corrupt
from stream_trainer.store import ModelStore
from stream_trainer.store.storage import LocalStorage
from stream_trainer.store.store import GOLDEN, LEARNED, TRAINER, WEIGHTS
from tests.architecture.test_rules import SERIALISERS
from tests.core.test_microbatch import World, fill
from tests.core.test_store import Unsynced
from tests.security.forgery import forge, manifest_path
from tests.serving.fixtures import PIPELINE, commit_version, learned_state

ROOT = Path(__file__).parents[2]


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self._canary = canary

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self._canary),)


def bombs(canary: Path) -> dict[str, bytes]:
    """The same bomb in the formats that people load models from."""
    torch_file, numpy_file, old_torch = io.BytesIO(), io.BytesIO(), io.BytesIO()
    torch.save({"w": Bomb(canary)}, torch_file)
    torch.save({"w": Bomb(canary)}, old_torch, _use_new_zipfile_serialization=False)
    np.save(numpy_file, np.array([Bomb(canary)], dtype=object), allow_pickle=True)
    return {
        "pickle": pickle.dumps(Bomb(canary)),
        "old_pickle": pickle.dumps(Bomb(canary), protocol=0),
        "pt": torch_file.getvalue(),
        "old_pt": old_torch.getvalue(),
        "npy": numpy_file.getvalue(),
    }


KINDS = ["pickle", "old_pickle", "pt", "old_pt", "npy"]


def test_s01_the_bombs_work(tmp_path: Path) -> None:
    found = bombs(tmp_path / "canary")
    assert list(found) == KINDS
    assert zipfile.is_zipfile(io.BytesIO(found["pt"]))
    pickle.loads(found["pickle"])  # noqa: S301 - that is the point
    assert (tmp_path / "canary").exists()


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    made = ModelStore(LocalStorage(tmp_path / "models", Unsynced()), PIPELINE.name)
    commit_version(made, PIPELINE, learned_state())
    commit_version(made, PIPELINE, learned_state(seed=1))
    return made


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [WEIGHTS, GOLDEN, "manifest.json"])
def test_s01_the_service_refuses_it(store: ModelStore, tmp_path: Path, kind: str, name: str) -> None:
    bomb = bombs(tmp_path / "canary")[kind]
    if name == "manifest.json":
        store.storage.put(manifest_path(store, 2), bomb)
    else:
        forge(store, 2, {name: bomb})
    with pytest.raises(model.Refused) as refused:
        model.load(store, PIPELINE, 2)
    assert refused.value.reason in ("damaged", "golden")
    assert not (tmp_path / "canary").exists()
    assert model.load(store, PIPELINE, 1).number == 1


@pytest.mark.parametrize(
    ("kind", "name"),
    [*((kind, WEIGHTS) for kind in KINDS), *(("pt", name) for name in (TRAINER, LEARNED, GOLDEN, "manifest.json"))],
)
def test_s01_the_trainer_goes_on_from_the_version_before(tmp_path: Path, kind: str, name: str) -> None:
    world = World(LocalStorage(tmp_path / "models", Unsynced()))
    for n in range(2):
        fill(world, 40 * n)
        world.learn()
    before = world.store.read(1)
    bomb = bombs(tmp_path / "canary")[kind]
    if name == "manifest.json":
        world.store.storage.put(manifest_path(world.store, 2), bomb)
    else:
        forge(world.store, 2, {name: bomb})
    with pytest.raises(Corrupt):
        world.store.verify(2)
    world.restart()
    # Version 3 was learned again from the cuts of version 2, on top of version 1.
    assert world.lineage.head is not None
    assert (world.lineage.head.number, world.lineage.head.manifest.parent) == (3, before.number)
    assert not (tmp_path / "canary").exists()


WATCHED = """
import pickle, sys
from pathlib import Path
fired = []
sys.addaudithook(lambda name, _: fired.append(name) if name == "pickle.find_class" else None)
from serving import model
from stream_trainer.errors import Corrupt
from stream_trainer.store import ModelStore
from stream_trainer.store.storage import LocalStorage
from tests.serving.fixtures import PIPELINE
fired.clear()  # what importing torch does is torch's affair
store = ModelStore(LocalStorage(Path(sys.argv[1])), PIPELINE.name)
outcomes = []
for number in store.numbers():
    for look in (lambda: model.load(store, PIPELINE, number), lambda: store.verify(number)):
        try:
            look()
            outcomes.append("good")
        except Corrupt as error:
            outcomes.append("refused")
unpickled = fired.count("pickle.find_class")
pickle.loads(pickle.dumps(Path))
assert fired.count("pickle.find_class") == unpickled + 1, "the hook sees nothing"
import json
print(json.dumps([unpickled, outcomes]))
"""


def test_s01_loading_never_unpickles(store: ModelStore, tmp_path: Path) -> None:
    for bomb in bombs(tmp_path / "canary").values():
        for name in (WEIGHTS, GOLDEN):
            number = commit_version(store, PIPELINE, learned_state()).number
            forge(store, number, {name: bomb})
    command = [sys.executable, "-c", WATCHED, str(tmp_path / "models")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    unpickled, outcomes = json.loads(done.stdout)
    assert unpickled == 0
    assert outcomes[:4] == ["good"] * 4
    assert outcomes[4:] == ["refused"] * 20
    assert not (tmp_path / "canary").exists()


def test_s01_what_reads_a_store_does_not_even_import_an_unpickler_of_ours() -> None:
    """The import graph of our packages: `tests/architecture` forbids the modules; here that none slips in by another name."""
    for package in ("stream_trainer", "serving", "monitors", "infra"):
        for path in (ROOT / package).rglob("*.py"):
            text = path.read_text()
            for name in SERIALISERS:
                assert f"import {name}" not in text, path
                assert f"from {name}" not in text, path
