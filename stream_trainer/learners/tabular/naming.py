"""Named tensors of several parts in one mapping: `net.first` is the tensor `first` of the part `net`."""

from collections.abc import Mapping

from torch import Tensor

Tensors = Mapping[str, Tensor]


def joined(parts: Mapping[str, Tensors]) -> dict[str, Tensor]:
    """One mapping of all parts' tensors; each is contiguous and shares memory with none, as safetensors wants it."""
    return {
        f"{part}.{name}": tensor.contiguous() for part, tensors in parts.items() for name, tensor in tensors.items()
    }


def split(tensors: Tensors) -> dict[str, dict[str, Tensor]]:
    """The inverse of `joined`; a part without tensors is missing."""
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        parts.setdefault(part, {})[rest] = tensor
    return parts
