"""The calls to the operating system that a store in a folder is made of, one method each.

`LocalStorage` gets one and touches no file without it, so that a test can cut the power between any two calls or let
one fail (`stream_trainer.testing.disk`). Every method raises OSError as the call does.
"""

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple


class Entry(NamedTuple):
    """One name in a folder."""

    name: str
    is_folder: bool


class Disk:
    """The real one."""

    def create(self, path: Path) -> int:
        """Open a file that must not exist yet; its handle."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)

    def write(self, handle: int, data: bytes) -> None:
        """Append all of the data. After an error nobody knows how much of it is there."""
        left = memoryview(data)
        while left:
            left = left[os.write(handle, left) :]

    def sync(self, handle: int) -> None:
        """Make what was written survive a power cut.

        Never called twice on one handle: after an error the kernel marks the lost pages as clean, and a second fsync
        succeeds without having written anything (Rebello et al., ATC 2020).
        """
        os.fsync(handle)

    def close(self, handle: int) -> None:
        """Give the handle back."""
        os.close(handle)

    def link(self, existing: Path, new: Path) -> None:
        """Give a file a second name; FileExistsError when that is taken: exactly one caller wins it."""
        os.link(existing, new)

    def replace(self, old: Path, new: Path) -> None:
        """Rename a file over another, atomically."""
        old.replace(new)

    def unlink(self, path: Path) -> None:
        """Remove a name of a file."""
        path.unlink()

    def make_folder(self, path: Path) -> None:
        """Make a folder unless it is there; its parent must be."""
        path.mkdir(exist_ok=True)

    def remove_folder(self, path: Path) -> None:
        """Remove an empty folder."""
        path.rmdir()

    def sync_folder(self, path: Path) -> None:
        """Make the names in a folder survive a power cut."""
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def read(self, path: Path, accept: Callable[[int], None]) -> bytes:
        """The whole file, unless `accept` raises at its size.

        By four calls, where `read_bytes` makes ten: each lets go of the interpreter, which a busy service gets back late.
        """
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            left = os.fstat(handle).st_size
            accept(left)
            parts = []
            while left and (part := os.read(handle, left)):
                parts.append(part)
                left -= len(part)
            return b"".join(parts)
        finally:
            os.close(handle)

    def entries(self, path: Path) -> list[Entry]:
        """The names directly in a folder, in no order."""
        with os.scandir(path) as found:
            return [Entry(entry.name, entry.is_dir(follow_symlinks=False)) for entry in found]

    def is_folder(self, path: Path) -> bool:
        """Whether a folder is there."""
        return path.is_dir()

    def is_link(self, path: str) -> bool:
        """Whether it is a symbolic link; what may not be looked at fails when it is used."""
        return os.path.islink(path)  # noqa: PTH114 - pathlib's raises for what may not be looked at

    def stat(self, path: Path) -> tuple[int, datetime]:
        """Size and time of the last change, UTC."""
        found = path.stat()
        return found.st_size, datetime.fromtimestamp(found.st_mtime, UTC)
