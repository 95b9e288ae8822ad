"""Results that are kept for the next call: by what they were computed from, in a bounded number of bytes."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

T = TypeVar("T")


class Kept:
    """Values by key, of which those that were used last are kept. Nobody may change a value in place.

    Args:
        limit: bytes of all tensors together; a larger value is not kept.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._values: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()

    @property
    def bytes(self) -> int:
        """Bytes that are held now."""
        return sum(size for _, size in self._values.values())

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value of a key, made and kept where there is none."""
        if key in self._values:
            self._values.move_to_end(key)
            known: T = self._values[key][0]
            return known
        value = make()
        size = tensor_bytes(value)
        if size <= self.limit:
            self._values[key] = value, size
            while self.bytes > self.limit:
                self._values.popitem(last=False)
        return value

    def clear(self) -> None:
        """Forget all values."""
        self._values.clear()


def _same(value: Any) -> Any:  # noqa: ANN401 (nested tuples and dicts of tensors)
    return value


@dataclass(frozen=True)
class Shelf:
    """A part of `kept`: what was computed from the same things.

    key: names these things. store: applied to a value before it is kept. fetch: applied by `fetched`.
    """

    kept: Kept
    key: tuple[Hashable, ...] = ()
    store: Callable[[Any], Any] = _same
    fetch: Callable[[Any], Any] = _same

    def get(self, name: Hashable, make: Callable[[], T]) -> T:
        """As `Kept.get`, with a name beside the key of this shelf; where the value lies, `store` says."""
        value: T = self.kept.get((*self.key, name), lambda: self.store(make()))
        return value

    def fetched(self, name: Hashable, make: Callable[[], T]) -> T:
        """The same after `fetch`: moved to where a model uses it."""
        value: T = self.fetch(self.get(name, make))
        return value

    def under(self, *key: Hashable) -> Shelf:
        """A shelf for something that depends on more than this one."""
        return replace(self, key=(*self.key, *key))

    def fits(self, size: int) -> bool:
        """Whether so many bytes can be kept at all."""
        return size <= self.kept.limit


def tensor_bytes(value: object) -> int:
    """Bytes that the tensors in nested tuples, lists and dicts hold, each memory counted once."""
    storages = {
        leaf.untyped_storage().data_ptr(): leaf.untyped_storage().nbytes()
        for leaf in tree_leaves(value)
        if isinstance(leaf, Tensor)
    }
    return sum(storages.values())


def digest(value: object) -> str:
    """32 hex digits that tell nested tuples, lists and dicts of tensors, numbers and texts apart by their values."""
    state = hashlib.blake2b(digest_size=16)
    for leaf in tree_leaves(value, is_leaf=lambda x: x is None):
        if isinstance(leaf, Tensor):
            state.update(f"{leaf.dtype} {tuple(leaf.shape)};".encode())
            values = leaf.detach().cpu().contiguous().flatten()
            state.update(values.view(torch.uint8).numpy().data)
        else:
            state.update(f"{leaf!r};".encode())
    return state.hexdigest()
