"""History in files: a first version that is a function of them, then the log from exact offsets."""

import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stream_trainer import learning, warm_start
from stream_trainer.contract import Contract
from stream_trainer.errors import UsageError
from stream_trainer.replay import replay
from stream_trainer.start import Start
from stream_trainer.store import Rows
from stream_trainer.testing import ScriptedLog, train
from tests.core.scripts import PIPELINE, flights, manifests, store
from tests.core.worlds import TOPIC, bits, flight

TIME = "scheduled_at"


def table(first: int, count: int) -> pa.Table:
    rows = [flight(i) for i in range(first, first + count)]
    columns: dict[str, Any] = {name: [row.get(name) for row in rows] for name in rows[0]}
    columns[TIME] = [datetime.fromisoformat(at) if isinstance(at, str) else at for at in columns[TIME]]
    return pa.table(columns)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A Parquet file of odd row groups and an Arrow file, 1,300 rows in all; one row cannot be used."""
    folder = tmp_path / "history"
    folder.mkdir()
    pq.write_table(table(0, 1_100), folder / "a.parquet", row_group_size=333)
    rest = table(1_100, 200)
    rest = rest.set_column(0, rest.schema.field(0), pa.array([None, *rest.column(0).to_pylist()[1:]]))
    with pa.ipc.new_file(folder / "b.arrow", rest.schema) as writer:
        writer.write_table(rest, max_chunksize=70)
    return folder


def started(path: Path, log: ScriptedLog, *files: Path) -> Any:
    return train(PIPELINE, log, path, start=Start(history=files))


def test_the_first_version_is_a_function_of_the_files(files: Path, tmp_path: Path) -> None:
    one = started(tmp_path / "one", ScriptedLog(PIPELINE, flights(30)), files)
    started(tmp_path / "two", ScriptedLog(PIPELINE, flights(5)), files / "a.parquet", files / "b.arrow")
    first, other = manifests(tmp_path / "one")[0], manifests(tmp_path / "two")[0]
    assert first.files == other.files
    assert first.history == other.history == [warm_start.digest(files / name) for name in ("a.parquet", "b.arrow")]
    assert first.rows == Rows(seen=1_300, trained=1_299, rejected=1)
    assert (first.cuts, first.ranges, first.parent) == ([], {}, None)
    assert first.next_offsets[TOPIC] == dict.fromkeys(first.next_offsets[TOPIC], 0)
    assert one.total == Rows(seen=1_330, trained=1_329, rejected=1)
    second = manifests(tmp_path / "one")[1]
    assert not second.history
    assert second.rows.trained == 30


def test_blocks_do_not_depend_on_how_a_file_is_cut(files: Path, tmp_path: Path) -> None:
    whole = tmp_path / "a.parquet"
    pq.write_table(table(0, 1_100), whole)
    started(tmp_path / "one", ScriptedLog(PIPELINE), files / "a.parquet")
    started(tmp_path / "two", ScriptedLog(PIPELINE), whole)
    one, two = manifests(tmp_path / "one")[0], manifests(tmp_path / "two")[0]
    assert one.files == two.files
    assert one.history != two.history


def test_the_same_command_goes_on_and_learns_the_files_once(files: Path, tmp_path: Path) -> None:
    log = ScriptedLog(PIPELINE, flights(30))
    started(tmp_path / "pieces", log, files)
    log.append(*flights(30, 30))
    pieces = started(tmp_path / "pieces", log, files)
    assert pieces.total.seen == 1_360
    alone = train(PIPELINE, log, tmp_path / "pieces")
    assert bits(alone) == bits(pieces)


def test_files_cannot_join_a_lineage_that_began_without_them(files: Path, tmp_path: Path) -> None:
    log = ScriptedLog(PIPELINE, flights(30))
    train(PIPELINE, log, tmp_path / "store")
    with pytest.raises(UsageError, match="did not begin with these files"):
        started(tmp_path / "store", log, files)


def test_a_replay_rebuilds_it_bit_for_bit_given_the_files(files: Path, tmp_path: Path) -> None:
    log = ScriptedLog(PIPELINE, flights(30))
    started(tmp_path / "store", log, files)
    kept = store(tmp_path / "store")

    def read(ranges: Any, _ids: Any) -> pa.Table:
        return log.read(ranges)

    given = [files / "b.arrow", files / "a.parquet"]
    report = replay(PIPELINE, kept, read, to=2, files=given)
    assert report.identical, report.first_difference
    assert report.rows == 1_330
    assert replay(PIPELINE, kept, read, to=2, start=1).identical
    with pytest.raises(UsageError, match=r"version 1 was learned from b\.arrow .*not among the given files.*--history"):
        replay(PIPELINE, kept, read, to=2, files=given[1:])
    pq.write_table(table(1, 1_100), files / "a.parquet")
    with pytest.raises(UsageError, match=r"learned from a\.parquet .*changed afterwards"):
        replay(PIPELINE, kept, read, to=2, files=given)


def test_a_file_that_changes_meanwhile_is_refused(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learn = learning.learn

    def meddling(*arguments: Any) -> Any:
        with (files / "b.arrow").open("ab") as file:
            file.write(b"more")
        return learn(*arguments)

    monkeypatch.setattr(learning, "learn", meddling)
    with pytest.raises(UsageError, match="changed while it was read"):
        started(tmp_path / "store", ScriptedLog(PIPELINE), files / "b.arrow")
    assert manifests(tmp_path / "store") == []


def without(name: str) -> Callable[[pa.Table], pa.Table]:
    return lambda rows: rows.drop_columns([name])


def cast(name: str, kind: pa.DataType) -> Callable[[pa.Table], pa.Table]:
    return lambda rows: rows.set_column(rows.schema.get_field_index(name), name, rows.column(name).cast(kind))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("distance"), "column 'distance' is missing; the contract wants a number: add the column"),
        (without("late"), "column 'late' is missing; the contract wants a truth value"),
        (cast("distance", pa.string()), "column 'distance' is string; the contract wants a number: cast the column"),
        (cast(TIME, pa.timestamp("us")), "the contract wants an instant with a time zone"),
    ],
)
def test_a_column_that_does_not_fit_is_named(
    change: Callable[[pa.Table], pa.Table], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "flights.parquet"
    pq.write_table(change(table(0, 50)), path)
    with pytest.raises(UsageError, match=re.escape(f"--history {path}: ")) as found:
        started(tmp_path / "store", ScriptedLog(PIPELINE), path)
    assert message in str(found.value)
    assert manifests(tmp_path / "store") == []


def test_what_optional_features_need_not_have(tmp_path: Path) -> None:
    path = tmp_path / "flights.parquet"
    pq.write_table(table(0, 50).drop_columns(["tail"]), path)
    assert isinstance(PIPELINE.contract, Contract)
    assert started(tmp_path / "store", ScriptedLog(PIPELINE), path).total.trained == 50


def test_paths_that_hold_nothing_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "rows.csv").write_text("a,b")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    for path, message in (
        (tmp_path / "nowhere", "there is no such file or folder"),
        (tmp_path / "empty", "no file that ends in .parquet"),
        (tmp_path / "rows.csv", "give files that end in .parquet"),
        (tmp_path / "broken.parquet", "it cannot be read as a Parquet file"),
    ):
        with pytest.raises(UsageError, match=message):
            started(tmp_path / "store", ScriptedLog(PIPELINE), path)
