"""Which requests a canary answers: by a hash of their key, so that one key has one answerer on every replica."""

import hashlib

_BYTES = 8


def salt_of(entry: int) -> str:
    """The salt of a trial: the challenger's entry number, so that no two trials pick the same keys."""
    return f"challenger/{entry}"


def takes(key: str, share: float, salt: str) -> bool:
    """Whether the canary answers for this key.

    The first 64 bits of BLAKE2b over salt and key, as a fraction, are below the share. So what one share takes every
    larger share takes too; 0 takes nothing and 1 everything. Salt and key are separated by a zero byte.

    Args:
        key: of any length; the same key is always answered by the same version.
        share: in [0, 1].
        salt: `salt_of` the trial's entry.
    """
    digest = hashlib.blake2b(b"\0".join((salt.encode(), key.encode())), digest_size=_BYTES).digest()
    return int.from_bytes(digest) < share * float(1 << 8 * _BYTES)
