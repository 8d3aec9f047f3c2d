"""`train --history` as people give it: files, then the log, through the command line, real Spark and real Kafka."""

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from infra.broker import BrokerInfo
from infra.units import variables
from stream_trainer import cli, warm_start
from tests.faults.spark_pipeline import address
from tests.faults.spark_scene import Scene, log_ends, make_scene, whole

pytestmark = [pytest.mark.spark, pytest.mark.timeout(600)]

Asked = Callable[..., Result]
GOOD = 10**9


@pytest.fixture
def scene(broker: BrokerInfo, tmp_path: Path) -> Scene:
    return make_scene(str(broker.bootstrap_servers), tmp_path)


@pytest.fixture
def asked(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> Asked:
    """A command on the lineage "warm", in this process."""
    for name, value in variables(scene.settings("warm")).items():
        monkeypatch.setenv(name, value)
    return lambda command, *rest: CliRunner().invoke(cli.app, [command, address(scene.world.pipeline), *rest])


def write_files(scene: Scene, folder: Path) -> list[Path]:
    """1,300 rows in two files."""
    folder.mkdir()
    records: list[dict[str, Any]] = [scene.world.example() for _ in range(1_300)]
    for record in records:
        record["at"] = datetime.fromisoformat(record["at"])
    paths = [folder / "a.parquet", folder / "b.arrow"]
    pq.write_table(pa.Table.from_pylist(records[:1_100]), paths[0])
    table = pa.Table.from_pylist(records[1_100:])
    with pa.ipc.new_file(paths[1], table.schema) as writer:
        writer.write_table(table)
    return paths


def test_version_1_came_from_the_files_the_rest_from_the_log_and_everybody_says_so(
    scene: Scene, asked: Asked, tmp_path: Path
) -> None:
    files = write_files(scene, tmp_path / "history")
    known = [warm_start.digest(path) for path in files]
    scene.send(40, bad_every=GOOD)
    words = ["--history", str(tmp_path / "history"), "--until-caught-up"]
    for more in (0, 30):  # the same command goes on: the files are learned once
        if more:
            scene.send(more, bad_every=GOOD)
        child = scene.child("warm", None, *words)
        try:
            assert child.run() == 0, child.said()
        finally:
            child.end()
    store = scene.store("warm")
    first, newest = store.read(1).manifest, whole(store, log_ends(scene.world))
    assert first.history == known
    assert (first.rows.trained, first.cuts) == (1_300, [])
    assert newest.total.seen == 1_300 + 70

    shown = asked("lineage", "--version", str(newest.version))
    assert shown.exit_code == 0, shown.output
    for file in known:
        assert [file.name, f"{file.size:,}", file.sha256] in [line.split() for line in shown.stdout.splitlines()]
    told = json.loads(asked("lineage", "--version", "1", "--json").stdout)["version"]
    assert [file["sha256"] for file in told["history"]] == [file.sha256 for file in known]

    given = [word for path in reversed(files) for word in ("--history", str(path))]
    replayed = asked("replay", "--to", str(newest.version), "--json", *given)
    assert json.loads(replayed.stdout)["identical"] is True, replayed.output
    assert asked("replay", "--to", str(newest.version), *given[:2]).exit_code != 0
