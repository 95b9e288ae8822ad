"""Masks: resizing to a picture, threshold, inversion, feathering.

Shape letters: B batch, H W pixels. Masks are float32 in [0, 1]; 1 is inside.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .layout import counted, pictures_in_words, range_problem, value_range

ASPECT_TOLERANCE = 0.02
"""Largest relative difference between the aspect ratios of a mask and its picture: the rounding of a resize."""


def fit_mask(mask: Tensor, picture: Tensor, role: str, *, stretch: bool = False) -> Tensor:
    """A mask resized to its picture.

    Args:
        mask: (H, W), (B or 1, H, W) or (B or 1, 1, H, W), in [0, 1] or truth values.
        picture: (B, 3, H, W).
        role: names the picture in error messages.
        stretch: also accept a mask of another aspect ratio.

    Returns:
        (B or 1, 1, H, W) float32 in [0, 1].

    Raises:
        ValueError: another number of masks than pictures, values that are not in [0, 1] (a little outside they are
            clamped), or, without `stretch`, an aspect ratio that does not fit.
    """
    height, width = picture.shape[-2:]
    if mask.ndim == 2:
        mask = mask[None]
    if mask.ndim == 3:
        mask = mask[:, None]
    _check_mask(mask, len(picture), role)
    rows, columns = mask.shape[-2:]
    if not stretch and abs(columns * height / (rows * width) - 1) > ASPECT_TOLERANCE:
        raise ValueError(
            f"the {role} mask is {columns}x{rows} pixels, the {role} {width}x{height}: another aspect ratio. "
            f"Crop or draw the mask to fit the {role}."
        )
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
