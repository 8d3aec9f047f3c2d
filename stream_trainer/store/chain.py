"""Whether neighbouring versions agree: each manifest names the digest of the one it was committed on.

When two disagree, one of them was changed after it was committed, and nobody can say which: both are refused. A
neighbour that cannot be read says nothing.
"""

from dataclasses import dataclass

from stream_trainer.errors import Corrupt
from stream_trainer.store.manifest import Manifest


@dataclass(frozen=True, slots=True)
class Version:
    """A manifest that was read, and the SHA-256 of its bytes."""

    manifest: Manifest
    sha256: str

    @property
    def number(self) -> int:
        """The version's number."""
        return self.manifest.version


def check_parent(child: Version, parent: Version | None, where: str) -> None:
    """Nothing, if the child was committed on this parent.

    Raises:
        Corrupt: it was committed on another one, or cannot have been.
    """
    number, claimed = child.number, child.manifest.parent
    if claimed is not None and claimed >= number:
        raise Corrupt(f"version {number} of {where} says that its parent is {claimed}: it was tampered with")
    if parent is not None and _differs(child, parent):
        raise Corrupt(
            f"version {number} of {where} was committed on another version {claimed} than the one that is there: "
            "one of the two was changed afterwards"
        )


def check_child(child: Version | None, parent: Version, where: str) -> None:
    """Nothing, if the child, when it names this parent, was committed on it.

    Raises:
        Corrupt: it was committed on another one.
    """
    if child is not None and child.manifest.parent == parent.number and _differs(child, parent):
        raise Corrupt(
            f"version {parent.number} of {where} is not the one that version {child.number} "
            "was committed on: one of the two was changed afterwards"
        )


def _differs(child: Version, parent: Version) -> bool:
    return child.manifest.parent_sha256 not in (None, parent.sha256)
