"""What is kept between two micro-batches: one part that cannot be read costs itself alone."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitors.content import Content
from monitors.life import Life
from monitors.performance.presence import Labelling
from monitors.scales import Blocks
from monitors.state import MonitorState, StateFiles, Watched, with_windows_of
from monitors.windows import Windows
from stream_trainer.store.storage import LocalStorage

from .worlds import START

PATH = f"state/{3:020d}.msgpack"
STATE = MonitorState(
    window=timedelta(minutes=5),
    predictions=Watched(windows=Windows(open={7: Content(rows=3)}, late=2), blocks=Blocks(newest=6)),
    examples=Watched(windows=Windows(closed=4)),
    labelling=Labelling(label=START),
    life=Life(),
)


def kept(folder: Path, content: bytes) -> MonitorState:
    storage = LocalStorage(folder)
    storage.put(PATH, content)
    return StateFiles(storage).before(4)


def damaged(state: MonitorState, *path: str) -> bytes:
    """The state with something else in one place."""
    whole: Any = msgspec.msgpack.decode(msgspec.msgpack.encode(state))
    place = whole
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = "nothing that it could be"
    return msgspec.msgpack.encode(whole)


def replaced(state: Any, path: tuple[str, ...], value: Any) -> Any:
    inner = replaced(getattr(state, path[0]), path[1:], value) if path[1:] else value
    return msgspec.structs.replace(state, **{path[0]: inner})


def test_windows_that_are_lost_take_the_blocks_with_them_which_take_each_but_once(tmp_path: Path) -> None:
    for part in ("windows", "waiting"):
        found = kept(tmp_path, damaged(STATE, "predictions", part))
        assert found.predictions.blocks == Watched().blocks
        assert found.predictions.usual == STATE.predictions.usual
        assert found.examples == STATE.examples


@pytest.mark.parametrize(
    ("path", "begins"),
    [
        (("predictions", "schema"), Watched().schema),
        (("predictions",), Watched()),
        (("examples", "usual"), Watched().usual),
        (("performance",), MonitorState().performance),
        (("labelling",), Labelling()),
        (("life",), None),
        (("window",), None),
    ],
)
def test_what_cannot_be_read_begins_anew_and_the_rest_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, path: tuple[str, ...], begins: Any
) -> None:
    assert kept(tmp_path, damaged(STATE, *path)) == replaced(STATE, path, begins)
    assert [record.getMessage().partition(" is ")[0] for record in caplog.records] == [
        f"the monitor's state after batch 3: {'.'.join(path)}"
    ]


def test_an_older_state_without_a_field_and_one_with_a_field_too_many_are_read(tmp_path: Path) -> None:
    old = msgspec.msgpack.decode(msgspec.msgpack.encode(STATE))
    del old["labelling"]
    assert kept(tmp_path, msgspec.msgpack.encode(old | {"more": 1})) == replaced(STATE, ("labelling",), Labelling())


@given(st.integers(0, 400), st.integers(0, 255))
def test_no_damage_stops_the_monitor(tmp_path_factory: pytest.TempPathFactory, at: int, byte: int) -> None:
    content = bytearray(msgspec.msgpack.encode(STATE))
    content[at % len(content)] = byte
    folder = tmp_path_factory.mktemp("state")
    assert isinstance(kept(folder, bytes(content)), MonitorState)
    assert isinstance(kept(folder, bytes(content[:at])), MonitorState)


def test_a_state_that_is_not_there_is_that_of_the_beginning(tmp_path: Path) -> None:
    assert StateFiles(LocalStorage(tmp_path)).before(4) == MonitorState()


def test_windows_of_another_length_keep_what_was_not_counted_by_windows() -> None:
    hour = timedelta(hours=1)
    assert with_windows_of(timedelta(minutes=5), STATE) == STATE
    assert with_windows_of(hour, STATE) == MonitorState(window=hour, labelling=STATE.labelling, life=Life())
    unsaid = msgspec.structs.replace(STATE, window=None)
    assert with_windows_of(hour, unsaid) == msgspec.structs.replace(STATE, window=hour)
