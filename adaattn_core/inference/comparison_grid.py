"""Comparison sheets: a grid with a row for each content, a column for each style, and their results."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ..models.model import StyleTransferModel
from ..ops.opacity import fill_clear
from ..ops.resize import resize_image
from ..runtime.progress import ProgressCallback, sub_progress
from .stylize import stylize


def comparison_sheet(
    model: StyleTransferModel,
    contents: Sequence[Tensor],
    styles: Sequence[Tensor],
    *,
    style_alphas: Sequence[Tensor | None] | None = None,
    gap_px: int = 4,
    refine_steps: int = 0,
    progress: ProgressCallback | None = None,
) -> Tensor:
    """A grid of every content in every style, with the contents on the left and the styles on top, on white.

    Args:
        model: from `load_model`.
        contents, styles: at least one of each; (1, 3, H, W) in [0, 1], all of one size.
        style_alphas: opacity of each style, (1, 1, H, W), or None; clear parts are shown as they are, and not used.
        gap_px: width of the white gap between pictures, in pixels.

    Returns:
        (1, 3, H, W) float32 in [0, 1]: len(contents) + 1 rows of len(styles) + 1 pictures; the top left one is white.
    """
    batch = torch.cat(list(contents))
    left = torch.cat([torch.ones_like(batch[:1]), batch])
    columns = [left]
    alphas = [None] * len(styles) if style_alphas is None else style_alphas
    for index, (style, alpha) in enumerate(zip(styles, alphas, strict=True)):
        part = sub_progress(progress, index / len(styles), (index + 1) / len(styles))
        painted = stylize(
            model, batch, fill_clear(style, alpha), style_masks=[alpha], refine_steps=refine_steps, progress=part
        )
        columns.append(torch.cat([style, painted]))
    cells = F.pad(torch.stack(columns), (0, gap_px, 0, gap_px), value=1.0)
    sheet = rearrange(cells, "column row c h w -> 1 c (row h) (column w)")
    return sheet[..., : sheet.shape[-2] - gap_px, : sheet.shape[-1] - gap_px]


def center_square(image: Tensor, side: int) -> Tensor:
    """The largest central square of a picture (B, C, H, W), resized to (B, C, side, side)."""
    image = resize_image(image, short_side=side)
    top, left = (image.shape[-2] - side) // 2, (image.shape[-1] - side) // 2
    return image[..., top : top + side, left : left + side]
