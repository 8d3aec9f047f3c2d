"""Named tensors to safetensors bytes and back: no pickle, one digest for the same bits."""

from collections.abc import Mapping

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from stream_trainer.errors import Corrupt
from stream_trainer.store import headers


def to_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """Serialise; names in sorted order and no metadata, so that the bytes depend on the tensors only."""
    return save({name: tensors[name].contiguous() for name in sorted(tensors)})


def from_bytes(data: bytes, where: str) -> dict[str, Tensor]:
    """Parse; takes about as much memory again as the bytes.

    Raises:
        Corrupt: the bytes are not what `to_bytes` makes of some tensors.
    """
    headers.check(data, where)
    try:
        return load(data)
    except (SafetensorError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise Corrupt(f"{where} is not safetensors: {error}") from error
