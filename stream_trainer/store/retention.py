"""Which versions keep their data files: the newest so many, one in so many of the older ones, and what an alias holds."""

from stream_trainer.errors import Corrupt, NoVersion
from stream_trainer.settings import StoreSettings
from stream_trainer.store.store import ModelStore


def forget(store: ModelStore, newest: int, settings: StoreSettings) -> int | None:
    """After a commit: delete the data of the one version that has just become too old; its number, None if none has.

    The version that the champion alias names keeps its data, whatever its age.
    """
    number = newest - settings.keep_versions
    if not settings.keep_versions or number < 1 or number % settings.keep_every == 0:
        return None
    alias = store.alias("champion")
    if alias is not None and alias.version == number:
        return None
    try:
        return number if store.prune(number) else None
    except (NoVersion, Corrupt):
        return None
