"""Opacity of pictures: colours under it, resizing with it, and what is kept of hidden colours.

Colours are straight, not premultiplied: (B, 3, H, W) in [0, 1]. Opacity is (B or 1, 1, H, W) in [0, 1], 1 is opaque.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .resize import resize_image

LEAST_OPACITY = 0.5 / 255
"""Pixels with less opacity are clear in a file of 8 bits: their colours are not seen."""


def over_white(color: Tensor, alpha: Tensor | None) -> Tensor:
    """The picture as it looks over white; without opacity it is the same tensor."""
    return color if alpha is None else color * alpha + (1 - alpha)


def visible_color(color: Tensor, alpha: Tensor | None) -> Tensor:
    """The colours, and white where a pixel is clear: what is hidden there must not be painted."""
    return color if alpha is None else torch.where(alpha < LEAST_OPACITY, 1.0, color)


def restore_hidden(painted: Tensor, color: Tensor, alpha: Tensor | None, share: Tensor | float) -> Tensor:
    """A painting of `visible_color`, with the colours of clear pixels put back as far as they were not painted.

    Args:
        painted, color: the result and the content's own colours.
        alpha: of the content; None changes nothing.
        share: how much of the result is style: the strength, times the content mask. 0 gives the colours back exactly.
    """
    if alpha is None:
        return painted
    kept = torch.lerp(color, painted, torch.as_tensor(share, dtype=painted.dtype, device=painted.device))
    return torch.where(alpha < LEAST_OPACITY, kept, painted)


def fill_clear(color: Tensor, alpha: Tensor | None) -> Tensor:
    """The colours, fading to the mean of the visible ones where a pixel is clear: a neutral ground for a style."""
    if alpha is None:
        return color
    mean = (color * alpha).sum(dim=(-2, -1), keepdim=True) / alpha.sum(dim=(-2, -1), keepdim=True).clamp_min(1e-6)
    return color * alpha + mean * (1 - alpha)


def resize_with_alpha(color: Tensor, alpha: Tensor | None, short_side: int) -> tuple[Tensor, Tensor | None]:
    """Colours and opacity resized to a short side; clear pixels do not colour their neighbours."""
    resized = resize_image(color, short_side=short_side)
    if alpha is None or resized.shape == color.shape:
        return resized, alpha
    size = (resized.shape[-2], resized.shape[-1])
    small = resize_image(alpha, size=size)
    weighted = resize_image(color * alpha, size=size) / small.clamp_min(LEAST_OPACITY)
    return torch.where(small < LEAST_OPACITY, resized, weighted.clamp(0, 1)), small
