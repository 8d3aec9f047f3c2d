"""Disks that fill up, break and lose power, and a store that loses its answers: for tests of what must survive that.

The model of a power cut is the weakest one that POSIX allows, as in ALICE (Pillai et al., OSDI 2014): what a file
holds survives if the file was synced, a name in a folder survives if the folder was synced after the name was made or
removed; of everything else each piece survives or not, in any combination, by the seed.
"""

import os
import random
import shutil
from collections.abc import Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from stream_trainer.errors import StoreUnavailable
from stream_trainer.store.disk import Disk
from stream_trainer.store.storage import LocalStorage, Storage, Stored

Kind = Literal[
    "create", "write", "sync", "close", "link", "replace", "unlink", "make_folder", "remove_folder", "sync_folder"
]
KINDS: tuple[Kind, ...] = (
    "create",
    "write",
    "sync",
    "close",
    "link",
    "replace",
    "unlink",
    "make_folder",
    "remove_folder",
    "sync_folder",
)


class Stopped(BaseException):
    """The process has ended here; not an `Exception`, so that no handler goes on as if it had not."""


@dataclass(slots=True)
class _File:
    """What one file holds, and what of it is on the platter."""

    data: bytes = b""
    synced: bytes | None = None


@dataclass(slots=True)
class _Failure:
    """Which calls fail, and how."""

    kinds: Collection[Kind]
    left: int
    number: int
    onward: bool
    partial: float


_FOLDER = _File()
_Names = dict[Path, _File]


@dataclass(slots=True)
class _State:
    names: _Names = field(default_factory=dict)
    durable: _Names = field(default_factory=dict)
    handles: dict[int, _File] = field(default_factory=dict)


class FaultyDisk(Disk):
    """A real folder whose calls can be made to fail, and whose power can be cut.

    What is in the folder at the beginning is durable. Only what goes through this object is tracked.

    Args:
        root: the folder; made if missing.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.root.mkdir(parents=True, exist_ok=True)
        self.calls: list[Kind] = []
        self._failures: list[_Failure] = []
        self._stop_at: int | None = None
        self._stopped = False
        self._state = _State()
        self._settle()

    def fail(
        self,
        number: int,
        kinds: Collection[Kind] = KINDS,
        *,
        nth: int = 1,
        onward: bool = False,
        partial: float = 0.0,
    ) -> None:
        """Let the `nth` call of these kinds from now on fail, or with `onward` that one and every later one.

        Args:
            number: of the OSError, such as `errno.ENOSPC`.
            kinds: which calls are counted.
            nth: 1 is the next one.
            onward: all later ones fail too, until `heal`.
            partial: so much of the data (0 to 1) is written before a `write` fails.
        """
        self._failures.append(_Failure(kinds, nth, number, onward, partial))

    def heal(self) -> None:
        """No call fails any more."""
        self._failures.clear()

    def stop_at(self, nth: int) -> None:
        """Let the process end instead of the `nth` call from now on: it and every later one raises `Stopped`.

        What comes next is `restart` (only the process died) or `power_cut` (the machine did).
        """
        self._stop_at = len(self.calls) + nth

    def restart(self) -> None:
        """A new process on the same disk: all that was written is there, synced or not."""
        self._stop_at, self._stopped = None, False

    def power_cut(self, seed: int) -> None:
        """Leave in the folder what a power cut would, by the seed; a new process may then use it."""
        draw = random.Random(seed)  # noqa: S311 - reproducible, not secret
        state = self._state
        after: _Names = {}
        for path in sorted(state.names.keys() | state.durable.keys()):
            now, then = state.names.get(path), state.durable.get(path)
            survivor = now if now is then or draw.random() < 0.5 else then
            if survivor is not None:
                after[path] = survivor
        contents = {id(file): _torn(file, draw) for file in after.values() if file is not _FOLDER}
        shutil.rmtree(self.root)
        self.root.mkdir()
        for path in sorted(after):
            if not path.parent.is_dir():
                continue  # the name of its folder is lost
            if after[path] is _FOLDER:
                path.mkdir()
            else:
                path.write_bytes(contents[id(after[path])])
        self.restart()
        self._settle()

    def create(self, path: Path) -> int:
        """See `Disk.create`."""
        self._called("create")
        handle = super().create(path)
        self._state.names[path] = self._state.handles[handle] = _File()
        return handle

    def write(self, handle: int, data: bytes) -> None:
        """See `Disk.write`."""
        file = self._state.handles[handle]
        failure = self._called("write", raising=False)
        part = data if failure is None else data[: int(len(data) * failure.partial)]
        super().write(handle, part)
        file.data += part
        if failure is not None:
            raise _error(failure)

    def sync(self, handle: int) -> None:
        """See `Disk.sync`; a second call on one handle is a mistake of whoever makes it."""
        file = self._state.handles[handle]
        if file.synced is not None:
            raise AssertionError("fsync was called twice on one handle")
        file.synced = b""  # after a failed fsync nobody knows: the pages are marked clean
        self._called("sync")
        file.synced = file.data

    def close(self, handle: int) -> None:
        """See `Disk.close`."""
        self._state.handles.pop(handle, None)
        super().close(handle)
        self._called("close")

    def link(self, existing: Path, new: Path) -> None:
        """See `Disk.link`."""
        self._called("link")
        super().link(existing, new)
        self._state.names[new] = self._state.names[existing]

    def replace(self, old: Path, new: Path) -> None:
        """See `Disk.replace`."""
        self._called("replace")
        super().replace(old, new)
        self._state.names[new] = self._state.names.pop(old)

    def unlink(self, path: Path) -> None:
        """See `Disk.unlink`."""
        self._called("unlink")
        super().unlink(path)
        self._state.names.pop(path, None)

    def make_folder(self, path: Path) -> None:
        """See `Disk.make_folder`."""
        self._called("make_folder")
        super().make_folder(path)
        self._state.names.setdefault(path, _FOLDER)

    def remove_folder(self, path: Path) -> None:
        """See `Disk.remove_folder`."""
        self._called("remove_folder")
        super().remove_folder(path)
        self._state.names.pop(path, None)

    def sync_folder(self, path: Path) -> None:
        """See `Disk.sync_folder`."""
        self._called("sync_folder")
        state = self._state
        others = {name: file for name, file in state.durable.items() if name.parent != path}
        state.durable = others | {name: file for name, file in state.names.items() if name.parent == path}

    def _called(self, kind: Kind, *, raising: bool = True) -> _Failure | None:
        if self._stopped or (self._stop_at is not None and len(self.calls) + 1 >= self._stop_at):
            self._stopped = True
            raise Stopped
        self.calls.append(kind)
        found = None
        for failure in self._failures:
            if kind in failure.kinds:
                failure.left -= 1
                if failure.left == 0 or (failure.onward and failure.left < 0):
                    found = failure
        if found is not None and raising:
            raise _error(found)
        return found

    def _settle(self) -> None:
        """Take what is in the folder for durable."""
        names: _Names = {}
        for folder, folders, files in os.walk(self.root):
            here = Path(folder)
            names |= {here / name: _FOLDER for name in folders}
            for name in files:
                data = (here / name).read_bytes()
                names[here / name] = _File(data=data, synced=data)
        self._state = _State(names=names, durable=dict(names))


def _error(failure: _Failure) -> OSError:
    return OSError(failure.number, os.strerror(failure.number))


def _torn(file: _File, draw: random.Random) -> bytes:
    """What of a file survives: all that was synced, else nothing, a part, or all, with a page of zeros perhaps."""
    if file.synced == file.data:
        return file.data
    length = draw.choice([0, draw.randint(0, len(file.data)), len(file.data)])
    zeros = draw.choice([0, 0, min(4096, length)])
    return file.data[: length - zeros] + bytes(zeros)


def faulty_storage(root: Path) -> tuple[LocalStorage, FaultyDisk]:
    """A store in a folder, and the disk it is on.

    Example:
        >>> storage, disk = faulty_storage(tmp_path)
        >>> disk.fail(errno.ENOSPC, ["write"], nth=3, partial=0.5)
        >>> train(pipeline, log, storage)  # raises StoreUnwritable
    """
    disk = FaultyDisk(root)
    return LocalStorage(root, disk), disk


class LostAnswers(Storage):
    """A store that does what its `nth` put asks for and then does not answer, as a network may.

    Args:
        storage: where it is really put.
        nth: which `put` or `put_if_absent` is done without an answer; 1 is the next.
    """

    def __init__(self, storage: Storage, nth: int) -> None:
        self.url = storage.url
        self.seekable = storage.seekable
        self._storage = storage
        self._left = nth

    def get(self, path: str, *, limit: int | None = None) -> bytes:
        """See `Storage.get`."""
        return self._storage.get(path, limit=limit)

    def exists(self, path: str) -> bool:
        """See `Storage.exists`."""
        return self._storage.exists(path)

    def put(self, path: str, data: bytes) -> None:
        """See `Storage.put`."""
        self._storage.put(path, data)
        self._lose(path)

    def put_if_absent(self, path: str, data: bytes) -> bool:
        """See `Storage.put_if_absent`."""
        won = self._storage.put_if_absent(path, data)
        self._lose(path)
        return won

    def filling(self, folder: str) -> AbstractContextManager[None]:
        """See `Storage.filling`."""
        return self._storage.filling(folder)

    def persist(self, path: str) -> None:
        """See `Storage.persist`."""
        self._storage.persist(path)

    def delete(self, path: str) -> None:
        """See `Storage.delete`."""
        self._storage.delete(path)

    def tidy(self, prefix: str) -> None:
        """See `Storage.tidy`."""
        self._storage.tidy(prefix)

    def names(self, prefix: str, after: str = "") -> list[str]:
        """See `Storage.names`."""
        return self._storage.names(prefix, after)

    def walk(self, prefix: str) -> list[str]:
        """See `Storage.walk`."""
        return self._storage.walk(prefix)

    def survey(self, prefix: str) -> list[Stored]:
        """See `Storage.survey`."""
        return self._storage.survey(prefix)

    def leftovers(self, prefix: str) -> list[Stored]:
        """See `Storage.leftovers`."""
        return self._storage.leftovers(prefix)

    def _lose(self, path: str) -> None:
        self._left -= 1
        if self._left == 0:
            raise StoreUnavailable(f"{self.url}/{path}: the store did not answer")
