"""The state of one bucket of join keys: many keys asked at once, and when which of them is due.

Spark's Python client waits for an answer after each get and put, which costs more than the state itself. `MapState`
here writes many requests before it reads their answers, on the same connection and by the same protocol.
"""

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

WINDOW_BYTES = 32_768
CHUNK_KEYS = 512
_HEAD = struct.Struct("!ii")
_LENGTH = struct.Struct("!i")
_SIZE = struct.Struct("<I")
_SLOT = struct.Struct(">Q")
_CHUNK = struct.Struct(">QI")
_KEY, _DUE, _MORE, _AGENDA = b"k", b"d", b"m", b"a"


class Stored(Protocol):
    """Values by key; what is asked together is cheap."""

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """A value for each key, None where there is none."""
        ...

    def put(self, values: Mapping[bytes, bytes | None]) -> None:
        """Keep values; None removes."""
        ...


class MapState:
    """A `MapState` of pyspark with columns `packed binary`, of the bucket that is being processed."""

    def __init__(self, state: Any) -> None:
        from pyspark.sql.streaming.proto import StateMessage_pb2  # noqa: PLC0415 - workers only

        self._messages: Any = StateMessage_pb2
        self._name = state._stateName  # noqa: SLF001 - pyspark has no public way to ask for more than one
        self._client = state._mapStateClient._stateful_processor_api_client  # noqa: SLF001

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """See `Stored.get`."""
        calls = ({"getValue": self._messages.GetValue(userKey=_row(key))} for key in keys)
        return [self._client._deserialize_from_bytes(found)[0] if found else None for found in self._ask(calls)]  # noqa: SLF001

    def put(self, values: Mapping[bytes, bytes | None]) -> None:
        """See `Stored.put`."""
        for _ in self._ask(self._change(key, value) for key, value in values.items()):
            pass

    def _change(self, key: bytes, value: bytes | None) -> dict[str, Any]:
        if value is None:
            return {"removeKey": self._messages.RemoveKey(userKey=_row(key))}
        return {"updateValue": self._messages.UpdateValue(userKey=_row(key), value=_row(value))}

    def _ask(self, calls: Iterable[dict[str, Any]]) -> Iterator[bytes]:
        """Answers in order. What is under way fits the socket, so neither side ever waits for the other to read."""
        waiting, size = 0, 0
        for call in calls:
            message = self._message(call)
            if waiting and size + len(message) > WINDOW_BYTES:
                yield from self._answers(waiting)
                waiting, size = 0, 0
            self._client.sockfile.write(message)
            waiting, size = waiting + 1, size + len(message)
        yield from self._answers(waiting)

    def _message(self, call: dict[str, Any]) -> bytes:
        messages = self._messages
        asked = messages.StateVariableRequest(mapStateCall=messages.MapStateCall(stateName=self._name, **call))
        body: bytes = messages.StateRequest(stateVariableRequest=asked).SerializeToString()
        return _HEAD.pack(0, len(body)) + body

    def _answers(self, count: int) -> list[bytes]:
        if not count:
            return []
        file = self._client.sockfile
        file.flush()
        answers = []
        for _ in range(count):
            answer = self._messages.StateResponse.FromString(file.read(*_LENGTH.unpack(file.read(_LENGTH.size))))
            if answer.statusCode != 0:
                raise RuntimeError(f"the state of the joiner answered {answer.statusCode}: {answer.errorMessage}")
            answers.append(answer.value)
        return answers


def _row(value: bytes) -> bytes:
    """A row of one binary column as Spark reads it from Python: the pickle of `(value,)`, protocol 3."""
    return b"\x80\x03B" + _SIZE.pack(len(value)) + value + b"\x85."


@dataclass(frozen=True, slots=True)
class Agenda:
    """The slots under which keys are listed, and the timers that are registered for them."""

    slots: frozenset[int] = frozenset()
    timers: frozenset[int] = frozenset()


class Bucket:
    """The keys of one bucket and, by slots of time, which of them are due."""

    def __init__(self, stored: Stored) -> None:
        self._stored = stored

    def load(self, keys: Sequence[str]) -> list[bytes | None]:
        """The state of each key."""
        return self._stored.get([_KEY + key.encode() for key in keys])

    def save(self, states: Mapping[str, bytes | None], due: Mapping[int, Sequence[str]]) -> list[int]:
        """Keep states, and under each slot the keys that are due in it.

        Returns:
            The slots that are new: each wants a timer.
        """
        changes: dict[bytes, bytes | None] = {_KEY + key.encode(): state for key, state in states.items()}
        slots = list(due)
        heads = self._stored.get([_DUE + _SLOT.pack(slot) for slot in slots])
        for slot, head in zip(slots, heads, strict=True):
            changes |= _listed(slot, head, due[slot])
        self._stored.put(changes)
        return [slot for slot, head in zip(slots, heads, strict=True) if head is None]

    def due(self, slot: int) -> list[str]:
        """The keys that were listed under a slot, each once; the list is gone after that."""
        name = _DUE + _SLOT.pack(slot)
        head = self._stored.get([name])[0]
        if head is None:
            return []
        chunks, last = _HEADS.decode(head)
        names = [_MORE + _CHUNK.pack(slot, number) for number in range(chunks)]
        keys = [key for chunk in self._stored.get(names) if chunk is not None for key in _KEYS.decode(chunk)]
        self._stored.put(dict.fromkeys([name, *names]))
        return list(dict.fromkeys([*keys, *last]))

    def lists(self, slot: int) -> bool:
        """Whether keys are listed under a slot."""
        return self._stored.get([_DUE + _SLOT.pack(slot)])[0] is not None

    def agenda(self) -> Agenda:
        """What `intend` has noted last."""
        found = self._stored.get([_AGENDA])[0]
        return Agenda() if found is None else Agenda(*map(frozenset, _AGENDAS.decode(found)))

    def intend(self, agenda: Agenda) -> None:
        """Note slots and timers; an empty agenda leaves nothing."""
        noted = msgspec.msgpack.encode((sorted(agenda.slots), sorted(agenda.timers)))
        self._stored.put({_AGENDA: noted if agenda.slots or agenda.timers else None})


_AGENDAS = msgspec.msgpack.Decoder(tuple[list[int], list[int]])
_HEADS = msgspec.msgpack.Decoder(tuple[int, list[str]])
_KEYS = msgspec.msgpack.Decoder(list[str])


def _listed(slot: int, head: bytes | None, keys: Sequence[str]) -> dict[bytes, bytes | None]:
    """What changes when keys are added to a slot: its last list, and one that is full put away."""
    chunks, last = (0, []) if head is None else _HEADS.decode(head)
    last += keys
    changes: dict[bytes, bytes | None] = {}
    while len(last) >= CHUNK_KEYS:
        full, last = last[:CHUNK_KEYS], last[CHUNK_KEYS:]
        changes[_MORE + _CHUNK.pack(slot, chunks)] = msgspec.msgpack.encode(full)
        chunks += 1
    changes[_DUE + _SLOT.pack(slot)] = msgspec.msgpack.encode((chunks, last))
    return changes
