"""What users test their pipelines with."""

import subprocess
import sys
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_trainer import offsets
from stream_trainer.crashpoints import crashpoint
from stream_trainer.offsets import Offsets
from stream_trainer.pipeline import Pipeline
from stream_trainer.testing import (
    Abort,
    Aborted,
    Crash,
    FakeClock,
    Gap,
    Pause,
    Poison,
    ScriptedLog,
    crash_at,
    crash_points,
)
from stream_trainer.testing.crash import counted
from stream_trainer.testing.log import Item
from tests.core.worlds import CONTRACT, TOPIC, flight

PIPELINE = Pipeline(name="flights", contract=CONTRACT)
ITEMS: st.SearchStrategy[Item] = st.one_of(
    st.integers(0, 50).map(flight),
    st.just(Poison(b"{")),
    st.just(Poison(None)),
    st.integers(1, 3).map(Gap),
    st.floats(0, 5).map(Pause),
)


def cuts_of(log: ScriptedLog, most: int) -> list[Any]:
    position: Offsets = log_start(log)
    found = []
    while (cut := log.next_cut(position, most)) is not None:
        found.append(cut[0])
        position = offsets.advance(position, cut[0])
    return found


def log_start(log: ScriptedLog) -> Offsets:
    return {TOPIC: log.starts(TOPIC, log.partitions(TOPIC))}


@given(st.lists(ITEMS, max_size=40), st.integers(1, 9))
def test_cuts_tile_the_log_and_hold_every_record_once(script: list[Item], most: int) -> None:
    log = ScriptedLog(PIPELINE, script)
    cuts = cuts_of(log, most)
    whole: offsets.Ranges = {}
    for cut in cuts:
        assert 0 < offsets.size(cut) <= most
        whole = offsets.join(whole, cut)
    assert offsets.size(whole) == sum(log.ends(TOPIC, log.partitions(TOPIC)).values())
    rows = sum(log.read(cut).num_rows for cut in cuts)
    assert rows == sum(not isinstance(item, Gap | Pause) for item in script)


def test_a_pause_ends_a_micro_batch() -> None:
    log = ScriptedLog(PIPELINE, [flight(1), flight(2), Pause(), Pause(3), flight(3)])
    assert [offsets.size(cut) for cut in cuts_of(log, 10)] == [2, 1]
    found = log.next_cut(log_start(log), 10)
    assert found is not None
    assert found[1] == 3


def test_an_abort_strikes_once_whoever_reads_across_it() -> None:
    log = ScriptedLog(PIPELINE, [flight(1), Abort(), flight(2)])
    (cut,) = cuts_of(log, 10)
    with pytest.raises(Aborted, match="as the script says"):
        log.read(cut)
    assert log.read(cut).num_rows == 2


def test_records_go_where_kafkas_producers_send_them() -> None:
    """murmur2 of "f0" to "f5" over three partitions, as Java's client computes it."""
    log = ScriptedLog(PIPELINE, [flight(i) for i in range(6)])
    rows = log.read({TOPIC: {p: (0, n) for p, n in log.ends(TOPIC, [0, 1, 2]).items()}}).to_pylist()
    found = {row["_partition"] for row in rows}
    assert len(found) > 1
    again = ScriptedLog(PIPELINE, [flight(i) for i in range(6)])
    assert again.ends(TOPIC, [0, 1, 2]) == log.ends(TOPIC, [0, 1, 2])
    assert again.topic_id == log.topic_id


def test_a_clock_stands_still_until_it_is_moved() -> None:
    clock = FakeClock()
    begun = clock()
    clock.advance(5)
    clock.jump(-3600)
    assert (clock() - begun, clock.monotonic()) == (timedelta(seconds=5 - 3600), 5.0)


def test_a_crash_strikes_at_the_asked_arrival_and_no_handler_keeps_it_alive() -> None:
    reached = 0

    def stubborn() -> None:
        nonlocal reached
        for _ in range(5):
            reached += 1
            with suppress(Exception):
                crashpoint("here")

    with pytest.raises(Crash), crash_at("here", 3):
        stubborn()
    assert reached == 3
    crashpoint("here")


def test_arrivals_are_counted() -> None:
    with counted() as found:
        crashpoint("a")
        crashpoint("b")
        crashpoint("a")
    assert found == {"a": 2, "b": 1}


def test_every_point_of_the_core_is_found_in_the_source() -> None:
    points = crash_points()
    assert points["microbatch.committed"].startswith("stream_trainer/microbatch.py:")
    assert all("." in name for name in points)


def package(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"points_{abs(hash(text))}"
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(text)
    monkeypatch.syspath_prepend(str(folder))
    return name


@pytest.mark.parametrize(
    ("text", "problem"),
    [("crashpoint('a')\ncrashpoint('a')", "names are unique"), ("crashpoint('a' + b)", "must be a literal")],
)
def test_points_that_cannot_be_told_apart_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, problem: str
) -> None:
    name = package(tmp_path, f"if False:\n    {text.replace(chr(10), chr(10) + '    ')}\n", monkeypatch)
    with pytest.raises(ValueError, match=problem):
        crash_points(name)


def test_kill_at_ends_a_process_as_kill_9_does() -> None:
    code = (
        "from stream_trainer.crashpoints import crashpoint\n"
        "from stream_trainer.testing import kill_at\n"
        "kill_at('x', 2)\ncrashpoint('x')\nprint('once', flush=True)\ncrashpoint('x')\nprint('never')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (-9, "once\n"), done.stderr
