"""Masks: resizing to a picture, threshold, inversion, feathering; and several of them as regions of one picture.

Shape letters: B batch, H W pixels. Masks are float32 in [0, 1]; 1 is inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor

from ..runtime.remarks import remark
from .layout import check_tensor, counted, pictures_in_words, range_problem, value_range

ASPECT_TOLERANCE = 0.02
"""Largest relative difference between the aspect ratios of a mask and its picture: the rounding of a resize."""


def fit_mask(mask: Tensor, picture: Tensor, role: str, *, stretch: bool = False) -> Tensor:
    """A mask resized to its picture.

    Args:
        mask: (H, W), (B or 1, H, W) or (B or 1, 1, H, W), in [0, 1] or truth values.
        picture: (B, 3, H, W).
        role: names the picture in error messages.
        stretch: also accept a mask of another aspect ratio, with a remark unless it is empty.

    Returns:
        (B or 1, 1, H, W) float32 in [0, 1].

    Raises:
        ValueError: another number of masks than pictures, values that are not in [0, 1] (a little outside they are
            clamped), or, without `stretch`, an aspect ratio that does not fit.
    """
    check_tensor(mask, f"{role} mask", "load_mask")
    height, width = picture.shape[-2:]
    if mask.ndim == 2:
        mask = mask[None]
    if mask.ndim == 3:
        mask = mask[:, None]
    _check_mask(mask, len(picture), role)
    rows, columns = mask.shape[-2:]
    if abs(columns * height / (rows * width) - 1) > ASPECT_TOLERANCE:
        problem = f"the {role} mask is {columns}x{rows} pixels, the {role} {width}x{height}: another aspect ratio"
        if not stretch:
            raise ValueError(f"{problem}. Crop or draw the mask to fit the {role}.")
        if bool(mask.any()):
            remark("", f"{problem}, so that the mask is stretched")
    return resize_mask(mask.float().clamp(0, 1), (height, width))


def _check_mask(mask: Tensor, pictures: int, role: str) -> None:
    """ValueError unless (pictures or 1, 1, H, W) in [0, 1]."""
    if mask.ndim != 4 or mask.shape[1] != 1 or not mask[:1].numel():
        came = pictures_in_words(mask.shape, "mask")
        raise ValueError(f"the {role} mask is {came}; a mask has 1 channel, (batch, 1, height, width) or fewer")
    if len(mask) not in (1, pictures):
        more = f", or {pictures}" if pictures > 1 else ""
        raise ValueError(f"{len(mask)} masks for {counted(pictures, 'picture')}: give 1{more} ({role} mask)")
    problem = range_problem(*value_range(mask))
    if problem:
        raise ValueError(f"the {role} mask {problem}")


def resize_mask(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, 1, H, W) -> (B, 1, *size), both in [0, 1], bilinear and antialiased."""
    if tuple(mask.shape[-2:]) == size:
        return mask
    return F.interpolate(mask, size=size, mode="bilinear", antialias=True).clamp(0, 1)


def shape_mask(mask: Tensor, *, threshold: float = 0.0, invert: bool = False, feather: int = 0) -> Tensor:
    """A mask after a threshold, then inversion, then feathering.

    Args:
        mask: (B, 1, H, W) in [0, 1].
        threshold: values of at least this become 1, others 0; 0 changes nothing.
        invert: 1 becomes 0 and 0 becomes 1.
        feather: see `feather_mask`.

    Raises:
        ValueError: a threshold outside [0, 1], or a negative feather.
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"the mask's threshold is {threshold}; it must be between 0 and 1 (0 keeps soft values)")
    if threshold > 0:
        mask = (mask >= threshold).float()
    return feather_mask(1 - mask if invert else mask, feather)


def feather_mask(mask: Tensor, feather: int) -> Tensor:
    """A mask with its edges softened over `feather` pixels to either side.

    Farther from every edge, 0 stays exactly 0 and 1 exactly 1. Two box filters in succession, computed from cumulative
    sums in float64, whose rounding does not show.

    Args:
        mask: (B, 1, H, W) in [0, 1]; replicated beyond the border.
        feather: in pixels; 0 changes nothing.

    Raises:
        ValueError: a negative feather.
    """
    if feather < 0:
        raise ValueError(f"the mask's feather is {feather} pixels; it must not be negative")
    if feather == 0:
        return mask
    soft = mask.cpu().double()  # not every device has float64
    for radius in (feather - feather // 2, feather // 2):
        soft = _box(_box(soft, radius).mT, radius).mT
    return soft.to(mask.device, torch.float32).clamp(0, 1)


def _box(mask: Tensor, radius: int) -> Tensor:
    """(B, 1, H, W), the mean over 2 * radius + 1 columns."""
    columns = 2 * radius + 1
    sums = F.pad(mask[:, 0], (radius, radius), mode="replicate").cumsum(dim=-1)
    sums = F.pad(sums, (1, 0))
    return ((sums[..., columns:] - sums[..., :-columns]) / columns)[:, None]


def union(masks: Sequence[Tensor]) -> Tensor:
    """Where any of some masks of one size is above 0: the sum of the different ones, limited to 1.

    Equal masks count once, so that two styles under one soft mask stay under it. A sum, so that regions which meet at
    a soft border leave nothing between them.
    """
    different: list[Tensor] = []
    for mask in masks:
        if not any(mask.shape == other.shape and torch.equal(mask, other) for other in different):
            different.append(mask)
    return reduce(torch.add, different).clamp(max=1)


def region_shares(
    masks: Sequence[Tensor | None], weights: Sequence[float], size: tuple[int, int] | None = None
) -> list[Tensor]:
    """The share of each region at every position of a grid; the shares of a position sum to 1.

    A share is weight times mask, scaled to sum 1 over the regions: where one mask alone is above 0, its region has it
    all. A position outside all masks belongs to the nearest position inside one, so that what is computed there and
    seen from inside, across the border, continues the region. Where all masks of an item are 0, weights alone count.

    Args:
        masks: (B or 1, 1, H, W) in [0, 1]; None is 1 everywhere. One at least is a tensor.
        weights: one per mask, not negative, summing to more than 0.
        size: (height, width) of the grid; None is that of the masks.

    Returns:
        (B or 1, 1, *size) float32 for each mask, on the masks' device.
    """
    first = next(mask for mask in masks if mask is not None)
    size = size or (first.shape[-2], first.shape[-1])
    full = first.new_ones(1, 1, *size)
    maps = [full if mask is None else resize_mask(mask, size) for mask in masks]
    batch = max(len(one) for one in maps)
    factors = first.new_tensor(weights)[:, None, None]
    products = torch.cat([one.expand(batch, -1, -1, -1) for one in maps], dim=1) * factors
    total = products.sum(dim=1, keepdim=True)
    source = nearest_position(total[:, 0] > 0).flatten(1)[:, None]
    shares = (products / total).flatten(2).gather(2, source.expand(-1, len(masks), -1)).view_as(products)
    any_inside = (total > 0).flatten(1).any(dim=1)[:, None, None, None]
    filled = torch.where(any_inside, shares, factors / factors.sum())
    return [filled[:, index : index + 1] for index in range(len(masks))]


def nearest_position(inside: Tensor) -> Tensor:
    """The nearest position inside a mask, by the sum of rows and columns between.

    Args:
        inside: (B, H, W) bool.

    Returns:
        (B, H, W) int64: row * W + column; any position where the mask is empty.

    >>> nearest_position(torch.tensor([[[False, False, False, True], [False, False, False, False]]]))
    tensor([[[3, 3, 3, 3],
             [3, 3, 3, 3]]])
    """
    outside = torch.where(inside, 0.0, float(sum(inside.shape[-2:])))
    distance, column = _nearest_along_row(outside)
    _, row = (x.mT for x in _nearest_along_row(distance.mT))
    return row * inside.shape[-1] + column.gather(-2, row)


def _nearest_along_row(cost: Tensor) -> tuple[Tensor, Tensor]:
    """(..., n) -> for each place of a row, the least cost of a place plus the way there, and that place."""
    place = torch.arange(cost.shape[-1], device=cost.device)
    before, left = (cost - place).cummin(dim=-1)
    after, right = (x.flip(-1) for x in (cost + place).flip(-1).cummin(dim=-1))
    before, after, right = before + place, after - place, cost.shape[-1] - 1 - right
    return torch.minimum(before, after), torch.where(before <= after, left, right)
