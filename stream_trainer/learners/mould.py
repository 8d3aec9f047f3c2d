"""New nets like a given one, each with tensors of its own: what `copy.deepcopy` makes, for a small part of its time.

Only for nets whose modules hold nothing but tensors, modules and plain values, as torch's own mostly do; whatever else
a module holds or does when it is copied or loaded, this does not guess at: then `deepcopy` copies it. Two nets never
share anything that can change.
"""

import copy
from collections import OrderedDict
from collections.abc import Mapping
from types import BuiltinFunctionType, FunctionType
from typing import Any

import torch
from torch import Tensor, nn

_TENSORS, _MODULES = ("_parameters", "_buffers"), "_modules"
# What `deepcopy` hands on as it is.
_PLAIN = (
    type(None), bool, int, float, complex, str, bytes, type, FunctionType, BuiltinFunctionType, torch.dtype, torch.Size
)  # fmt: skip
_EMPTY = (dict, OrderedDict, set)
# Who has one of these copies or loads in a way of its own.
_OWN_WAYS = (
    "__copy__", "__deepcopy__", "__reduce__", "__reduce_ex__", "__getstate__", "__setstate__", "__new__",
    "load_state_dict", "_load_from_state_dict", "set_extra_state", "get_extra_state",
)  # fmt: skip


class Mould:
    """Makes nets like `net`, which is kept and never changed."""

    def __init__(self, net: nn.Module) -> None:
        self._net = net
        self._named = dict(unique_tensors(net))
        self._simple = all(_is_simple(module) for module in net.modules()) and all(
            _is_own(tensor) for tensor in (*net.parameters(), *net.buffers())
        )

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """What a net is made with, by name: parameters and persistent buffers, tied ones once. Not to be changed."""
        return self._named

    def net(self, tensors: Mapping[str, Tensor]) -> nn.Module:
        """A net of its own, in training mode or not as the mould's.

        Args:
            tensors: one for each of `tensors`, of its shape and type; copied.
        """
        if not self._simple:
            net = copy.deepcopy(self._net)
            net.load_state_dict(dict(tensors), strict=False)
            return net
        new = {id(old): _like(old, tensors[name]) for name, old in self._named.items()}
        return _stamped(self._net, new, {})


def unique_tensors(net: nn.Module) -> list[tuple[str, Tensor]]:
    """Parameters and persistent buffers, tied ones once: safetensors refuses shared memory."""
    stored = net.state_dict()
    return [(name, tensor) for name, tensor in (*net.named_parameters(), *net.named_buffers()) if name in stored]


def _is_simple(module: nn.Module) -> bool:
    kind = type(module)
    if any(getattr(kind, name, None) is not getattr(nn.Module, name, None) for name in _OWN_WAYS):
        return False
    return all(
        name in (*_TENSORS, _MODULES, "_non_persistent_buffers_set") or _is_plain(value)
        for name, value in vars(module).items()
    )


def _is_plain(value: Any) -> bool:
    if type(value) is tuple:
        return all(_is_plain(one) for one in value)
    return type(value) in _PLAIN or (type(value) in _EMPTY and not value)


def _is_own(tensor: Tensor) -> bool:
    """Whether it is nothing but its numbers, which lie in order in memory that is no other tensor's."""
    return (
        type(tensor) in (Tensor, nn.Parameter)
        and tensor.is_leaf
        and tensor.is_contiguous()
        and tensor.untyped_storage().nbytes() == tensor.nbytes
        and tensor.layout is torch.strided
        and not vars(tensor)
    )


def _stamped(module: nn.Module, new: dict[int, Tensor], made: dict[int, nn.Module]) -> nn.Module:
    """A copy of a simple module; `new` and `made` hold what takes the place of what, by id, so that ties are kept."""
    found = made.get(id(module))
    if found is not None:
        return found
    made[id(module)] = copied = type(module).__new__(type(module))
    fields = {name: value if type(value) not in _EMPTY else value.copy() for name, value in vars(module).items()}
    for name in _TENSORS:
        for key, tensor in fields[name].items():
            if tensor is not None and id(tensor) not in new:
                new[id(tensor)] = _like(tensor, tensor)
            fields[name][key] = None if tensor is None else new[id(tensor)]
    fields[_MODULES] = {
        name: None if child is None else _stamped(child, new, made) for name, child in fields[_MODULES].items()
    }
    vars(copied).update(fields)
    return copied


def _like(old: Tensor, values: Tensor) -> Tensor:
    with torch.no_grad():
        copied = values.detach().clone(memory_format=torch.contiguous_format)
    return nn.Parameter(copied, old.requires_grad) if isinstance(old, nn.Parameter) else copied
