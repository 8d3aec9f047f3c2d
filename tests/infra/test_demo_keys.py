"""The demo where a service asks for keys: its replayer gets one, and nothing of it stays."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from infra.demo import Demo
from infra.demo_facts import Tail
from infra.demo_keys import Lent, lent_key
from stream_trainer.api_keys import VARIABLE, read_keys
from stream_trainer.errors import UsageError
from stream_trainer.settings import KafkaSettings, Settings
from stream_trainer.store import ModelStore
from stream_trainer.store.storage import LocalStorage
from tests.security.callers import Callers, all_kinds, client, doors
from tests.serving.fixtures import PIPELINE, ROWS

NOW = datetime.now(UTC)


@pytest.fixture
def callers(tmp_path: Path) -> Callers:
    return all_kinds(tmp_path / "keys.json")


def test_the_key_may_predict_and_no_more_and_the_configured_ones_go_on(tmp_path: Path, callers: Callers) -> None:
    before = callers.path.read_bytes()
    with lent_key(callers.path, tmp_path / "copy.json", NOW) as lent:
        copy = Path(lent.serving["STREAM_TRAINER_SERVING__KEYS_FILE"])
        store = ModelStore(LocalStorage(tmp_path / "models"), PIPELINE.name)
        found = doors(store, Callers(copy).ring())
        public, admin = client(found.public), client(found.admin)
        for text, allowed in ((lent.replayer[VARIABLE], 200), (callers.texts["predict"], 200), ("st_unknown", 401)):
            answer = public.post("/predict", json={"instances": ROWS}, headers={"x-api-key": text})
            assert answer.status_code == allowed
        assert admin.get("/status", headers={"x-api-key": lent.replayer[VARIABLE]}).status_code == 403
        assert copy.stat().st_mode & 0o777 == 0o600
    assert not copy.exists()
    assert callers.path.read_bytes() == before


def test_the_key_ends_by_itself_when_nobody_ends_it(tmp_path: Path, callers: Callers) -> None:
    with lent_key(callers.path, tmp_path / "copy.json", NOW):
        expires = read_keys(tmp_path / "copy.json")[-1].expires
    assert expires is not None
    assert (expires - NOW).days == 7


def test_without_keys_nothing_is_lent(tmp_path: Path) -> None:
    with lent_key(None, tmp_path / "copy.json", NOW) as lent:
        assert lent == Lent()
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_no_file(tmp_path: Path, callers: Callers) -> None:
    with pytest.raises(RuntimeError), lent_key(callers.path, tmp_path / "copy.json", NOW):
        raise RuntimeError
    assert not (tmp_path / "copy.json").exists()
    with pytest.raises(UsageError, match="keys create"), lent_key(tmp_path / "gone.json", tmp_path / "copy.json", NOW):
        pass


def test_the_replayer_is_told_its_key_by_the_environment_alone(tmp_path: Path, callers: Callers) -> None:
    settings = Settings(kafka=KafkaSettings(bootstrap_servers="127.0.0.1:9"), data_dir=tmp_path)
    demo = Demo(settings, tmp_path / "demo", rate=1.0, port=0)
    with lent_key(callers.path, tmp_path / "copy.json", NOW) as lent:
        units = {unit.name: unit for unit in demo._units(settings, Tail(settings, "flights"), lent)}
        key = lent.replayer[VARIABLE]
        assert units["replayer"].variables[VARIABLE] == key
        for unit in units.values():
            arguments = unit.arguments() if callable(unit.arguments) else unit.arguments
            assert key not in " ".join(arguments)
        assert [name for name, unit in units.items() if key in unit.variables.values()] == ["replayer"]
        assert set(lent.serving.items()) <= set(units["serving"].variables.items())
        assert key not in repr(lent)
