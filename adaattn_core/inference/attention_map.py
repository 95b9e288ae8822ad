"""Attention weights of content points over the style, as numbers and as a heat map."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ..models.attention import LazyStackedKey
from ..models.encoder import stride
from ..models.fusion import MultiLevelFusion
from ..ops.moments import AttentionKernel, attention_weights, unit_vectors
from ..ops.statistics import to_float32
from ..runtime.device import disable_tf32
from .stages import ImageFeatures
from .validation import check_style_batch, check_unit

INFERNO = ((0.0, 0.0, 0.02), (0.34, 0.06, 0.43), (0.73, 0.21, 0.33), (0.98, 0.55, 0.04), (0.99, 1.0, 0.64))
"""Colours of the heat map from the smallest weight to the largest, evenly spaced; dark to light, so that they can be
read in grey as well."""

MEAN_BRIGHTNESS = 0.25
"""Mean brightness of a heat map, so that the largest weights stand out whether attention is spread or peaked."""

MIN_CONTRAST = 0.1
"""A map whose smallest weight differs from the largest by less than this share of it is dimmed: otherwise rounding
errors would be stretched to full brightness."""


def attention_map(
    fusion: MultiLevelFusion,
    content: ImageFeatures,
    style: ImageFeatures,
    point: tuple[float, float],
    level: str,
    temperature: float = 1.0,
) -> Tensor:
    """Attention weights of one content position over the style.

    Args:
        fusion: a model's attention.
        content, style: features on its device; style's batch is the content's, or 1.
        point: x, y in the content, 0 to 1 from the top left.
        level: one of the model's levels.
        temperature: as in `TransferOptions`.

    Returns:
        (B, H, W) float32 on the style's grid of that level, or on the grid of its cells; each item sums to 1.

    Raises:
        ValueError: a level that the model does not have, a point outside the picture, batches that do not pair up, a
            temperature that is not positive.
    """
    return PointAttention(fusion, content, style, level, temperature).weights([point])[:, 0]


class PointAttention:
    """Attention of content points at one level; the style's keys are computed once for all points.

    Args:
        fusion, content, style, level, temperature: as in `attention_map`.

    Raises:
        ValueError: a level that the model does not have, batches that do not pair up, a temperature that is not
            positive.
    """

    def __init__(
        self,
        fusion: MultiLevelFusion,
        content: ImageFeatures,
        style: ImageFeatures,
        level: str,
        temperature: float = 1.0,
    ) -> None:
        if level not in fusion.levels:
            raise ValueError(f"level is {level!r}; this model's are {', '.join(fusion.levels)}")
        check_style_batch(len(style.picture), len(content.picture))
        self.level, self.size = level, content.picture.shape[-2:]
        self.attention = fusion.level_attention(level)
        self.kernel = AttentionKernel(self.attention.similarity, temperature)
        self.content_key = LazyStackedKey(content.as_dict(), level)
        style_key = LazyStackedKey(style.as_dict(), level)
        self.step = stride(level) * self.attention.cell
        """Pixels of the style from one key to the next."""
        self.grid = tuple(-(-side // self.attention.cell) for side in style_key.shape[-2:])
        """(rows, columns) of the keys."""
        with torch.no_grad(), disable_tf32(style.picture.device):
            keys = to_float32(self.attention.keys(style_key)).expand(len(content.picture), -1, -1)
        self.keys = unit_vectors(keys) if self.kernel.similarity == "cosine" else keys

    def weights(self, points: Sequence[tuple[float, float]]) -> Tensor:
        """(B, points, rows, columns) float32: the weights of each point, x and y from 0 to 1, over the style.

        Raises:
            ValueError: a point outside the picture.
        """
        with torch.no_grad(), disable_tf32(self.keys.device):
            query = to_float32(self.attention.query(self._stacked_keys(points)))
            query = unit_vectors(query) if self.kernel.similarity == "cosine" else query / self.kernel.temperature
            weights = attention_weights(torch.bmm(query, self.keys.mT), None, self.kernel)
        return rearrange(weights, "b n (h w) -> b n h w", h=self.grid[0])

    def _stacked_keys(self, points: Sequence[tuple[float, float]]) -> Tensor:
        """(B, K, 1, points): the stacked key at the position that each point lies in."""
        for point in points:
            for name, value in zip("xy", point, strict=True):
                check_unit(f"the point's {name}", value)
        positions = [(self._position(y, self.size[0]), self._position(x, self.size[1])) for x, y in points]
        rows = {row: self.content_key[row : row + 1] for row in sorted({row for row, _ in positions})}
        return torch.cat([rows[row][..., column : column + 1] for row, column in positions], dim=-1)

    def _position(self, share: float, pixels: int) -> int:
        """The row or column whose square of pixels holds a point."""
        return min(int(share * pixels), pixels - 1) // stride(self.level)


def overlay_heatmap(weights: Tensor, picture: Tensor, opacity: float = 0.7) -> Tensor:
    """Weights as colours over a grey version of their picture, each map scaled by itself.

    Args:
        weights: (B, h, w), not negative.
        picture: (B or 1, 3, H, W).
        opacity: 0 shows only the grey picture, 1 only the colours.

    Returns:
        (B, 3, H, W) float32 in [0, 1].
    """
    check_unit("opacity", opacity)
    heat = to_brightness(weights)
    heat = F.interpolate(heat[:, None], size=picture.shape[-2:], mode="bilinear").clamp(0, 1)
    steps = torch.tensor(INFERNO, device=heat.device, dtype=torch.float32)
    position = heat[:, 0] * (len(steps) - 1)
    below = position.long().clamp(max=len(steps) - 2)
    colours = torch.lerp(steps[below], steps[below + 1], (position - below)[..., None])
    grey = picture.float().mean(dim=1, keepdim=True).expand(len(heat), 3, -1, -1).to(heat.device)
    return torch.lerp(grey, rearrange(colours, "b h w c -> b c h w"), opacity)


def to_brightness(weights: Tensor) -> Tensor:
    """Brightness of weights in a heat map: 0 for the smallest of a map, 1 for the largest, monotone in between.

    A linear scale would show only the peak of peaked attention. So each map is normalized to [0, 1] and raised to the
    power that brings its mean to MEAN_BRIGHTNESS; the power is limited to 0.25 to 2. Maps of nearly uniform attention
    stay dark, see MIN_CONTRAST.

    Args:
        weights: (B, h, w), not negative.

    Returns:
        (B, h, w) float32 in [0, 1].
    """
    weights = weights.float()
    smallest, largest = weights.amin(dim=(1, 2), keepdim=True), weights.amax(dim=(1, 2), keepdim=True)
    normalized = (weights - smallest) / (largest - smallest).clamp_min(1e-30)
    mean = normalized.mean(dim=(1, 2), keepdim=True).clamp(1e-6, 1 - 1e-6)
    power = (math.log(MEAN_BRIGHTNESS) / mean.log()).clamp(0.25, 2)
    contrast = (largest - smallest) / largest.clamp_min(1e-30)
    return normalized**power * (contrast / MIN_CONTRAST).clamp(max=1)
