"""Attention statistics applied to a level some rows at a time, in less memory.

The same as `MultiLevelFusion.statistics` and `apply_statistics` one after the other. Keys, queries, means and standard
deviations exist for some rows of a level; only features that are read again and the results are in memory as a whole.
Letters: B batch, C channels of the level, P projection channels, H W grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..models.attention import AdaAttention, LazyStackedKey, StyleKV
from ..models.encoder import Features
from ..models.fusion import MultiLevelFusion, StyleFeatures
from ..ops.statistics import to_float32
from ..ops.tiling import empty_channels_last
from ..runtime.memory import malloc_trim
from ..runtime.progress import ProgressCallback, sub_progress
from .memory_budget import DEFAULT_SIZES, ChunkSizes
from .validation import check_unit


@dataclass(frozen=True)
class TransferOptions:
    """How styles are mixed with each other and with the content.

    Raises:
        ValueError: the strength is not between 0 and 1.
    """

    weights: Sequence[float] = (1.0,)
    """One for each style, summing to 1."""
    strength: float = 1.0
    """0 the content, 1 the full style. In between, features are mixed level by level."""
    temperature: float = 1.0
    """Above 0; 1 is neutral, higher mixes more style positions into each content position."""

    def __post_init__(self) -> None:
        check_unit("strength", self.strength)


@torch.no_grad()
def apply_statistics_chunked(
    fusion: MultiLevelFusion,
    features: Features,
    styles: Sequence[StyleFeatures],
    options: TransferOptions,
    *,
    sizes: ChunkSizes = DEFAULT_SIZES,
    in_place: bool = False,
    progress: ProgressCallback | None = None,
) -> Features:
    """S * Norm(F_c) + M at each level, the deepest first, mixed with the content's own features below strength 1.

    Args:
        fusion: a model's attention.
        features: of the content. Entries that no later level needs are removed, so that their memory is free.
        styles: results of `encode_style`; levels that are done are removed from them, too.
        options: weights of the styles, strength, temperature.
        sizes: `chunk_bytes` and `positions` count; a chunk has at least one row.
        in_place: at full strength, write the results over the features, whose memory is then not needed twice.
        progress: called with the share that is done, over all levels, styles and chunks.

    Returns:
        level name -> (B, C, H, W), dtype of the features.
    """
    stylized: Features = {}
    costs = {level: features[level][0, 0].numel() * _style_positions(styles, level) for level in fusion.levels}
    done, total = 0, sum(costs.values())
    for level in reversed(fusion.levels):
        level_progress = sub_progress(progress, done / total, (done + costs[level]) / total)
        stylized[level] = _apply_to_level(fusion, level, features, styles, options, sizes, in_place, level_progress)
        done += costs[level]
        for name in [name for name in features if name == level or name.endswith(f"@{level}")]:
            del features[name]
        for style in styles:
            del style[level]
        malloc_trim(stylized[level].device)
    return stylized


def _apply_to_level(
    fusion: MultiLevelFusion,
    level: str,
    features: Features,
    styles: Sequence[StyleFeatures],
    options: TransferOptions,
    sizes: ChunkSizes,
    in_place: bool,
    progress: ProgressCallback | None,
) -> Tensor:
    """(B, C, H, W) one level of `apply_statistics_chunked`."""
    attention, content, key = fusion.level_attention(level), features[level], LazyStackedKey(features, level)
    height, width = content.shape[-2:]
    # deeper levels have wider keys: fewer positions take the same memory
    positions = sizes.positions * _key_channels(fusion, fusion.levels[0]) // _key_channels(fusion, level)
    chunk_rows = max(1, positions // (len(content) * width))
    overwrite = in_place and options.strength == 1
    output = content if overwrite else empty_channels_last(content, content.shape[1], height, width)
    level_styles = [style[level] for style in styles]
    for start in range(0, height, chunk_rows):
        rows = slice(start, min(start + chunk_rows, height))
        grid = rows.stop - rows.start, width
        chunk_progress = sub_progress(progress, rows.start / height, rows.stop / height)
        mean, std = _mixed_statistics(
            attention, attention.query(key[rows]), grid, level_styles, options, sizes.chunk_bytes, chunk_progress
        )
        full = key.normalized_level(rows).mul_(std).add_(mean)
        if options.strength < 1:
            full = torch.lerp(to_float32(content[:, :, rows]), full, options.strength)
        output[:, :, rows] = full
        del mean, std, full
        malloc_trim(content.device)
    return output


def _mixed_statistics(
    attention: AdaAttention,
    query: Tensor,
    grid: tuple[int, int],
    styles: Sequence[StyleKV],
    options: TransferOptions,
    chunk_bytes: int,
    progress: ProgressCallback | None,
) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation for some rows, those of the styles averaged by weight: (B, C, rows, W) each."""
    mean: Tensor | None = None
    std: Tensor | None = None
    done, total = 0, sum(style.key.shape[1] for style in styles)
    for style, weight in zip(styles, options.weights, strict=True):
        start, done = done, done + style.key.shape[1]
        style_mean, style_std = attention.statistics(
            query, grid, style, temperature=options.temperature, chunk_bytes=chunk_bytes,
            progress=sub_progress(progress, start / total, done / total),
        )  # fmt: skip
        mean, std = _add_weighted(mean, style_mean, weight), _add_weighted(std, style_std, weight)
    assert mean is not None
    assert std is not None
    return mean, std


def _add_weighted(total: Tensor | None, value: Tensor, weight: float) -> Tensor:
    if weight == 1:
        return value
    return value * weight if total is None else total.add_(value, alpha=weight)


def _style_positions(styles: Sequence[StyleFeatures], level: str) -> int:
    return sum(style[level].key.shape[1] for style in styles)


def _key_channels(fusion: MultiLevelFusion, level: str) -> int:
    return fusion.level_attention(level).query_proj.in_channels
