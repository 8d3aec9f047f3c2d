"""Signed manifests: who holds the key has written them. HMAC-SHA256 (RFC 2104) over everything else in the manifest.

The signature stands inside the manifest, so that the one put that commits a version commits its signature too. Without
a key nothing is signed and nothing is asked for. See `docs/decisions/0012-signed-manifests.md`.
"""

import hashlib
import hmac
from typing import Any

import msgspec

from stream_trainer.errors import Corrupt
from stream_trainer.settings import StoreSettings
from stream_trainer.store import manifest as manifests
from stream_trainer.store.manifest import Manifest

_FIELD = "signature"
_PREFIX = "hmac-sha256:"
_DOMAIN = b"stream-trainer manifest 1\n"  # a key that also signs other things signs none of them as a manifest


class Signing:
    """What signs and what is believed.

    Args:
        key: signs, and is believed; None: nothing is signed and everything is believed.
        former: keys that are still believed.
        unsigned_through: versions up to this number may have no signature: they are older than the key.
    """

    def __init__(self, key: bytes | None = None, former: tuple[bytes, ...] = (), unsigned_through: int = 0) -> None:
        self._key = key
        self._believed = (key, *former) if key is not None else ()
        self._unsigned_through = unsigned_through

    @classmethod
    def of(cls, settings: StoreSettings) -> "Signing":
        """What the settings ask for."""
        key, former = settings.signing_key, settings.former_signing_keys
        return cls(
            key.get_secret_value().encode() if key else None,
            tuple(old.get_secret_value().encode() for old in former),
            settings.unsigned_through,
        )

    def sign(self, manifest: Manifest) -> Manifest:
        """The manifest with its signature; as it is without a key."""
        if self._key is None:
            return manifest
        bare = msgspec.structs.replace(manifest, signature=msgspec.UNSET)
        return msgspec.structs.replace(bare, signature=_mac(self._key, manifests.encode(bare)))

    def check(self, manifest: Manifest, data: bytes, where: str) -> None:
        """Nothing, if the bytes are signed as they must be. `data` is what `manifest` was decoded from: canonical.

        Raises:
            Corrupt: they are not.
        """
        if not self._believed:
            return
        fields: dict[str, Any] = msgspec.json.decode(data)
        found = fields.pop(_FIELD, None)
        if found is None and manifest.version <= self._unsigned_through:
            return
        if found is None:
            raise Corrupt(
                f"{where} is not signed, and store.signing_key is set: whoever wrote it does not hold the key "
                "(store.unsigned_through admits versions that are older than the key)"
            )
        bare = manifests.canonical_json(fields)
        if not any(hmac.compare_digest(_mac(key, bare).encode(), str(found).encode()) for key in self._believed):
            raise Corrupt(f"{where} has a signature of another key, or was changed after it was signed")


def _mac(key: bytes, bare: bytes) -> str:
    return _PREFIX + hmac.new(key, _DOMAIN + bare, hashlib.sha256).hexdigest()
