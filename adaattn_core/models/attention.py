"""AdaAttN at one encoder level: attention of content positions to style positions, and the attended statistics.

Source: Liu et al., ICCV 2021, section 3.2. Shape letters as in ops/moments.py; P projection channels. A cell is a
square of style positions that share one key.
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
from ..ops.moments import AttentionKernel, AttentionMasks, Similarity, attention_moments
from ..ops.statistics import channel_mean_std, normalize_channels, to_float32
from ..ops.tiling import empty_channels_last
from ..runtime.progress import ProgressCallback
from .encoder import LEVELS, Features, resize_to_level

MAP_TO_POSITIONS = "b c h w -> b (h w) c"
POSITIONS_TO_MAP = "b (h w) c -> b c h w"

CHUNK_POSITIONS = 2**13
"""Positions whose stacked keys or queries exist at the same time. The overhead of each chunk of style keys is a few
percent of its time."""


class StyleKV(NamedTuple):
    """Keys and values of a style at one level: independent of the content, so computed once and reused."""

    key: Tensor
    """(B, Ns, P)."""
    value: Tensor
    """(B, Ns, C); with cells larger than one position, the mean of each cell."""
    mask: Tensor | None = None
    """(B, Ns) bool, True where content may attend; None: everywhere."""
    value_variance: Tensor | None = None
    """(B, Ns, C) variance of the values within each cell; None: every cell is one position."""

    def select(self, batch: Tensor | slice, positions: Tensor | slice = slice(None)) -> StyleKV:
        """The indexed batch items, at the indexed positions."""
        return self._map(lambda x: x[batch][:, positions])

    def expand(self, batch: int) -> StyleKV:
        """A batch of 1 expanded to `batch` items, without a copy."""
        return self._map(lambda x: x.expand(batch, *x.shape[1:]))

    def _map(self, function: Callable[[Tensor], Tensor]) -> StyleKV:
        mask, value_variance = (None if x is None else function(x) for x in (self.mask, self.value_variance))
        return StyleKV(function(self.key), function(self.value), mask, value_variance)


def stacked_key(features: Features, level: str) -> Tensor:
    """All levels down to `level`, each resized to its grid and normalised, concatenated over channels.

    Differs from the paper: nearest resizing, and every level is normalised before the concatenation, because the
    published weights were trained so.

    Args:
        features: level name -> (B, C, H, W); the levels down to `level` are required.
        level: sets the grid and the deepest level.

    Returns:
        (B, sum of C, H, W) float32 on the grid of `level`.
    """
    levels = LEVELS[: LEVELS.index(level) + 1]
    return torch.cat([normalize_channels(resize_to_level(features, name, level)) for name in levels], dim=1)


class LazyStackedKey:
    """The stacked key of a level, computed for the requested rows only. For inference: records no gradients.

    Args:
        features, level: as in `stacked_key`.
    """

    def __init__(self, features: Features, level: str) -> None:
        self.features = [resize_to_level(features, name, level) for name in LEVELS[: LEVELS.index(level) + 1]]
        self.mean_std = [channel_mean_std(x) for x in self.features]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(B, K, H, W) of the complete key."""
        batch, _, height, width = self.features[-1].shape
        return batch, sum(x.shape[1] for x in self.features), height, width

    def __getitem__(self, rows: slice) -> Tensor:
        """(B, K, rows, W) float32, equal to those rows of `stacked_key`."""
        deepest = self.features[-1][:, :, rows]
        height, width = deepest.shape[-2:]
        key = empty_channels_last(deepest, self.shape[1], height, width, dtype=to_float32(deepest).dtype)
        levels = torch.split(key, [x.shape[1] for x in self.features], dim=1)
        for x, (mean, std), output in zip(self.features, self.mean_std, levels, strict=True):
            torch.sub(to_float32(x[:, :, rows]), mean, out=output).div_(std)
        return key

    def normalized_level(self, rows: slice) -> Tensor:
        """(B, C, rows, W) float32: the deepest level alone, normalised."""
        mean, std = self.mean_std[-1]
        return (to_float32(self.features[-1][:, :, rows]) - mean).div_(std)


def mask_on_grid(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """A pixel mask on a level's grid: (B, 1, H, W) in [0, 1] -> (B, h * w) bool, resized nearest as published.

    Differs from the published code: when nearest resizing skips every masked pixel, the mask covers the positions that
    contain a masked pixel; the published code then attends to all positions.
    """
    mask = mask.float()
    nearest, covered = F.interpolate(mask, size=size) > 0.5, F.adaptive_max_pool2d(mask, size) > 0.5
    return rearrange(torch.where(nearest.any(dim=(2, 3), keepdim=True), nearest, covered), "b 1 h w -> b (h w)")


def masked_avg_pool(x: Tensor, side: int, allowed: Tensor | None = None) -> Tensor:
    """Mean of each cell; cells at the right and bottom edge may be smaller.

    Args:
        x: (B, C, H, W).
        side: of a cell, in positions.
        allowed: (B or 1, 1, H, W) bool or None. A cell with allowed positions is the mean of those, any other cell the
            mean of all its positions.

    Returns:
        (B, C, ceil(H / side), ceil(W / side)).
    """
    if allowed is None:
        return F.avg_pool2d(x, side, ceil_mode=True, count_include_pad=False)
    any_allowed = upsample_cells(F.max_pool2d(allowed.to(x.dtype), side, ceil_mode=True), side, allowed.shape[-2:])
    weight = torch.where(any_allowed > 0, allowed.to(x.dtype), 1.0)
    return masked_avg_pool(x * weight, side) / masked_avg_pool(weight, side)


def upsample_cells(cells: Tensor, side: int, size: Sequence[int]) -> Tensor:
    """(B, C, h, w), one value per cell -> (B, C, *size), that value at every position of the cell."""
    return F.interpolate(cells, scale_factor=side, mode="nearest")[..., : size[0], : size[1]]


def _sample(positions: int, count: int, allowed: Tensor | None, generator: torch.Generator) -> Tensor:
    """`count` distinct random positions, (count,) int64; allowed ones first if an item would get none of them."""
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
        style_mask: (B or 1, 1, h, w) in [0, 1], any size, or None: style positions that content may attend to.

    Returns:
        (B, C, H, W) float32 on the content's grid. Memory grows linearly with the number of positions.
    """
    query, key = (rearrange(stacked_key(features, level), MAP_TO_POSITIONS) for features in (content, style))
    if logit_scale is not None:
        query, key = F.normalize(query, dim=-1) * logit_scale, F.normalize(key, dim=-1)
    value = rearrange(to_float32(style[level]), MAP_TO_POSITIONS)
    allowed = None
    if style_mask is not None:
        allowed = mask_on_grid(style_mask, (style[level].shape[-2], style[level].shape[-1])).expand(len(value), -1)
    moments = attention_moments(query, key, value, masks=AttentionMasks(style=allowed))
    mean, std = (rearrange(x, POSITIONS_TO_MAP, h=content[level].shape[-2]) for x in moments)
    return std * normalize_channels(content[level]) + mean


def _unit_length(vectors: Tensor) -> Tensor:
    """(B, N, P) scaled to length 1, computed in float32."""
    return F.normalize(to_float32(vectors), dim=-1).to(vectors.dtype)


class AdaAttention(nn.Module):
    """Adaptive attention normalisation of one level; `query_proj`, `key_proj`, `value_proj` are the paper's f, g, h.

    Args:
        key_channels: K, channels of the stacked key.
        value_channels: C, channels of the level.
        projection_channels: P, width of queries and keys; None: K, as published.
        similarity: "softmax" (image model) or "cosine" (video model).
        cell: side of a cell of style positions. A cell has one key, projected from the mean of its stacked keys, and
            the mean and variance of its values, so every position still counts. 1, as published: no pooling.
        logit_scale: None: logits are the products of queries and keys, as published. A number: queries and keys are
            scaled to unit length and logits are their cosines times it, which bounds logits in any precision.
    """

    def __init__(
        self,
        key_channels: int,
        value_channels: int,
        projection_channels: int | None = None,
        similarity: Similarity = "softmax",
        cell: int = 1,
        logit_scale: float | None = None,
    ) -> None:
        super().__init__()
        self.cell = cell
        self.logit_scale = logit_scale
        self.similarity: Similarity = similarity
        projection_channels = projection_channels or key_channels
        self.query_proj = Conv2d(key_channels, projection_channels, kernel_size=1)
        self.key_proj = Conv2d(key_channels, projection_channels, kernel_size=1)
        self.value_proj = Conv2d(value_channels, value_channels, kernel_size=1)

    @property
    def style_widths(self) -> tuple[int, int]:
        """Channels of the keys and of the values that this module makes of a style."""
        return self.key_proj.out_channels, self.value_proj.out_channels

    def initialize(self) -> None:
        """Queries and keys share a scaled orthogonal projection, values the identity: similar positions attend softly.

        The logits start as those of scaled dot-product attention, q . k / sqrt(K). With the unscaled product each
        content position would copy a single style position, mostly a wrong one; the decoder learns to ignore that
        noise, and the style with it. Draws from the global generator, as torch's initialisers do.
        """
        projection_channels, key_channels = self.query_proj.weight.shape[:2]
        gain = (key_channels / projection_channels) ** 0.5 * key_channels**-0.25
        nn.init.orthogonal_(self.query_proj.weight, gain=gain)
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
            style_key: (B, K, H, W) stacked key, or the lazy one, without gradients.
            style_value: (B, C, H, W) features of this level.
            mask: (B or 1, 1, h, w) in [0, 1], any size, or None: style positions that content may attend to.
            samples: number of randomly chosen positions to keep, as the published code does; None: all.
            generator: on the CPU; required with `samples`.

        Raises:
            ValueError: `samples` without a generator.
        """
        style = self._cells(style_key, self.value_proj(style_value), mask)
        if samples is not None and samples < style.key.shape[1]:
            if generator is None:
                raise ValueError("sampled attention needs a torch.Generator, so that the same seed gives one picture")
            positions = _sample(style.key.shape[1], samples, style.mask, generator).to(style.key.device)
            style = style.select(slice(None), positions)
        return style

    def _cells(self, key: Tensor | LazyStackedKey, value: Tensor, mask: Tensor | None) -> StyleKV:
        """Keys and values of every cell; arguments as in `encode_style`, `value` after `value_proj`."""
        allowed, cell_allowed, value_variance = None, None, None
        size = (key.shape[-2], key.shape[-1])
        if mask is not None:
            allowed = rearrange(mask_on_grid(mask, size), "b (h w) -> b 1 h w", h=size[0])
            cell_allowed = F.max_pool2d(allowed.float(), self.cell, ceil_mode=True) > 0
            cell_allowed = rearrange(cell_allowed, "b 1 h w -> b (h w)").expand(len(value), -1)
        if self.cell > 1:
            mean = masked_avg_pool(value, self.cell, allowed)
            deviation = to_float32(value) - upsample_cells(to_float32(mean), self.cell, size)
            variance = masked_avg_pool(deviation.square(), self.cell, allowed)
            value, value_variance = mean, rearrange(variance, MAP_TO_POSITIONS)
        return StyleKV(self.keys(key, allowed), rearrange(value, MAP_TO_POSITIONS), cell_allowed, value_variance)

    def keys(self, stacked: Tensor | LazyStackedKey, allowed: Tensor | None = None) -> Tensor:
        """(B, Ns, P): the key of every cell of a style; `stacked` is its stacked key, `allowed` as in
        `masked_avg_pool`."""
        if isinstance(stacked, LazyStackedKey):
            return self._keys_in_chunks(stacked, allowed)
        if self.cell > 1:
            stacked = masked_avg_pool(stacked, self.cell, allowed)
        keys = rearrange(self.key_proj(stacked.to(self.key_proj.weight.dtype)), MAP_TO_POSITIONS)
        return keys if self.logit_scale is None else _unit_length(keys)

    def _keys_in_chunks(self, stacked: LazyStackedKey, allowed: Tensor | None) -> Tensor:
        """`keys`, for at most CHUNK_POSITIONS positions at a time."""
        batch, _, height, width = stacked.shape
        rows_per_chunk = self.cell * max(1, CHUNK_POSITIONS // (batch * width * self.cell))
        cells = -(-height // self.cell) * -(-width // self.cell)
        keys, stop = self.key_proj.weight.new_empty(batch, cells, self.key_proj.out_channels), 0
        for first_row in range(0, height, rows_per_chunk):
            rows = slice(first_row, first_row + rows_per_chunk)
            chunk = self.keys(stacked[rows], None if allowed is None else allowed[:, :, rows])
            start, stop = stop, stop + chunk.shape[1]
            keys[:, start:stop] = chunk
        return keys

    def query(self, content_key: Tensor) -> Tensor:
        """(B, K, H, W) stacked key of the content -> (B, H W, P)."""
        query = rearrange(self.query_proj(content_key.to(self.query_proj.weight.dtype)), MAP_TO_POSITIONS)
        return query if self.logit_scale is None else _unit_length(query) * self.logit_scale

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
            query: (B, H W, P), result of `query`.
            grid: (H, W).
            style: result of `encode_style`; its batch is B or 1.
            content_mask: (B or 1, 1, h, w) or None: content positions to which the style's mask applies.
            temperature: see `AttentionKernel`.
            chunk_bytes, progress: see `attention_moments`.

        Returns:
            mean, std: each (B, C, H, W) in float32.
        """
        batch = len(query)
        style = style.expand(batch)
        masked = None if content_mask is None else mask_on_grid(content_mask, grid).expand(batch, -1)
        mean, std = attention_moments(
            query,
            style.key,
            style.value,
            kernel=AttentionKernel(self.similarity, temperature),
            masks=AttentionMasks(masked, style.mask),
            value_variance=style.value_variance,
            chunk_bytes=chunk_bytes,
            progress=progress,
        )
        return rearrange(mean, POSITIONS_TO_MAP, h=grid[0]), rearrange(std, POSITIONS_TO_MAP, h=grid[0])
