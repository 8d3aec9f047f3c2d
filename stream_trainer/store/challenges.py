"""The challenger: a second fixed version beside the champion, said by numbered entries of which the highest counts.

An entry says what that version may do (be predicted with beside, or answer a share) and who decides how it ends.
"""

from datetime import datetime
from typing import Literal, NamedTuple

import msgspec

from stream_trainer.errors import Corrupt
from stream_trainer.store.entries import Entries

Mode = Literal["shadow", "canary"]
Decide = Literal["auto", "manual"]
CHALLENGER = "challenger"


class Challenge(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of the alias `challenger`; `version` None: nobody challenges.

    `shadow`: it predicts and is logged, and never answers. `canary`: it answers the `share` of keys that
    `assignment.takes` gives it. `decide` is who ends it: `auto`, the trial, by its test; `manual`, only a person.
    """

    version: int | None
    reason: str
    by: str
    at: datetime
    mode: Mode = "shadow"
    share: float = 0.0
    decide: Decide = "auto"

    @property
    def sound(self) -> bool:
        """Whether the share fits the mode: above 0 and at most 1 for a canary, 0 for a shadow."""
        return 0.0 < self.share <= 1.0 if self.mode == "canary" else self.share == 0.0


class ChallengeEntry(NamedTuple):
    """The newest entry of the alias `challenger` and its number; `(0, None)` when there is none."""

    number: int
    challenge: Challenge | None

    @property
    def version(self) -> int | None:
        """The version that challenges; None when none does."""
        return self.challenge.version if self.challenge is not None else None


class Challenges:
    """The entries of the alias `challenger` of one pipeline."""

    def __init__(self, entries: Entries) -> None:
        self._entries = entries

    def newest(self) -> ChallengeEntry:
        """The newest entry.

        Raises:
            Corrupt: it does not parse, or its share does not fit its mode.
        """
        number = self.newest_number()
        return ChallengeEntry(number, self.read(number) if number else None)

    def newest_number(self) -> int:
        """The highest number there is, whether it can be read or not; 0 for none."""
        return self._entries.newest(CHALLENGER)

    def read(self, number: int) -> Challenge:
        """One entry; raises as `newest` does."""
        where = self._entries.describe(CHALLENGER, number)
        try:
            challenge = msgspec.json.decode(self._entries.get(CHALLENGER, number), type=Challenge)
        except (msgspec.MsgspecError, ValueError, RecursionError, FileNotFoundError) as error:
            raise Corrupt(f"{where} is not a challenger: {error}") from error
        if not challenge.sound:
            raise Corrupt(f"{where} is not a challenger: a {challenge.mode} has no share of {challenge.share}")
        return challenge

    def append(self, challenge: Challenge, based_on: int) -> int | None:
        """Append an entry if the newest is still number `based_on`; its number, None when somebody was faster."""
        return self._entries.append(CHALLENGER, challenge, based_on)
