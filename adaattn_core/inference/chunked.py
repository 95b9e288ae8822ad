"""Repainting a level piece by piece: what `MultiLevelFusion.statistics` and `apply_statistics` do together, in less memory.

Keys, queries, means and deviations exist for some rows of a level at a time; only what is read again (features) and
what is made (painted features) is there whole. Letters: B batch, C channels of the level, K key channels, H W grid.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..models.attention import CHUNK_POSITIONS, AdaAttention, LazyStackedKey
from ..models.encoder import Features
from ..models.fusion import MultiLevelFusion, StyleFeatures
from ..ops.chunked_attention import CHUNK_BYTES
from ..ops.statistics import to_float32
from ..ops.tiling import empty_channels_last
from ..runtime.memory import malloc_trim
from ..runtime.progress import ProgressCallback, sub_progress


@torch.no_grad()
def apply_statistics_chunked(
    fusion: MultiLevelFusion,
    content: Features,
    styles: Sequence[StyleFeatures],
    weights: Sequence[float],
    *,
    strength: float = 1.0,
    temperature: float = 1.0,
    chunk_bytes: int = CHUNK_BYTES,
    positions: int = CHUNK_POSITIONS,
    reuse: bool = False,
    progress: ProgressCallback | None = None,
) -> Features:
    """S * Norm(F_c) + M at each level, the deepest first, mixed with the content's own features below strength 1.

    Args:
        fusion: a model's attention.
        content: features; what no level still needs is taken out on the way, so that its memory is free.
        styles: results of `encode_style`; levels that are done are taken out of them, too.
        weights, temperature, chunk_bytes: see `MultiLevelFusion.statistics`.
        strength: see `MultiLevelFusion.apply_statistics`.
        positions: content positions of a piece of the first level, at least a row; of deeper ones, with wider keys,
            as many as take the same memory.
        reuse: paint over the features themselves, at full strength: their memory is not needed twice.
        progress: told the share that is done, over all levels, styles and pieces.

    Returns:
        level name -> (B, C, H, W), dtype of the features.
    """
    painted: Features = {}
    costs = {
        level: sum(content[level][0, 0].numel() * style[level].key.shape[1] for style in styles)
        for level in fusion.levels
    }
    done, total = 0, sum(costs.values())
    for level in reversed(fusion.levels):
        part = sub_progress(progress, done / total, (done + costs[level]) / total)
        some = positions * _key_width(fusion, fusion.levels[0]) // _key_width(fusion, level)
        attention = _LevelRunner(fusion, level, styles, weights, temperature, chunk_bytes)
        painted[level] = attention.repainted(content, strength, some, reuse, part)
        done += costs[level]
        for name in [name for name in content if name == level or name.endswith(f"@{level}")]:
            del content[name]
        for style in styles:
            del style[level]
        del attention
        malloc_trim(painted[level].device)
    return painted


class _LevelRunner:
    """One level's attention, with what it paints with."""

    def __init__(
        self,
        fusion: MultiLevelFusion,
        level: str,
        styles: Sequence[StyleFeatures],
        weights: Sequence[float],
        temperature: float,
        chunk_bytes: int,
    ) -> None:
        attention = fusion.attention[level]
        assert isinstance(attention, AdaAttention)
        self.attention, self.level = attention, level
        self.styles, self.weights = [style[level] for style in styles], weights
        self.temperature, self.chunk_bytes = temperature, chunk_bytes

    def repainted(
        self, content: Features, strength: float, positions: int, reuse: bool, progress: ProgressCallback | None
    ) -> Tensor:
        """(B, C, H, W)."""
        own, keys = content[self.level], LazyStackedKey(content, self.level)
        height, width = own.shape[-2:]
        step = max(1, positions // (len(own) * width))
        painted = own if reuse and strength == 1 else empty_channels_last(own, own.shape[1], height, width)
        for start in range(0, height, step):
            rows = slice(start, min(start + step, height))
            told = sub_progress(progress, rows.start / height, rows.stop / height)
            mean, std = self._statistics(self.attention.query(keys[rows]), (rows.stop - rows.start, width), told)
            full = keys.normalized_level(rows).mul_(std).add_(mean)
            painted[:, :, rows] = full if strength == 1 else torch.lerp(to_float32(own[:, :, rows]), full, strength)
            del mean, std, full
            malloc_trim(own.device)
        return painted

    def _statistics(
        self, query: Tensor, grid: tuple[int, int], progress: ProgressCallback | None
    ) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the styles for some rows, (B, C, rows, W) each."""
        mean: Tensor | None = None
        std: Tensor | None = None
        seen, total = 0, sum(style.key.shape[1] for style in self.styles)
        for style, weight in zip(self.styles, self.weights, strict=True):
            before, seen = seen, seen + style.key.shape[1]
            told = sub_progress(progress, before / total, seen / total)
            found = self.attention.statistics(
                query, grid, style, temperature=self.temperature, chunk_bytes=self.chunk_bytes, progress=told
            )
            mean, std = _added(mean, found[0], weight), _added(std, found[1], weight)
        assert mean is not None
        assert std is not None
        return mean, std


def _key_width(fusion: MultiLevelFusion, level: str) -> int:
    attention = fusion.attention[level]
    assert isinstance(attention, AdaAttention)
    return attention.query_proj.in_channels


def _added(total: Tensor | None, one: Tensor, weight: float) -> Tensor:
    if weight == 1:
        return one
    return one * weight if total is None else total.add_(one, alpha=weight)
