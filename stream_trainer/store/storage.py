"""Where bytes live: a folder or an object store, behind five methods.

`put_if_absent` is the one that everything rests on: exactly one caller wins a path. What it has returned True for
survives a power cut.
"""

import os
import secrets
from abc import ABC, abstractmethod
from pathlib import Path
from urllib.parse import urlsplit

from stream_trainer.errors import StoreUnavailable, UsageError
from stream_trainer.settings import StoreSettings


class Storage(ABC):
    """Paths are relative, `/`-separated and made by this project; never taken from a request."""

    url: str

    @abstractmethod
    def get(self, path: str) -> bytes:
        """The whole object.

        Raises:
            FileNotFoundError: there is none.
            StoreUnavailable: the store did not answer.
        """

    @abstractmethod
    def put(self, path: str, data: bytes) -> None:
        """Write or replace; only for hints, which are never the truth."""

    @abstractmethod
    def put_if_absent(self, path: str, data: bytes) -> bool:
        """Write durably unless something is there; False when something was."""

    @abstractmethod
    def walk(self, prefix: str) -> list[str]:
        """The paths of all objects under a folder, sorted; empty when there is none."""

    @abstractmethod
    def delete(self, path: str) -> None:
        """Remove an object; nothing happens when it is gone already."""

    @abstractmethod
    def names(self, prefix: str) -> list[str]:
        """The names directly under a folder, of objects and of folders, sorted."""


class LocalStorage(Storage):
    """A folder. Writing: temporary file, fsync, link(2) or rename(2), fsync of the folder."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().absolute()
        self.url = str(self.root)

    def get(self, path: str) -> bytes:
        """See `Storage.get`."""
        try:
            return self._full(path).read_bytes()
        except (IsADirectoryError, NotADirectoryError) as error:
            raise FileNotFoundError(path) from error
        except PermissionError as error:
            raise StoreUnavailable(f"{self._full(path)} cannot be read: {error.strerror}") from error

    def put(self, path: str, data: bytes) -> None:
        """See `Storage.put`."""
        temporary = self._write_temporary(path, data)
        temporary.replace(self._full(path))
        _sync_folder(temporary.parent)

    def put_if_absent(self, path: str, data: bytes) -> bool:
        """See `Storage.put_if_absent`."""
        temporary = self._write_temporary(path, data)
        try:
            self._full(path).hardlink_to(temporary)
        except FileExistsError:
            return False
        finally:
            temporary.unlink()
        _sync_folder(temporary.parent)
        return True

    def walk(self, prefix: str) -> list[str]:
        """See `Storage.walk`."""
        found = []
        for folder, _, names in os.walk(self._full(prefix)):
            here = Path(folder).relative_to(self.root)
            found += [(here / name).as_posix() for name in names if not name.startswith(".")]
        return sorted(found)

    def delete(self, path: str) -> None:
        """See `Storage.delete`."""
        self._full(path).unlink(missing_ok=True)

    def names(self, prefix: str) -> list[str]:
        """See `Storage.names`."""
        try:
            return sorted(p.name for p in self._full(prefix).iterdir() if not p.name.startswith("."))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def _full(self, path: str) -> Path:
        return self.root / path

    def _write_temporary(self, path: str, data: bytes) -> Path:
        folder = self._full(path).parent
        _make_folder(folder, self.root)
        temporary = folder / f".{secrets.token_hex(8)}.tmp"
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return temporary


def _make_folder(folder: Path, root: Path) -> None:
    """Create the folder and its parents so that their names survive a power cut too."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        if folder in (root.parent, folder.parent):
            break
        folder = folder.parent
    for path in reversed(missing):
        path.mkdir(parents=True, exist_ok=True)
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


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
