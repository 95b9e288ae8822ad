"""Which content of a batch is painted in which style of a batch. Imports nothing of ComfyUI."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

from torch import Tensor
from torch.utils._pytree import tree_map_only

from .core import layout

T = TypeVar("T")
M = TypeVar("M", Tensor, Tensor | None)


class Pairs(NamedTuple):
    """Places in the batches of contents and styles, one of each for every result."""

    contents: list[int]
    styles: list[int]

    def groups(self) -> list[slice]:
        """Results that are computed together: all, or those of one content where the styles begin again."""
        results, styles = len(self.styles), max(self.styles) + 1
        size = styles if styles > 1 else results
        return [slice(start, start + size) for start in range(0, results, size)]


def pair_up(contents: int, styles: Sequence[int], every_style: bool = False) -> Pairs:
    """The pairs of a batch of contents with batches of styles that are mixed.

    Args:
        contents: pictures in the batch.
        styles: pictures in the batch of each style; a single picture goes with all the others.
        every_style: paint each content in each style: all styles of the first content come first.

    Raises:
        ValueError: the numbers do not pair up.

    >>> pair_up(1, [3])
    Pairs(contents=[0, 0, 0], styles=[0, 1, 2])
    >>> pair_up(2, [2], every_style=True)
    Pairs(contents=[0, 0, 1, 1], styles=[0, 1, 0, 1])
    """
    count = max(styles)
    uneven = [number for number in styles if number not in (1, count)]
    if uneven:
        raise ValueError(
            f"one style has {layout.counted(uneven[0], 'picture')} and another {count}; "
            "styles that are mixed need 1 picture, or equally many"
        )
    if every_style:
        return Pairs([content for content in range(contents) for _ in range(count)], list(range(count)) * contents)
    if contents != count and 1 not in (contents, count):
        raise ValueError(
            f"the style has {layout.counted(count, 'picture')} and the content {contents}; give 1 style, or "
            f"{contents}, or switch every style on, which paints each content in each style"
        )
    results = max(contents, count)
    return Pairs(*(list(range(results)) if number > 1 else [0] * results for number in (contents, count)))


def take(value: T, places: Sequence[int]) -> T:
    """Nested tuples and dicts of tensors, at these places of their batch; a tensor of batch 1 serves all and stays."""
    taken: T = tree_map_only(Tensor, lambda x: x if len(x) == 1 else _at(x, places), value)
    return taken


def repeat(value: T, places: Sequence[int]) -> T:
    """The same with one item for each place; a tensor of batch 1 is expanded without a copy."""
    repeated: T = tree_map_only(
        Tensor, lambda x: x.expand(len(places), *x.shape[1:]) if len(x) == 1 else _at(x, places), value
    )
    return repeated


def repeat_masks(mask: M, contents: int, places: Sequence[int]) -> M:
    """MASK with one mask for each content -> one for each place; any other number is left to the check of masks."""
    return mask if mask is None or mask.ndim < 3 or len(mask) != contents else take(mask, places)


def _at(x: Tensor, places: Sequence[int]) -> Tensor:
    return x if list(places) == list(range(len(x))) else x[list(places)]
