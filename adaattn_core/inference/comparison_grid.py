"""A comparison sheet: contents down the left, styles along the top, each content in each style where they meet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ..models.model import StyleTransferModel
from ..ops.resize import resize_image
from .stylize import stylize


def comparison_sheet(
    model: StyleTransferModel, contents: Sequence[Tensor], styles: Iterable[Tensor], *, gap_px: int = 4
) -> Tensor:
    """Every content in every style, beside the originals, on white.

    Args:
        model: what stylises.
        contents, styles: at least one of each; (1, 3, H, W) in [0, 1], all of one size.
        gap_px: white between pictures.

    Returns:
        (1, 3, rows, columns) float32 in [0, 1]: len(contents) + 1 by len(styles) + 1 pictures, the first one white.
    """
    batch = torch.cat(list(contents))
    left = torch.cat([torch.ones_like(batch[:1]), batch])
    columns = [left, *(torch.cat([style, stylize(model, batch, style)]) for style in styles)]
    cells = F.pad(torch.stack(columns), (0, gap_px, 0, gap_px), value=1.0)
    sheet = rearrange(cells, "column row c h w -> 1 c (row h) (column w)")
    return sheet[..., : sheet.shape[-2] - gap_px, : sheet.shape[-1] - gap_px]


def center_square(image: Tensor, side: int) -> Tensor:
    """The middle of a picture (B, C, H, W), as large as fits, resized to (B, C, side, side)."""
    image = resize_image(image, short_side=side)
    top, left = (image.shape[-2] - side) // 2, (image.shape[-1] - side) // 2
    return image[..., top : top + side, left : left + side]
