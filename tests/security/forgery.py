"""Somebody who can write to the store but is not the trainer: versions whose digests are right and whose contents are not."""

import hashlib
import json
import struct
from collections.abc import Mapping
from typing import Any

import msgspec

from stream_trainer.store import FileEntry, ModelStore, Version
from stream_trainer.store import manifest as manifests


def manifest_path(store: ModelStore, number: int) -> str:
    return f"{store.pipeline}/versions/{number:020d}/manifest.json"


def file_path(store: ModelStore, version: Version, name: str) -> str:
    return f"{store.pipeline}/versions/{version.number:020d}/{version.manifest.attempt}/{name}"


def forge(store: ModelStore, number: int, files: Mapping[str, bytes] | None = None, **fields: Any) -> Version:
    """Replace files and fields of a version; its manifest names the new files, and is signed by nobody."""
    version = store.read(number)
    entries = dict(version.manifest.files)
    for name, data in (files or {}).items():
        store.storage.put(file_path(store, version, name), data)
        entries[name] = FileEntry(size=len(data), sha256=manifests.sha256(data))
    forged = msgspec.structs.replace(version.manifest, files=entries, **fields)
    data = manifests.encode(forged)
    store.storage.put(manifest_path(store, number), data)
    return Version(forged, manifests.sha256(data))


def resealed(fields: Mapping[str, Any]) -> bytes:
    """A manifest of any fields with the checksum that belongs to them: whoever can write can compute it."""
    bare = {name: value for name, value in fields.items() if name not in ("checksum", "signature")}
    return _plain({**fields, "checksum": hashlib.sha256(_plain(bare)).hexdigest()})


def unsealed(data: bytes) -> bytes:
    """A manifest without its checksum, as older releases wrote them."""
    return _plain({name: value for name, value in json.loads(data).items() if name != "checksum"})


def _plain(fields: Mapping[str, Any]) -> bytes:
    """Canonical, but for numbers that only Python's JSON can write."""
    try:
        return manifests.canonical_json(fields)
    except (OverflowError, msgspec.MsgspecError):
        return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()


def safetensors(header: bytes | Mapping[str, Any], body: bytes = b"", *, length: int | None = None) -> bytes:
    """A file with any header, and any claim of its length."""
    text = header if isinstance(header, bytes) else msgspec.json.encode(header)
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def entry(start: int, end: int, *, dtype: str = "F32", shape: list[Any] | None = None) -> dict[str, Any]:
    """A tensor's entry of such a header."""
    return {"dtype": dtype, "shape": [(end - start) // 4] if shape is None else shape, "data_offsets": [start, end]}
