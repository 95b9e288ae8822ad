"""Content features with the style's statistics applied, level by level, and merged for the decoder.

Source: Liu et al., ICCV 2021, section 3.3: relu4_1 + upsampled relu5_1 through a convolution, relu3_1 as skip.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops.chunked_attention import CHUNK_BYTES
from ..ops.moments import Similarity
from ..ops.statistics import normalize_channels, to_float32
from .attention import AdaAttention, LazyStackedKey, StyleKV, stacked_key
from .encoder import LEVELS, Features, ReflectConv2d

StyleFeatures = dict[str, StyleKV]
"""level name -> keys and values of a style; attention needs nothing else of it."""


class FusedFeatures(NamedTuple):
    """The decoder's input."""

    deep: Tensor
    """(B, C, H, W) on the relu4_1 grid; on the relu3_1 grid in a one-level model."""
    skip: Tensor | None
    """(B, C, H, W) on the relu3_1 grid; None in a one-level model."""


def upsample_to(x: Tensor, size: Sequence[int], mode: str) -> Tensor:
    """(B, C, h, w) upsampled by 2 and cropped to `size`, (B, C, *size): inverts a pool that rounds sizes up."""
    x = F.interpolate(x, scale_factor=2, mode=mode)
    return x[..., : size[0], : size[1]]


def _weighted_sum(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    if len(tensors) == 1:
        return tensors[0]
    return torch.stack([weight * x for x, weight in zip(tensors, weights, strict=True)]).sum(dim=0)


class MultiLevelFusion(nn.Module):
    """AdaAttN at several levels, and the convolution that merges them. Arguments: the fields of `ModelConfig`."""

    def __init__(
        self,
        channels: Sequence[int],
        levels: Sequence[str],
        projection_channels: Sequence[int] | None = None,
        similarity: Similarity = "softmax",
        upsample: str = "nearest",
        style_cells: Sequence[int] | None = None,
        logit_scale: float | None = None,
    ) -> None:
        super().__init__()
        self.levels, self.upsample = tuple(levels), upsample
        self.attention = nn.ModuleDict()
        for index, level in enumerate(levels):
            block = LEVELS.index(level)
            width = projection_channels[index] if projection_channels else None
            cell = style_cells[index] if style_cells else 1
            key_channels = sum(channels[: block + 1])
            self.attention[level] = AdaAttention(key_channels, channels[block], width, similarity, cell, logit_scale)
        if len(levels) > 1:
            self.merge_conv = ReflectConv2d(channels[3], channels[3])

    def initialize(self) -> None:
        """Weights to start training from; see `AdaAttention.initialize`."""
        for level in self.levels:
            self.level_attention(level).initialize()
        if len(self.levels) > 1:
            nn.init.kaiming_normal_(self.merge_conv.weight, nonlinearity="linear")
            nn.init.zeros_(self.merge_conv.bias)  # type: ignore[arg-type]

    def encode_style(
        self,
        features: Features,
        mask: Tensor | None = None,
        samples: int | None = None,
        generator: torch.Generator | None = None,
    ) -> StyleFeatures:
        """Keys and values at every level. Arguments and errors as in `AdaAttention.encode_style`.

        `samples` applies to the first level; deeper levels, which have fewer positions, keep up to 16 times as many,
        as in the published code (64 x 64 and 256 x 256).
        """
        styles = {}
        for level in self.levels:
            limit = samples and (samples if level == self.levels[0] else 16 * samples)
            key = stacked_key(features, level) if torch.is_grad_enabled() else LazyStackedKey(features, level)
            styles[level] = self.level_attention(level).encode_style(key, features[level], mask, limit, generator)
        return styles

    def statistics(
        self,
        content: Features,
        styles: Sequence[StyleFeatures],
        weights: Sequence[float],
        *,
        content_mask: Tensor | None = None,
        temperature: float = 1.0,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Mean and standard deviation maps per level, averaged over the styles with `weights`.

        Args:
            content: features of the content.
            styles: one or more results of `encode_style`.
            weights: one per style, summing to 1.
            content_mask, temperature, chunk_bytes: see `AdaAttention.statistics`.

        Returns:
            level name -> mean, std, each (B, C, H, W) in float32.
        """
        statistics = {}
        for level in self.levels:
            attention, grid = self.level_attention(level), (content[level].shape[-2], content[level].shape[-1])
            query = attention.query(stacked_key(content, level))
            moments = [
                attention.statistics(
                    query,
                    grid,
                    style[level],
                    content_mask=content_mask,
                    temperature=temperature,
                    chunk_bytes=chunk_bytes,
                )
                for style in styles
            ]
            means, stds = zip(*moments, strict=True)
            statistics[level] = _weighted_sum(means, weights), _weighted_sum(stds, weights)
        return statistics

    def apply_statistics(
        self, content: Features, statistics: dict[str, tuple[Tensor, Tensor]], strength: float = 1.0
    ) -> Features:
        """S * Norm(F_c) + M at each level; below strength 1, interpolated with the content features F_c."""
        stylized = {}
        for level, (mean, std) in statistics.items():
            x = content[level]
            full = std * normalize_channels(x) + mean
            stylized[level] = (full if strength == 1 else torch.lerp(to_float32(x), full, strength)).to(x.dtype)
        return stylized

    def merge(self, features: Features) -> FusedFeatures:
        """The levels merged for the decoder; unstylized encoder features decode to the picture itself."""
        if len(self.levels) == 1:
            return FusedFeatures(features[self.levels[0]], None)
        shallow, middle, deep = (features[level] for level in self.levels)
        return FusedFeatures(self.merge_conv(middle + upsample_to(deep, middle.shape[-2:], self.upsample)), shallow)

    def forward(self, content: Features, style: StyleFeatures) -> FusedFeatures:
        """One style at full strength, for training."""
        return self.merge(self.apply_statistics(content, self.statistics(content, [style], [1.0])))

    def level_attention(self, level: str) -> AdaAttention:
        """The attention module of one of `levels`."""
        return cast(AdaAttention, self.attention[level])
