"""What a trainer has decided about requests, as intents and manifests keep it: enough to repeat it without `P.actions`.

Only formats; `planning` makes them, `effects` carries them out.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from stream_trainer.acting import Asked, Instant
from stream_trainer.offsets import Ranges

_MOST = 2**63 - 1
Count = Annotated[int, Meta(ge=0, le=_MOST)]
Number = Annotated[int, Meta(ge=1, le=_MOST)]


class Read(msgspec.Struct, frozen=True, kw_only=True):
    """How far `P.actions` was read: the next offset, and how many records so far were none that can be understood."""

    topic_id: str
    next: Count
    skipped: Count = 0


class Champion(msgspec.Struct, frozen=True, kw_only=True):
    """The entry of the alias `champion` that an act appends, if the newest is still number `based_on`."""

    version: Number
    hold: bool
    promotion: Literal["auto", "manual", "gated"]
    based_on: Count


class Act(msgspec.Struct, frozen=True, kw_only=True):
    """What was decided about one request.

    Attributes:
        at: when.
        refused: why nothing is done; absent when it is done.
        champion: of a hold, a release or a rollback.
        ranges: of a warm retrain, what is learned again.
    """

    asked: Asked
    at: Instant
    refused: str | UnsetType = UNSET
    champion: Champion | UnsetType = UNSET
    ranges: Ranges | UnsetType = UNSET

    @property
    def is_done(self) -> bool:
        """Whether it is carried out."""
        return self.refused is UNSET


class CutActs(msgspec.Struct, frozen=True, kw_only=True):
    """The acts of one of a version's cuts: what they do is done before it is learned."""

    cut: Count
    acts: list[Act]


def refused(act: Act, why: str) -> Act:
    """The same, not carried out."""
    return msgspec.structs.replace(act, refused=why[:500], champion=UNSET, ranges=UNSET)
