import json
from pathlib import Path

import pytest

from tests.bench.learning import contestants, plan, running, synthetic, worker
from tests.bench.learning.contestants import ALL, Contestant
from tests.bench.learning.plan import Plan, Slot
from tests.bench.learning.running import Processes
from tests.bench.learning.stream import Stream

BASELINES = [c for c in ALL if c.name in ("no-change", "majority")]


def planned(folder: Path, *, limit: float = 60.0, rows: int = 300) -> Plan:
    stream = synthetic.make("imbalanced", rows, 0)
    path = folder / f"stream-{rows}.npz"
    stream.save(path)
    slots = plan.slots({("imbalanced", 0): stream}, BASELINES, (1, 32), 100, folder / "cells")
    return Plan(slots=slots, files={("imbalanced", 0): path}, limit=limit)


def test_a_run_that_was_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    jobs = planned(tmp_path).jobs()
    assert [(job.learner, dict(job.lengths)) for _, job in jobs] == [
        ("no-change", {1: 100, 32: 300}),
        ("majority", {1: 100, 32: 300}),
    ]
    said: list[str] = []
    assert running.run_all(jobs[:1], Processes(homes={}), 1, said.append) == []
    assert len(said) == 1
    left = planned(tmp_path).jobs()
    assert [job.learner for _, job in left] == ["majority"]
    next(iter(jobs[0][1].cells.values())).unlink()
    assert [(job.learner, dict(job.lengths)) for _, job in planned(tmp_path).jobs()] == [
        ("no-change", {1: 100}),
        ("majority", {1: 100, 32: 300}),
    ]


def test_other_data_is_another_cell(tmp_path: Path) -> None:
    paths = [{slot.path for slot in planned(tmp_path, rows=rows).slots} for rows in (300, 400)]
    assert not paths[0] & paths[1]


def test_a_cell_that_was_cut_off_is_tried_again_only_with_more_time(tmp_path: Path) -> None:
    slot: Slot = planned(tmp_path).slots[0]
    running._cut_off(planned(tmp_path, limit=1.0)._job([slot]))
    assert not worker.read(slot.path).finished
    assert plan.filled(slot.path, limit=1.0)
    assert not plan.filled(slot.path, limit=2.0)


def test_a_learner_that_fails_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    jobs = planned(tmp_path).jobs()
    broken = Contestant(name="broken", what="", module="tests.bench.learning.no_such_module")
    failed = running.run_all([(broken, jobs[0][1]), jobs[1]], Processes(homes={}), 1, lambda _: None)
    assert len(failed) == 1
    assert "no_such_module" in failed[0]
    assert all(path.exists() for path in jobs[1][1].cells.values())


def test_streams_and_jobs_survive_their_files(tmp_path: Path) -> None:
    stream = synthetic.make("moving-classes", 50, 1)
    stream.save(tmp_path / "s.npz")
    assert Stream.load(tmp_path / "s.npz").digest == stream.digest
    assert synthetic.make("moving-classes", 50, 2).digest != stream.digest
    (_, job), *_ = planned(tmp_path).jobs()
    job.save(tmp_path / "job.json")
    assert worker.Job.load(tmp_path / "job.json") == job
    assert json.loads((tmp_path / "job.json").read_text())["learner"] == "no-change"


def test_comments_and_docstrings_do_not_change_the_digest_and_code_does(tmp_path: Path) -> None:
    texts = ['"""A."""\nx = 1\n', '"""B."""\n# why\nx = 1\n', '"""A."""\nx = 2\n']
    found = []
    for text in texts:
        (tmp_path / "m.py").write_text(text)
        found.append(contestants.code_of(tmp_path / "m.py"))
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("name", synthetic.MAKERS)
def test_a_generator_is_a_function_of_its_seed(name: str) -> None:
    assert synthetic.make(name, 400, 5).digest == synthetic.make(name, 400, 5).digest
    assert synthetic.make(name, 400, 5).digest != synthetic.make(name, 400, 6).digest


def test_rare_positives_are_rare() -> None:
    assert 0.01 <= synthetic.make("imbalanced", 2_000, 0).y.mean() <= 0.02
