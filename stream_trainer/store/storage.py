"""Where bytes live: a folder or an object store, behind a few methods.

`put_if_absent` is the one that everything rests on: exactly one caller wins a path. What it has answered for, True or
False, survives a power cut; inside `filling`, once that ends.
"""

import contextlib
import errno
import secrets
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import datetime
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from stream_trainer.crashpoints import crashpoint
from stream_trainer.errors import Corrupt, StoreUnavailable, StoreUnwritable, UsageError
from stream_trainer.settings import StoreSettings
from stream_trainer.store.disk import Disk

_TEMPORARY = ".tmp"
_REMEMBERED = 4_096
_NOT_OURS = "let the user of this process write there (ls -ld shows who may)"
_ADVICE = {
    errno.ENOSPC: "free some space (`stream-trainer models gc` deletes what is not needed)",
    errno.EDQUOT: "free some space (`stream-trainer models gc`), or raise the quota",
    errno.EROFS: "remount it for writing, and look in the kernel's log for why it is read-only",
    errno.EACCES: _NOT_OURS,
    errno.EPERM: _NOT_OURS,
    errno.ENOTDIR: "a file is where a folder has to be: move it away, or use another store URL",
    errno.EEXIST: "a file is where a folder has to be: move it away, or use another store URL",
    errno.EOPNOTSUPP: "this file system has no hard links: put the store on another one, or in a bucket",
}


class Stored(NamedTuple):
    """An object as a listing shows it."""

    path: str
    size: int
    modified: datetime


class Storage(ABC):
    """Paths are relative, `/`-separated and made by this project; never taken from a request.

    Any method may raise StoreUnavailable (no answer: try again); one that writes may raise StoreUnwritable (disk full,
    read-only, not permitted: a person has to act). Nothing half-written is ever visible under its path.

    Attributes:
        url: where it is, for messages.
        seekable: whether `names(…, after=…)` costs what it returns, not what there is.
    """

    url: str
    seekable: bool = False

    @abstractmethod
    def get(self, path: str, *, limit: int | None = None) -> bytes:
        """The whole object; one that holds more than `limit` bytes is not read.

        Raises:
            FileNotFoundError: there is none.
            Corrupt: it holds more.
        """

    @abstractmethod
    def exists(self, path: str) -> bool:
        """Whether there is an object."""

    @abstractmethod
    def put(self, path: str, data: bytes) -> None:
        """Write or replace; only for hints, which are never the truth."""

    @abstractmethod
    def put_if_absent(self, path: str, data: bytes) -> bool:
        """Write durably unless something is there; False when something was, which then is durable too."""

    def filling(self, folder: str) -> AbstractContextManager[None]:  # noqa: ARG002
        """For a folder of the caller's own: what is put into it inside the block is durable after the block."""
        return nullcontext()

    @abstractmethod
    def persist(self, path: str) -> None:
        """Make an object that is visible survive a power cut, whoever wrote it and however far they got.

        Nothing happens when there is none.
        """

    @abstractmethod
    def delete(self, path: str) -> None:
        """Remove an object; nothing happens when it is gone already. A power cut may bring it back."""

    @abstractmethod
    def tidy(self, prefix: str) -> None:
        """Remove what is left of a folder without objects; nothing happens when there are some."""

    @abstractmethod
    def names(self, prefix: str, after: str = "") -> list[str]:
        """The names directly under a folder that sort after `after`, of objects and of folders, sorted."""

    @abstractmethod
    def walk(self, prefix: str) -> list[str]:
        """The paths of all objects under a folder, sorted; empty when there is none."""

    @abstractmethod
    def survey(self, prefix: str) -> list[Stored]:
        """All objects under a folder, sorted by path, with sizes and times of their last change."""

    @abstractmethod
    def leftovers(self, prefix: str) -> list[Stored]:
        """What writers that died have left half-written under a folder; `delete` takes these paths."""


class LocalStorage(Storage):
    """A folder. Writing: temporary file, fsync, link(2) or rename(2), fsync of the folder.

    A folder is trusted to survive a power cut only after this object has synced its name itself: whoever made it may
    have died in between.
    """

    def __init__(self, root: Path, disk: Disk | None = None) -> None:
        self.root = root.expanduser().absolute()
        self.url = str(self.root)
        self.disk = disk or Disk()
        self._durable: set[Path] = set()
        self._filling: set[Path] = set()

    def get(self, path: str, *, limit: int | None = None) -> bytes:
        """See `Storage.get`."""
        full = self._full(path)

        def accept(size: int) -> None:
            if limit is not None:
                refuse_larger(full, size, limit)

        try:
            return self.disk.read(full, accept)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise FileNotFoundError(path) from error
        except OSError as error:
            raise _unavailable(full, "read", error) from error

    def exists(self, path: str) -> bool:
        """See `Storage.exists`."""
        return self._stat(self._full(path)) is not None

    def put(self, path: str, data: bytes) -> None:
        """See `Storage.put`."""
        full = self._full(path)
        with _writing(full):
            temporary = self._write_temporary(full.parent, data)
            try:
                self.disk.replace(temporary, full)
            except OSError:
                self._discard(temporary)
                raise
            crashpoint("storage.replaced")
            self.disk.sync_folder(full.parent)

    def put_if_absent(self, path: str, data: bytes) -> bool:
        """See `Storage.put_if_absent`."""
        full = self._full(path)
        won = True
        with _writing(full):
            temporary = self._write_temporary(full.parent, data)
            try:
                self.disk.link(temporary, full)
            except FileExistsError:
                won = False
            finally:
                crashpoint("storage.linked")
                self._discard(temporary)
            crashpoint("storage.unlinked")
            if full.parent not in self._filling:
                self.disk.sync_folder(full.parent)  # also for who lost: the winner may have died before this line
        return won

    @contextmanager
    def filling(self, folder: str) -> Iterator[None]:
        """See `Storage.filling`: one fsync of the folder for all of its names."""
        full = self._full(folder)
        with _writing(full):
            self._make_folders(full)
        self._filling.add(full)
        try:
            yield
        finally:
            self._filling.discard(full)
        with _writing(full):
            self.disk.sync_folder(full)

    def persist(self, path: str) -> None:
        """See `Storage.persist`."""
        folder = self._full(path).parent
        if not self.exists(path):
            return
        with _writing(folder):
            self._make_folders(folder)
            self.disk.sync_folder(folder)

    def delete(self, path: str) -> None:
        """See `Storage.delete`."""
        full = self._full(path)
        with _writing(full, "deleted"), contextlib.suppress(FileNotFoundError):
            self.disk.unlink(full)

    def tidy(self, prefix: str) -> None:
        """See `Storage.tidy`."""
        folder = self._full(prefix)
        self._durable.discard(folder)
        with contextlib.suppress(OSError):  # it is not empty, or somebody else was first
            self.disk.remove_folder(folder)

    def names(self, prefix: str, after: str = "") -> list[str]:
        """See `Storage.names`."""
        found = self._entries(self._full(prefix))
        return sorted(name for name, _ in found if name > after and not name.startswith("."))

    def walk(self, prefix: str) -> list[str]:
        """See `Storage.walk`."""
        return sorted(self._relative(path) for path in self._files(self._full(prefix)) if path.name[0] != ".")

    def survey(self, prefix: str) -> list[Stored]:
        """See `Storage.survey`."""
        return self._stored(path for path in self._files(self._full(prefix)) if path.name[0] != ".")

    def leftovers(self, prefix: str) -> list[Stored]:
        """See `Storage.leftovers`."""
        files = self._files(self._full(prefix))
        return self._stored(path for path in files if path.name[0] == "." and path.suffix == _TEMPORARY)

    def _full(self, path: str) -> Path:
        """Where a path lies. The root may be a link; what leads out of it from inside is nobody's doing of ours."""
        full = self.root / path
        if ".." in full.parts or "\0" in path:
            raise Corrupt(f"{path!r} is no path in a store")
        part = str(full)
        while part != self.url:
            if len(part) <= len(self.url):
                raise Corrupt(f"{full} does not lie in the store")
            if self.disk.is_link(part) and not Path(part).resolve().is_relative_to(self.root.resolve()):
                raise Corrupt(f"{part} is a link that leads out of the store: nothing behind it is read or changed")
            part = part.rpartition("/")[0]
        return full

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def _entries(self, folder: Path) -> list[tuple[str, bool]]:
        try:
            return [(name, is_folder) for name, is_folder in self.disk.entries(folder)]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise _unavailable(folder, "listed", error) from error

    def _files(self, folder: Path) -> Iterator[Path]:
        for name, is_folder in self._entries(folder):
            if is_folder:
                yield from self._files(folder / name)
            else:
                yield folder / name

    def _stat(self, full: Path) -> tuple[int, datetime] | None:
        try:
            return None if self.disk.is_folder(full) else self.disk.stat(full)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _unavailable(full, "looked at", error) from error

    def _stored(self, paths: Iterator[Path]) -> list[Stored]:
        found = ((path, self._stat(path)) for path in paths)
        return sorted(Stored(self._relative(path), *stat) for path, stat in found if stat is not None)

    def _write_temporary(self, folder: Path, data: bytes) -> Path:
        """A synced file of another name beside its place; none is left behind when that fails."""
        temporary = folder / f".{secrets.token_hex(8)}{_TEMPORARY}"
        self._make_folders(folder)
        try:
            handle = self.disk.create(temporary)
        except FileNotFoundError:  # the folder was empty and has been tidied away since
            self._durable.clear()
            self._make_folders(folder)
            handle = self.disk.create(temporary)
        try:
            try:
                self.disk.write(handle, data)
                crashpoint("storage.written")
                self.disk.sync(handle)
            finally:
                self.disk.close(handle)
            crashpoint("storage.synced")
        except BaseException:
            self._discard(temporary)
            raise
        return temporary

    def _discard(self, temporary: Path) -> None:
        with contextlib.suppress(OSError):  # `models gc` takes what cannot be removed now
            self.disk.unlink(temporary)

    def _make_folders(self, folder: Path) -> None:
        """Make the folder and its parents, and let each of their names survive a power cut."""
        if folder in self._durable:
            return
        if folder == self.root:
            self._make_root()
        else:
            self._make_folders(folder.parent)
            self.disk.make_folder(folder)
            crashpoint("storage.folder_made")
            self.disk.sync_folder(folder.parent)
        if len(self._durable) >= _REMEMBERED:  # each version has folders of its own; to forget costs only a sync
            self._durable.clear()
        self._durable.add(folder)

    def _make_root(self) -> None:
        missing = [path for path in (self.root, *self.root.parents) if not self.disk.is_folder(path)]
        for path in reversed(missing):
            self.disk.make_folder(path)
            self.disk.sync_folder(path.parent)
        if not missing:
            with contextlib.suppress(PermissionError):  # it was there before us, in a folder that we may not even read
                self.disk.sync_folder(self.root.parent)


@contextmanager
def _writing(what: Path, done: str = "written") -> Iterator[None]:
    """Tell what a person has to mend from what may pass."""
    try:
        yield
    except OSError as error:
        advice = _ADVICE.get(error.errno or 0)
        if advice is None:
            raise _unavailable(what, done, error) from error
        raise StoreUnwritable(
            f"{what} cannot be {done}: {error.strerror}: {advice}, then start again; versions committed so far are intact"
        ) from error


def refuse_larger(what: object, size: int, limit: int) -> None:
    """Nothing, if the size is within the limit.

    Raises:
        Corrupt: it is not.
    """
    if size > limit:
        raise Corrupt(f"{what} holds {size} bytes, at most {limit} are expected: it is not what was written there")


def _unavailable(what: Path, done: str, error: OSError) -> StoreUnavailable:
    return StoreUnavailable(f"{what} cannot be {done}: {error.strerror or type(error).__name__}")


def open_storage(url: str, settings: StoreSettings) -> Storage:
    """The storage behind a URL: a folder, `file://`, or what obstore serves.

    Raises:
        UsageError: the scheme is not one of those.
    """
    scheme = urlsplit(url).scheme
    if scheme in ("", "file"):
        return LocalStorage(Path(url.removeprefix("file://")))
    if scheme not in ("s3", "gs", "az"):
        raise UsageError(f"store {url!r}: use a folder, or an s3://, gs:// or az:// URL")
    from stream_trainer.store.objects import ObjectStorage  # noqa: PLC0415 - only who uses a remote store pays for it

    return ObjectStorage(url, settings)
