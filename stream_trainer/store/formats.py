"""Whether a data file is of the format its name says: what a digest cannot tell of a file that was made by somebody else."""

from collections.abc import Callable

from stream_trainer import ipc
from stream_trainer.store import headers

_CHECKS: dict[str, Callable[[bytes, str], object]] = {".safetensors": headers.check, ".arrow": ipc.check_file}


def check(name: str, data: bytes, where: str) -> None:
    """Look at the structure of a file, by the end of its name; other names hold anything.

    Raises:
        Corrupt: it is of another format, or claims more than it may hold.
    """
    for ending, look in _CHECKS.items():
        if name.endswith(ending):
            look(data, where)
            return
