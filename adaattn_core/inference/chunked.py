"""Attention statistics applied to a level some rows at a time, in less memory.

The same as `MultiLevelFusion.statistics` and `apply_statistics` one after the other. Keys, queries, means and standard
deviations exist for some rows of a level; only features that are read again and the results are in memory as a whole.
Letters: B batch, C channels of the level, P projection channels, H W grid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ..models.attention import LazyStackedKey, StyleKV
from ..models.encoder import Features
from ..models.fusion import MultiLevelFusion, StyleFeatures
from ..ops.masks import region_shares
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
    regions: tuple[Tensor, ...] | None = None
    """Where each style counts, (B or 1, 1, H, W) masks of the content, see `region_shares`; None: everywhere."""

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
    shares: Sequence[float | Tensor] = options.weights
    if options.regions is not None:
        maps = region_shares(options.regions, options.weights, (height, width))
        shares = [share.to(content.device) for share in maps]
    for start in range(0, height, chunk_rows):
        rows = slice(start, min(start + chunk_rows, height))
        grid = rows.stop - rows.start, width
        chunk_progress = sub_progress(progress, rows.start / height, rows.stop / height)
        here = [share[:, :, rows] if isinstance(share, Tensor) else share for share in shares]
        statistics = partial(attention.statistics, temperature=options.temperature, chunk_bytes=sizes.chunk_bytes)
        mean, std = _mixed_statistics(statistics, attention.query(key[rows]), grid, level_styles, here, chunk_progress)
        full = key.normalized_level(rows).mul_(std).add_(mean)
        if options.strength < 1:
            full = torch.lerp(to_float32(content[:, :, rows]), full, options.strength)
        output[:, :, rows] = full
        del mean, std, full
        malloc_trim(content.device)
    return output


Moments = Callable[..., tuple[Tensor, Tensor]]
"""`AdaAttention.statistics` with its options."""


def _mixed_statistics(
    statistics: Moments,
    query: Tensor,
    grid: tuple[int, int],
    styles: Sequence[StyleKV],
    shares: Sequence[float | Tensor],
    progress: ProgressCallback | None,
) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation for some rows, those of the styles averaged by their shares: (B, C, rows, W) each.

    Args:
        statistics: of the level's attention.
        query: (B, rows W, P).
        grid: (rows, W).
        styles: keys and values.
        shares: one per style: a number, or (B or 1, 1, rows, W) one for each position.
        progress: called with the share that is done.
    """
    mean: Tensor | None = None
    std: Tensor | None = None
    done, total = 0, sum(style.key.shape[1] for style in styles)
    for style, share in zip(styles, shares, strict=True):
        start, done = done, done + style.key.shape[1]
        part = sub_progress(progress, start / total, done / total)
        if isinstance(share, Tensor):
            moments, weight = _statistics_in_region(statistics, query, grid, style, share, part), 1.0
        else:
            moments, weight = statistics(query, grid, style, progress=part), share
        if moments is not None:
            mean, std = (_add_weighted(old, new, weight) for old, new in zip((mean, std), moments, strict=True))
    assert mean is not None
    assert std is not None
    return mean, std


def _add_weighted(total: Tensor | None, value: Tensor, weight: float) -> Tensor:
    if total is not None:
        return total.add_(value, alpha=weight)
    return value if weight == 1 else value * weight


def _statistics_in_region(
    statistics: Moments,
    query: Tensor,
    grid: tuple[int, int],
    style: StyleKV,
    share: Tensor,
    progress: ProgressCallback | None,
) -> tuple[Tensor, Tensor] | None:
    """The moments of one style times its share, 0 outside its region; None if no row has any of it.

    Attention runs for the positions of the region alone, so that many regions together cost about as much as one style.
    """
    positions = (share > 0).any(dim=0).flatten().nonzero()[:, 0]
    if not len(positions):
        return None
    if len(positions) == query.shape[1]:
        mean, std = statistics(query, grid, style, progress=progress)
        return mean.mul_(share), std.mul_(share)
    moments = statistics(query[:, positions], (1, len(positions)), style, progress=progress)
    here = share.flatten(2)[..., positions]
    spread = (x.new_zeros(*x.shape[:2], query.shape[1]) for x in moments)
    mean, std = (
        zeros.index_copy_(2, positions, x[:, :, 0] * here).view(*x.shape[:2], *grid)
        for zeros, x in zip(spread, moments, strict=True)
    )
    return mean, std


def _style_positions(styles: Sequence[StyleFeatures], level: str) -> int:
    return sum(style[level].key.shape[1] for style in styles)


def _key_channels(fusion: MultiLevelFusion, level: str) -> int:
    return fusion.level_attention(level).query_proj.in_channels
