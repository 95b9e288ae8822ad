"""AdaAttN at one level: which style positions does each content position look at, and what statistics are there.

Source: Liu et al., ICCV 2021, section 3.2. Letters as in moments.py; P projection channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.nn import Conv2d

from ..ops.chunked_attention import CHUNK_BYTES
from ..ops.moments import Similarity, attention_moments
from ..ops.statistics import channel_mean_std, normalize_channels, to_float32
from ..ops.tiling import empty_channels_last
from ..runtime.progress import ProgressCallback
from .encoder import LEVELS, Features, resize_to_level

AS_ROWS = "b c h w -> b (h w) c"

CHUNK_POSITIONS = 2**13
"""Positions whose stacked keys and queries exist at once. What is prepared of a style's keys for each piece takes a few
percent of its time."""


class StyleKV(NamedTuple):
    """What attention keeps of a style at one level; independent of the content, so made once and reused.

    key: (B, Ns, P). value: (B, Ns, C). mask: (B, Ns) bool, True where the style may be looked at, or None.
    value_variance: (B, Ns, C) variance of the values in a cell around their mean, or None where each position is its own cell.
    """

    key: Tensor
    value: Tensor
    mask: Tensor | None = None
    value_variance: Tensor | None = None

    def select(self, batch: Tensor | slice, positions: Tensor | slice = slice(None)) -> StyleKV:
        """Some items of the batch, some positions of them."""
        return self._each(lambda x: x[batch][:, positions])

    def expand(self, batch: int) -> StyleKV:
        """Batch 1 for every item of a batch."""
        return self._each(lambda x: x.expand(batch, *x.shape[1:]))

    def _each(self, change: Callable[[Tensor], Tensor]) -> StyleKV:
        mask, value_variance = (None if x is None else change(x) for x in (self.mask, self.value_variance))
        return StyleKV(change(self.key), change(self.value), mask, value_variance)


def stacked_key(features: Features, level: str) -> Tensor:
    """All levels down to `level`, each resized to its grid and normalised, concatenated over channels.

    Differs from the paper: nearest resizing, and every level is normalised before the concatenation, because the
    published weights were trained so.

    Args:
        features: level name -> (B, C, H, W), at least the levels down to `level`.

    Returns:
        (B, sum of C, H, W) float32 on the grid of `level`.
    """
    levels = LEVELS[: LEVELS.index(level) + 1]
    return torch.cat([normalize_channels(resize_to_level(features, name, level)) for name in levels], dim=1)


class LazyStackedKey:
    """The stacked key of a level, made when asked for, some rows at a time.

    Args:
        features: level name -> (B, C, H, W), as in `stacked_key`.
        level: whose grid and depth.
    """

    def __init__(self, features: Features, level: str) -> None:
        self.maps = [resize_to_level(features, name, level) for name in LEVELS[: LEVELS.index(level) + 1]]
        self.moments = [channel_mean_std(one) for one in self.maps]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(B, K, H, W) of the whole."""
        batch, _, height, width = self.maps[-1].shape
        return batch, sum(one.shape[1] for one in self.maps), height, width

    def __getitem__(self, rows: slice) -> Tensor:
        """(B, K, rows, W) float32, equal to those rows of `stacked_key`."""
        some = self.maps[-1][:, :, rows]
        found = empty_channels_last(some, self.shape[1], some.shape[2], some.shape[3], dtype=to_float32(some).dtype)
        parts = torch.split(found, [one.shape[1] for one in self.maps], dim=1)
        for one, (mean, std), part in zip(self.maps, self.moments, parts, strict=True):
            torch.sub(to_float32(one[:, :, rows]), mean, out=part).div_(std)
        return found

    def normalized_level(self, rows: slice) -> Tensor:
        """(B, C, rows, W) float32: the level itself, normalised."""
        mean, std = self.moments[-1]
        return (to_float32(self.maps[-1][:, :, rows]) - mean).div_(std)


def mask_on_grid(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """A pixel mask on a level's grid: (B, 1, H, W) in [0, 1] -> (B, h * w) bool, resized nearest as published.

    Differs from the published code: a mask so small that nearest resizing steps over all of it keeps the positions
    that it touches, where the published code attends to everything.
    """
    mask = mask.float()
    nearest, touched = F.interpolate(mask, size=size) > 0.5, F.adaptive_max_pool2d(mask, size) > 0.5
    return rearrange(torch.where(nearest.any(dim=(2, 3), keepdim=True), nearest, touched), "b 1 h w -> b (h w)")


def masked_avg_pool(x: Tensor, side: int, allowed: Tensor | None = None) -> Tensor:
    """Means over squares of positions, the last ones cut off by the edge.

    Args:
        x: (B, C, H, W).
        side: of a square.
        allowed: (B or 1, 1, H, W) bool or None. Squares in which some positions are allowed are the mean of those.

    Returns:
        (B, C, H / side, W / side), rounded up.
    """
    if allowed is None:
        return F.avg_pool2d(x, side, ceil_mode=True, count_include_pad=False)
    some = upsample_cells(F.max_pool2d(allowed.to(x.dtype), side, ceil_mode=True), side, allowed.shape[-2:])
    weight = torch.where(some > 0, allowed.to(x.dtype), 1.0)
    return masked_avg_pool(x * weight, side) / masked_avg_pool(weight, side)


def upsample_cells(cells: Tensor, side: int, size: Sequence[int]) -> Tensor:
    """(B, C, h, w), one value for each square of positions -> (B, C, *size), that value at each position."""
    return F.interpolate(cells, scale_factor=side, mode="nearest")[..., : size[0], : size[1]]


def _sample(positions: int, count: int, allowed: Tensor | None, generator: torch.Generator) -> Tensor:
    """`count` different positions at random; where chance meets nothing of a small mask, its positions come first."""
    order = torch.randperm(positions, generator=generator)
    if allowed is not None and not bool(allowed.cpu()[:, order[:count]].any(dim=1).all()):
        order = order[allowed.cpu().any(dim=0)[order].logical_not().int().argsort(stable=True)]
    return order[:count]


def attention_target(
    content: Features,
    style: Features,
    level: str,
    *,
    logit_scale: float | None = None,
    style_mask: Tensor | None = None,
) -> Tensor:
    """AdaAttN without learned projections: S * Norm(F_c) + M with attention on the stacked keys themselves.

    The target of refinement, and of the local feature loss in training. Source: Liu et al., ICCV 2021, section 3.4.

    Args:
        content, style: features down to `level`, (B, C, H, W) each, sizes may differ.
        logit_scale: None takes the products of the keys as logits, as published. A number takes their cosines times
            that number, which keeps logits bounded and mixes several similar style positions.
        style_mask: (B or 1, 1, h, w) in [0, 1], any size: where the style may be looked at.

    Returns:
        (B, C, H, W) float32 on the content's grid. Attention is streamed: memory grows with the number of positions.
    """
    query, key = (rearrange(stacked_key(features, level), AS_ROWS) for features in (content, style))
    if logit_scale is not None:
        query, key = F.normalize(query, dim=-1) * logit_scale, F.normalize(key, dim=-1)
    value = rearrange(to_float32(style[level]), AS_ROWS)
    allowed = None
    if style_mask is not None:
        allowed = mask_on_grid(style_mask, (style[level].shape[-2], style[level].shape[-1])).expand(len(value), -1)
    moments = attention_moments(query, key, value, style_mask=allowed)
    mean, std = (rearrange(x, "b (h w) c -> b c h w", h=content[level].shape[-2]) for x in moments)
    return std * normalize_channels(content[level]) + mean


class AdaAttention(nn.Module):
    """Adaptive attention normalisation of one level: f, g and h of the paper.

    Args:
        key_channels: K, channels of the stacked key.
        value_channels: C, channels of the level.
        projection_channels: P, width of queries and keys; None keeps K, as published.
        similarity: "softmax" (image model) or "cosine" (video model).
        cell: style positions are taken together in squares of this side, each with one key, the mean of theirs, and
            with the mean and variance of their values, so that all of them still count. 1, as published: none are.
    """

    def __init__(
        self,
        key_channels: int,
        value_channels: int,
        projection_channels: int | None = None,
        similarity: Similarity = "softmax",
        cell: int = 1,
    ) -> None:
        super().__init__()
        self.cell = cell
        projection_channels = projection_channels or key_channels
        self.similarity: Similarity = similarity
        self.query_proj = Conv2d(key_channels, projection_channels, kernel_size=1)
        self.key_proj = Conv2d(key_channels, projection_channels, kernel_size=1)
        self.value_proj = Conv2d(value_channels, value_channels, kernel_size=1)

    def initialize(self) -> None:
        """f = g a scaled orthogonal projection and h the identity: like attends to like from the first step, softly.

        The logits start as those of scaled dot-product attention, q . k / sqrt(K). With the unscaled product each
        position would copy one style position, mostly a wrong one: noise, which the decoder learns to ignore, and
        the style with it. Training sharpens what deserves it. Uses the global generator, as torch's initialisers do.
        """
        projection, keys = self.query_proj.weight.shape[:2]
        nn.init.orthogonal_(self.query_proj.weight, gain=(keys / projection) ** 0.5 * keys**-0.25)
        with torch.no_grad():
            self.key_proj.weight.copy_(self.query_proj.weight)
        nn.init.dirac_(self.value_proj.weight)
        for conv in (self.query_proj, self.key_proj, self.value_proj):
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]

    def encode_style(
        self,
        style_key: Tensor | LazyStackedKey,
        style_value: Tensor,
        mask: Tensor | None = None,
        samples: int | None = None,
        generator: torch.Generator | None = None,
    ) -> StyleKV:
        """Keys and values of a style.

        Args:
            style_key: (B, K, H, W) stacked key, or the same piece by piece, without gradients.
            style_value: (B, C, H, W) features of this level.
            mask: (B or 1, 1, h, w) in [0, 1], any size, or None: where the style may be looked at.
            samples: keep that many randomly chosen positions, as the published code does; None keeps all.
            generator: source of that choice (on the CPU), required with `samples`.
        """
        style = self._cells(style_key, self.value_proj(style_value), mask)
        if samples is not None and samples < style.key.shape[1]:
            if generator is None:
                raise ValueError("sampled attention needs a torch.Generator, so that the same seed gives one picture")
            chosen = _sample(style.key.shape[1], samples, style.mask, generator).to(style.key.device)
            style = style.select(slice(None), chosen)
        return style

    def _cells(self, key: Tensor | LazyStackedKey, value: Tensor, mask: Tensor | None) -> StyleKV:
        """All positions of a style, or all cells of them; arguments as in `encode_style`, the values projected."""
        allowed, cell_allowed, value_variance = None, None, None
        size = (key.shape[-2], key.shape[-1])
        if mask is not None:
            allowed = rearrange(mask_on_grid(mask, size), "b (h w) -> b 1 h w", h=size[0])
            cell_allowed = F.max_pool2d(allowed.float(), self.cell, ceil_mode=True) > 0
            cell_allowed = rearrange(cell_allowed, "b 1 h w -> b (h w)").expand(len(value), -1)
        if self.cell > 1:
            mean = masked_avg_pool(value, self.cell, allowed)
            away = (to_float32(value) - upsample_cells(to_float32(mean), self.cell, size)).square()
            value, value_variance = mean, rearrange(masked_avg_pool(away, self.cell, allowed), AS_ROWS)
        return StyleKV(self._keys(key, allowed), rearrange(value, AS_ROWS), cell_allowed, value_variance)

    def _keys(self, stacked: Tensor | LazyStackedKey, allowed: Tensor | None) -> Tensor:
        """(B, Ns, P): a key for each cell; `allowed` as in `masked_avg_pool`."""
        if isinstance(stacked, LazyStackedKey):
            batch, _, height, width = stacked.shape
            rows = self.cell * max(1, CHUNK_POSITIONS // (batch * width * self.cell))
            size = (batch, -(-height // self.cell) * -(-width // self.cell), self.key_proj.out_channels)
            found, done = self.key_proj.weight.new_empty(size), 0
            for start in range(0, height, rows):
                piece = slice(start, start + rows)
                some = self._keys(stacked[piece], None if allowed is None else allowed[:, :, piece])
                found[:, done : done + some.shape[1]] = some
                done += some.shape[1]
            return found
        if self.cell > 1:
            stacked = masked_avg_pool(stacked, self.cell, allowed)
        keys: Tensor = self.key_proj(stacked.to(self.key_proj.weight.dtype))
        return rearrange(keys, AS_ROWS)

    def query(self, content_key: Tensor) -> Tensor:
        """(B, K, H, W) stacked key of the content -> (B, H W, P): what looks for style positions like itself."""
        query: Tensor = self.query_proj(content_key.to(self.query_proj.weight.dtype))
        return rearrange(query, "b k h w -> b (h w) k")

    def statistics(
        self,
        query: Tensor,
        grid: tuple[int, int],
        style: StyleKV,
        *,
        content_mask: Tensor | None = None,
        temperature: float = 1.0,
        chunk_bytes: int = CHUNK_BYTES,
        progress: ProgressCallback | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Attention-weighted mean and standard deviation of the style for each content position.

        Args:
            query: (B, H W, P) result of `query`. The stacked key, which is as large, can be let go by then.
            grid: (H, W).
            style: result of `encode_style`; its batch is B or 1.
            content_mask: (B or 1, 1, h, w) or None: where the style's mask applies.
            progress: see `attention_moments`.

        Returns:
            mean, std: each (B, C, H, W) in float32.
        """
        batch = len(query)
        style = style.expand(batch)
        applies = None if content_mask is None else mask_on_grid(content_mask, grid).expand(batch, -1)
        mean, std = attention_moments(
            query,
            style.key,
            style.value,
            similarity=self.similarity,
            temperature=temperature,
            content_mask=applies,
            style_mask=style.mask,
            value_variance=style.value_variance,
            chunk_bytes=chunk_bytes,
            progress=progress,
        )
        as_map = "b (h w) c -> b c h w"
        return rearrange(mean, as_map, h=grid[0]), rearrange(std, as_map, h=grid[0])
