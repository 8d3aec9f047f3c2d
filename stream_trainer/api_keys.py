"""The file of API keys: who may ask the service for what. It holds digests, never a key.

A key is 256 random bits, so nobody finds it from its SHA-256 by trying: slow, salted hashes are for passwords, which
people choose. The file belongs to whoever runs the service; it is replaced as a whole, never written in place.
"""

import fcntl
import hashlib
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal, get_args

import msgspec
from msgspec import Meta

from stream_trainer.errors import UsageError

Scope = Literal["predict", "feedback", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
PREFIX = "st"
VARIABLE = "STREAM_TRAINER_API_KEY"  # where a client of the examples finds its key
ID_BYTES = 6
SECRET_BYTES = 32
MOST_BYTES = 4 * 2**20

_Id = Annotated[str, Meta(pattern=rf"\A[0-9a-f]{{{2 * ID_BYTES}}}\Z")]
_Name = Annotated[str, Meta(min_length=1, max_length=100)]
_Digest = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
_Instant = Annotated[datetime, Meta(tz=True)]


class Key(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the file knows of one key.

    Attributes:
        sha256: of the whole text of the key, in hex.
        expires: the first instant at which it is refused; None never.
        rate: requests a second, instead of the service's setting.
        burst: requests at once, instead of the service's setting.
    """

    id: _Id
    name: _Name
    scopes: Annotated[tuple[Scope, ...], Meta(min_length=1)]
    created: _Instant
    sha256: _Digest
    expires: _Instant | None = None
    rate: Annotated[float, Meta(gt=0, le=1e6)] | None = None
    burst: Annotated[int, Meta(ge=1, le=10**6)] | None = None


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    keys: tuple[Key, ...]
    format: Literal[1] = 1


def digest(text: bytes) -> bytes:
    """What is kept of a key's text."""
    return hashlib.sha256(text).digest()


def make_key(
    name: str,
    scopes: Sequence[Scope],
    *,
    created: datetime,
    expires: datetime | None = None,
    rate: float | None = None,
    burst: int | None = None,
    random: Callable[[int], bytes] = secrets.token_bytes,
) -> tuple[str, Key]:
    """A new key: its text `st_<id>_<secret>`, which nobody can tell again, and what the file keeps.

    Raises:
        UsageError: the name is empty, too long or not printable, or a field is out of its bounds.
    """
    if not name.isprintable():
        raise UsageError(f"the name {name!r} of a key has to be printable")
    text = f"{PREFIX}_{random(ID_BYTES).hex()}_{random(SECRET_BYTES).hex()}"
    key = Key(
        id=text.split("_")[1],
        name=name,
        scopes=tuple(dict.fromkeys(scopes)),
        created=created,
        sha256=digest(text.encode()).hex(),
        expires=expires,
        rate=rate,
        burst=burst,
    )
    try:
        return text, msgspec.convert(msgspec.to_builtins(key), Key)
    except msgspec.ValidationError as error:
        raise UsageError(f"the key {name!r} is not usable: {error}") from error


def decode(data: bytes) -> tuple[Key, ...]:
    """The keys in the bytes of a file.

    Raises:
        ValueError: they are not such a file, or two keys have the same id.
    """
    keys = msgspec.json.decode(data, type=_File).keys
    if len({key.id for key in keys}) != len(keys):
        raise ValueError("two keys have the same id")
    return keys


def read_keys(path: Path) -> tuple[Key, ...]:
    """The keys of a file.

    Raises:
        UsageError: it is not there, others may read or write it, or it does not hold keys; with what to do.
    """
    try:
        with path.open("rb") as file:
            _refuse_exposed(path, os.fstat(file.fileno()))
            data = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise UsageError(f"{path} is not there: `stream-trainer keys create NAME --file {path}` makes it") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > MOST_BYTES:
        raise UsageError(f"{path} is larger than {MOST_BYTES} bytes: it is no file of API keys")
    try:
        return decode(data)
    except ValueError as error:
        # The library's words name fields and what is wrong with them, never values.
        raise UsageError(
            f"{path} is not a usable file of API keys: {error}; restore it, or create the keys anew"
        ) from None


def _refuse_exposed(path: Path, found: os.stat_result) -> None:
    """A file of somebody else, or one that others may read or write, is nobody's word about who may do what."""
    if not stat.S_ISREG(found.st_mode):
        raise UsageError(f"{path} is not a file")
    if found.st_uid not in (0, os.geteuid()):
        raise UsageError(
            f"{path} belongs to user {found.st_uid}: `chown` it to the user who runs the service, or to root"
        )
    # A secret that an orchestrator mounts belongs to root and is read through its group.
    allowed = 0o740 if found.st_uid == 0 and os.geteuid() != 0 else 0o700
    if stat.S_IMODE(found.st_mode) & ~allowed:
        raise UsageError(
            f"{path} may be read or written by others (mode {found.st_mode & 0o777:o}): `chmod 600 {path}`"
        )


def change_keys(path: Path, change: Callable[[tuple[Key, ...]], tuple[Key, ...]]) -> tuple[Key, ...]:
    """Replace the file by what `change` makes of its keys; a missing file has none. One writer at a time.

    Raises:
        UsageError: see `read_keys`; or the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _alone(path.parent):
            keys = change(read_keys(path) if path.exists() else ())
            _replace(path, msgspec.json.format(msgspec.json.encode(_File(keys))) + b"\n")
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from error
    return keys


def _replace(path: Path, data: bytes) -> None:
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 0600 from the first byte on
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


_LIFETIME = re.compile(r"([1-9][0-9]{0,5})([hd])", re.ASCII)


def lifetime_hours(text: str) -> int:
    """`90d` or `12h` in hours.

    Raises:
        UsageError: it is neither.
    """
    found = _LIFETIME.fullmatch(text)
    if found is None:
        raise UsageError(f"{text!r} is no lifetime: write 90d for days or 12h for hours")
    return int(found[1]) * (24 if found[2] == "d" else 1)
