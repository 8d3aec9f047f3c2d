"""Named tensors to safetensors bytes and back: no pickle, one digest for the same bits."""

from collections.abc import Mapping

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from stream_trainer.errors import Corrupt


def to_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """Serialise; names in sorted order and no metadata, so that the bytes depend on the tensors only."""
    return save({name: tensors[name].contiguous() for name in sorted(tensors)})


def from_bytes(data: bytes, where: str) -> dict[str, Tensor]:
    """Parse.

    Raises:
        Corrupt: the bytes are not well-formed safetensors.
    """
    try:
        return load(data)
    except (SafetensorError, ValueError) as error:
        raise Corrupt(f"{where} is not safetensors: {error}") from error
