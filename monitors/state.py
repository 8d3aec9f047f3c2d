"""What the monitor knows between two micro-batches, kept per batch beside Spark's checkpoint.

The state after batch n is written before Spark commits batch n. A batch that comes back after a crash starts again from
the state after n - 1, so nothing is counted twice and no open window is lost.
"""

import logging
from contextlib import suppress
from datetime import timedelta
from typing import Any

import msgspec
from msgspec import UNSET

from monitors.content import Content
from monitors.life import Life
from monitors.performance.presence import Labelling
from monitors.performance.step import PerformanceState
from monitors.scales import Blocks
from monitors.schema import SchemaState
from monitors.usual import Usual
from monitors.windows import Closed, Windows
from stream_trainer.store.storage import Storage

_UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)
_log = logging.getLogger(__name__)


class Watched(msgspec.Struct, frozen=True, kw_only=True):
    """One topic.

    Attributes:
        waiting: closed windows that wait to be judged.
        blocks: several windows together.
        usual: how much windows usually differ.
        schema: what is usual of records that cannot be read; of predictions.
    """

    windows: Windows = Windows()
    waiting: list[Closed] = []
    blocks: Blocks[Content] = Blocks()
    usual: Usual = Usual()
    schema: SchemaState = SchemaState()


class MonitorState(msgspec.Struct, frozen=True, kw_only=True):
    """All that a micro-batch starts from.

    Attributes:
        window: how long windows were; None: nobody has said, in a state of an older release.
        labelling: whether labels come for what is answered.
        life: the alerts that are open, and how long they have been quiet; None: what `P.alerts` says is open.
    """

    window: timedelta | None = None

    predictions: Watched = Watched()
    examples: Watched = Watched()
    performance: PerformanceState = PerformanceState()
    labelling: Labelling = Labelling()
    life: Life | None = None


def with_windows_of(length: timedelta, state: MonitorState) -> MonitorState:
    """The same, unless windows were of another length: then all that was counted by windows begins anew."""
    if state.window not in (None, length):
        _log.warning("windows were %s long and are %s now: what was usual is learned anew", state.window, length)
        state = MonitorState(life=state.life, labelling=state.labelling)
    return msgspec.structs.replace(state, window=length)


class StateFiles:
    """States by batch number; only the last two are kept."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._last: tuple[int, MonitorState] | None = None

    def before(self, batch: int) -> MonitorState:
        """The state that batch `batch` starts from; a missing one is empty, and what of it cannot be read begins anew."""
        if self._last is not None and self._last[0] == batch - 1:
            return self._last[1]
        try:
            content = self._storage.get(_path(batch - 1))
        except FileNotFoundError:
            return MonitorState()
        lost: dict[str, Exception] = {}
        state = _readable(MonitorState, content, "", lost)
        for name, error in lost.items():
            _log.warning(
                "the monitor's state after batch %d: %s is unreadable and begins anew: %s", batch - 1, name, error
            )
        return MonitorState() if state is UNSET else state

    def save(self, batch: int, state: MonitorState) -> None:
        """Keep the state after batch `batch`."""
        self._storage.put(_path(batch), msgspec.msgpack.encode(state))
        self._storage.delete(_path(batch - 2))
        self._last = batch, state


def _readable(kind: Any, content: bytes, name: str, lost: dict[str, Exception]) -> Any:
    """What was encoded; each field of the state, or of a topic, that cannot be read is left to its beginning."""
    try:
        return msgspec.msgpack.decode(content, type=kind)
    except _UNREADABLE as error:
        parts = _parts(content) if kind in (MonitorState, Watched) else {}
        if not parts:
            lost[name or "all"] = error
            return UNSET
    found = {
        field.name: _readable(field.type, bytes(parts[field.name]), f"{name}.{field.name}".strip("."), lost)
        for field in msgspec.structs.fields(kind)
        if field.name in parts
    }
    if kind is Watched and UNSET in (found.get("windows"), found.get("waiting")):
        found.pop("blocks", None)  # windows that were lost come again, and blocks take each but once
    return kind(**{name: value for name, value in found.items() if value is not UNSET})


def _parts(content: bytes) -> dict[str, msgspec.Raw]:
    with suppress(*_UNREADABLE):
        return msgspec.msgpack.decode(content, type=dict[str, msgspec.Raw])
    return {}


def _path(batch: int) -> str:
    return f"state/{batch:020d}.msgpack"
