"""From the bytes under a version's number to a version that is believed: parsed, of this pipeline and number, and signed.

The last ones are remembered by number and digest: bytes that were checked once are not parsed and checked again.
"""

from stream_trainer.errors import Corrupt
from stream_trainer.store import manifest as manifests
from stream_trainer.store.chain import Version
from stream_trainer.store.signing import Signing

_REMEMBERED = 2  # a version and its parent: whoever follows reads the one after the other


class Believing:
    """Checks the manifests of one pipeline; never reads or writes a storage. Safe to call from several threads."""

    def __init__(self, pipeline: str, signing: Signing) -> None:
        self._pipeline = pipeline
        self._signing = signing
        self._known: dict[int, Version] = {}

    def version(self, number: int, data: bytes, where: str) -> Version:
        """The version that the bytes are.

        Raises:
            Corrupt: they do not parse, belong elsewhere, or are not signed as they must be.
        """
        digest, known = manifests.sha256(data), self._known.get(number)
        if known is not None and known.sha256 == digest:
            return known
        manifest = manifests.decode(data, where)
        if manifest.version != number or manifest.pipeline != self._pipeline:
            raise Corrupt(
                f"{where} says it is version {manifest.version} of {manifest.pipeline!r}: it was moved or tampered with"
            )
        self._signing.check(manifest, data, where)
        version = Version(manifest, digest)
        self._known = dict([*self._known.items(), (number, version)][-_REMEMBERED:])  # one assignment: threads read it
        return version
