"""A key for the demo's replayer, when the settings ask for keys: made at the start, gone with the demo.

The service of the demo gets a copy of the configured file with that key added; the file itself is never touched, since
another service may follow it. The key is handed over in the environment: a command line can be read by everybody.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from stream_trainer.api_keys import VARIABLE, change_keys, make_key, read_keys

_LIFETIME = timedelta(days=7)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lent:
    """Variables that the service and the replayer get beside their others; none without keys."""

    serving: Mapping[str, str] = field(default_factory=dict)
    replayer: Mapping[str, str] = field(default_factory=dict, repr=False)


@contextmanager
def lent_key(configured: Path | None, copy: Path, now: datetime) -> Iterator[Lent]:
    """For the length of the block `copy` holds the configured keys, as they are now, and one that may predict.

    Args:
        configured: `serving.keys_file`; None: nobody is asked for a key.
        copy: where the demo's service reads its keys; its folder is the demo's.
        now: the key is refused a week later, should nobody delete it.

    Raises:
        UsageError: the configured file is not usable.
    """
    if configured is None:
        yield Lent()
        return
    known = read_keys(configured)
    text, key = make_key("replayer of the demo", ["predict"], created=now, expires=now + _LIFETIME)
    try:
        change_keys(copy, lambda _: (*known, key))
        yield Lent(serving={"STREAM_TRAINER_SERVING__KEYS_FILE": str(copy)}, replayer={VARIABLE: text})
    finally:
        copy.unlink(missing_ok=True)
