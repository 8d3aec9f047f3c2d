"""The default learner where the trainer, the store, a replay and the service meet it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from serving import model
from stream_trainer.contract import ClassLabel, Contract, NumericLabel
from stream_trainer.features import encode
from stream_trainer.learner import State, answer
from stream_trainer.learners import Tabular
from stream_trainer.pipeline import Pipeline
from stream_trainer.reference import table_from_bytes
from stream_trainer.replay import replay
from stream_trainer.store.store import GOLDEN
from tests.core.tabular.streams import same
from tests.core.test_microbatch import World, fill
from tests.core.test_replay import TOPIC_ID, Records
from tests.core.worlds import CONTRACT, FIELDS

PIPELINE = Pipeline(name="flights", contract=CONTRACT, reference_rows=50)


def trained(path: Path, versions: int = 3) -> World:
    world = World(path, PIPELINE)
    for n in range(versions):
        fill(world, 40 * n)
        world.learn()
    return world


def test_it_is_the_default() -> None:
    assert isinstance(PIPELINE.learner, Tabular)
    for label in (NumericLabel("late"), ClassLabel("late", ["a", "b"])):
        contract: Contract = replace(CONTRACT, label=label)
        pipeline = Pipeline(name="other", contract=contract)
        assert pipeline.learner.init(pipeline.spec, 0).spec == pipeline.spec
    assert FIELDS["key"] == "flight_id"


def test_a_new_process_goes_on_as_the_old_one_would_have(tmp_path: Path) -> None:
    going_on, restarted = trained(tmp_path / "a"), trained(tmp_path / "b")
    restarted.restart()
    for world in (going_on, restarted):
        fill(world, 120)
        world.learn()
    one, other = going_on.lineage.state, restarted.lineage.state
    assert same(one, other)
    assert going_on.store.read(4).manifest.hyperparameters["learner"] == "tabular"


def test_a_replay_is_identical(tmp_path: Path) -> None:
    world = trained(tmp_path)
    assert TOPIC_ID in world.store.read(3).manifest.topic_ids.values()
    report = replay(PIPELINE, world.store, Records(world.log).read, to=3)
    assert report.identical


def test_the_service_takes_its_versions_and_golden_rows_are_answers(tmp_path: Path) -> None:
    world = trained(tmp_path)
    served = model.load(world.store, PIPELINE, 3)
    table = table_from_bytes(world.store.file(world.store.read(3), GOLDEN)).combine_chunks()
    features = encode(CONTRACT, {f.name: table.column(f.name).chunk(0) for f in CONTRACT.features})
    recorded = np.asarray(table.column("_output").to_pylist())[:, 0]
    state: State = served.state
    alone = torch.cat([answer(PIPELINE.learner, state, row[None]) for row in features])
    assert np.allclose(recorded, alone.numpy(), atol=1e-6)
    ordered = PIPELINE.learner.predict(state, features)
    assert not np.allclose(recorded, ordered.numpy(), atol=1e-6)
