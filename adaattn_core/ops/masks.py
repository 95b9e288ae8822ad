"""Masks that say where: brought to their picture's size, sharpened, turned round, softened.

Letters: B batch, H W pixels. Masks are float32 in [0, 1]; 1 is where something happens.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

ASPECT_TOLERANCE = 0.02
"""Largest relative difference between the aspect ratios of a mask and its picture (rounding of a resize)."""


def fit_mask(mask: Tensor, picture: Tensor, role: str, *, stretch: bool = False) -> Tensor:
    """A mask at its picture's size.

    Args:
        mask: (H, W), (B or 1, H, W) or (B or 1, 1, H, W), values clamped to [0, 1].
        picture: (B, 3, H, W).
        role: names the picture in errors.
        stretch: resize a mask of another aspect ratio too, instead of refusing it.

    Returns:
        (B or 1, 1, H, W) float32 in [0, 1].

    Raises:
        ValueError: a shape or, unless `stretch`, an aspect ratio that does not fit.
    """
    height, width = picture.shape[-2:]
    if mask.ndim == 2:
        mask = mask[None]
    if mask.ndim == 3:
        mask = mask[:, None]
    if mask.ndim != 4 or mask.shape[1] != 1 or len(mask) not in (1, len(picture)):
        raise ValueError(
            f"the {role} mask has shape {tuple(mask.shape)}; ({len(picture)} or 1, 1, height, width) is needed"
        )
    rows, columns = mask.shape[-2:]
    if not stretch and abs(columns * height / (rows * width) - 1) > ASPECT_TOLERANCE:
        raise ValueError(
            f"the {role} mask is {columns}x{rows} pixels, the {role} {width}x{height}: another aspect ratio. "
            f"Crop or draw the mask to fit the {role}."
        )
    return resize_mask(mask.float().clamp(0, 1), (height, width))


def resize_mask(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, 1, H, W) in [0, 1] at another size, averaged where it shrinks."""
    if tuple(mask.shape[-2:]) == size:
        return mask
    return F.interpolate(mask, size=size, mode="bilinear", antialias=True).clamp(0, 1)


def shape_mask(mask: Tensor, *, threshold: float = 0.0, invert: bool = False, feather: int = 0) -> Tensor:
    """A mask sharpened, then turned round, then softened.

    Args:
        mask: (B, 1, H, W) in [0, 1].
        threshold: values of at least this become 1, others 0; 0 leaves them as they are.
        invert: 1 becomes 0 and 0 becomes 1.
        feather: see `feather_mask`.
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"the mask's threshold is {threshold}; it must be between 0 and 1 (0 keeps soft values)")
    if threshold > 0:
        mask = (mask >= threshold).float()
    return feather_mask(1 - mask if invert else mask, feather)


def feather_mask(mask: Tensor, feather: int) -> Tensor:
    """A mask whose edges become slopes that reach `feather` pixels to either side.

    Farther from every edge than that, 0 stays exactly 0 and 1 exactly 1. Two box filters, one after the other; sums in
    float64, so that what comes and what goes cancel.

    Args:
        mask: (B, 1, H, W) in [0, 1]; continued outside as it is at the border.
        feather: pixels; 0 changes nothing.
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
    """Mean over 2 radius + 1 columns."""
    columns = 2 * radius + 1
    sums = F.pad(mask[:, 0], (radius, radius), mode="replicate").cumsum(dim=-1)
    sums = F.pad(sums, (1, 0))
    return ((sums[..., columns:] - sums[..., :-columns]) / columns)[:, None]
