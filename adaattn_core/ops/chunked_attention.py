"""Attention moments without the full weight matrix, for inference: from all key tiles, or from unpruned keys only.

A tile is a block of content positions by a block of style positions. Its weights are added to running sums and then
discarded, so memory grows with Nc + Ns and is bounded at any size. Shape letters as in moments.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from ..runtime.memory import malloc_trim
from ..runtime.progress import ProgressCallback, sub_progress
from ..runtime.threads import parallel_map, worker_count
from .key_pruning import CANDIDATES_PER_CHUNK, MAX_DROPPED_WEIGHT, MIN_RELATIVE_LOGIT, KeyPruner, drop_smallest, is_flat

WeightFn = Callable[["OnlineMoments", Tensor, Tensor | None], Tensor]
"""Running sums, logits of a tile, mask of its blocked pairs (or None) -> weights, written over the logits."""

BlockedPairs = Callable[[slice, slice], Tensor | None]
"""Content and style positions of a tile -> bool mask of pairs that may not attend, or None if all may."""

STD_FLOOR = 1e-4
"""Attention standard deviations below this are returned as 0, with gradient 0: the slope of the square root is
unbounded there, and a variance of 1e-8 is below the resolution of float32 for features of size 1."""

CHUNK_BYTES = 16 * 2**20
"""Memory for the tensors of attention that exist at one time, within a CPU's cache; half of it for tiles of weights."""

DEVICE_CHUNK_BYTES = 256 * 2**20
"""The same on an accelerator, which needs large kernels."""

MIN_TILE_SIDE = 16


def default_chunk_bytes(device: torch.device) -> int:
    """The fastest chunk size on a device."""
    return CHUNK_BYTES if device.type == "cpu" else DEVICE_CHUNK_BYTES


def tile_workers(device: torch.device, chunk_bytes: int) -> int:
    """Number of tiles computed in parallel: one per thread, but a single one where memory is short, that is where
    chunks are smaller than the default."""
    return worker_count(device) if chunk_bytes >= default_chunk_bytes(device) else 1


class AttentionInputs(NamedTuple):
    """Operands of attention in float32 or float64; without the batch axis for a single item."""

    query: Tensor
    """(B, Nc, K)."""
    key: Tensor
    """(B, Ns, K)."""
    value: Tensor
    """(B, Ns, C)."""
    center: Tensor
    """(B, 1, C), subtracted from the values."""
    value_variance: Tensor | None
    """(B, Ns, C) or None; see `attention_moments`."""

    def item(self, index: int, style_mask: Tensor | None) -> AttentionInputs:
        """One item of the batch, with the allowed style positions only."""
        allowed = slice(None) if style_mask is None else style_mask[index]
        key, value = self.key[index][allowed], self.value[index][allowed]
        variance = None if self.value_variance is None else self.value_variance[index][allowed]
        return AttentionInputs(self.query[index], key, value, self.center[index], variance)

    def unsqueeze(self) -> AttentionInputs:
        """A single item as a batch of 1."""
        variance = None if self.value_variance is None else self.value_variance[None]
        return AttentionInputs(self.query[None], self.key[None], self.value[None], self.center[None], variance)

    def empty_moments(self) -> tuple[Tensor, Tensor]:
        """Uninitialised mean and standard deviation, (B, Nc, C) each."""
        size = (*self.query.shape[:2], self.value.shape[-1])
        return self.query.new_empty(size), self.query.new_empty(size)


class OnlineMoments:
    """Running weighted sums of values and their squares, tile by tile, for a block of content positions.

    Softmax weights are relative to the largest logit so far; the sums are rescaled when a larger one appears.
    Source: Milakov & Gimelshein, arXiv:1805.02867.

    Args:
        query: (..., R, K), the content positions.
        channels: C.
    """

    def __init__(self, query: Tensor, channels: int) -> None:
        self.sums = query.new_zeros(*query.shape[:-1], 2 * channels)
        self.total = query.new_zeros(*query.shape[:-1], 1)
        self.max_logit = torch.full_like(self.total, torch.finfo(query.dtype).min)

    def softmax(self, logits: Tensor, blocked: Tensor | None = None) -> Tensor:
        """(..., R, S) logits -> weights, in place; negligible where `blocked`, see MIN_RELATIVE_LOGIT."""
        if blocked is not None:
            logits.masked_fill_(blocked, -torch.inf)
        max_logit = torch.maximum(self.max_logit, logits.amax(dim=-1, keepdim=True))
        scale = (self.max_logit - max_logit).exp_()
        self.sums.mul_(scale)
        self.total.mul_(scale)
        self.max_logit = max_logit
        return self.add_unnormalized(logits.sub_(max_logit).clamp_min_(MIN_RELATIVE_LOGIT).exp_())

    def add_unnormalized(self, weights: Tensor) -> Tensor:
        """Count weights that are not relative to a maximum; returns them unchanged."""
        self.total.add_(weights.sum(dim=-1, keepdim=True))
        return weights

    def add(self, weights: Tensor, values: Tensor) -> None:
        """Add weights (..., R, S) times values and squares (..., S, 2 C)."""
        add = torch.baddbmm if weights.dim() == 3 else torch.addmm  # not in place: flop counters know these
        add(self.sums, weights, values, out=self.sums)

    def moments(self, epsilon: float = 0.0) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, (..., R, C) each; `epsilon` is added to the sum of each row's weights."""
        return mean_std(self.sums.div_(self.total.add_(epsilon)))


def mean_std(sums: Tensor) -> tuple[Tensor, Tensor]:
    """(..., 2 C) attended values and squares -> mean and standard deviation, (..., C) each."""
    mean, square = sums.chunk(2, dim=-1)
    variance = square - mean.square()
    return mean, torch.threshold(variance, STD_FLOOR**2, 0.0).sqrt()


def values_and_squares(value: Tensor, center: Tensor, value_variance: Tensor | None) -> Tensor:
    """(..., C) -> (..., 2 C): centred values, and their squares plus the variance within each value."""
    if torch.is_grad_enabled():
        centered = value - center
        squares = centered.square()
        return torch.cat([centered, squares if value_variance is None else squares + value_variance], dim=-1)
    output = value.new_empty(*value.shape[:-1], 2 * value.shape[-1])  # filled in place: no second copy
    centered, squares = output.chunk(2, dim=-1)
    torch.sub(value, center, out=centered)
    torch.mul(centered, centered, out=squares)
    if value_variance is not None:
        squares += value_variance
    return output


def tiled_attention(
    inputs: AttentionInputs,
    weight_fn: WeightFn,
    blocked_pairs: BlockedPairs,
    *,
    epsilon: float = 0.0,
    chunk_bytes: int = CHUNK_BYTES,
    progress: ProgressCallback | None = None,
) -> tuple[Tensor, Tensor]:
    """Moments from all pairs of positions.

    Args:
        inputs: a batch.
        weight_fn: logits to weights.
        blocked_pairs: pairs that may not attend.
        epsilon: see `OnlineMoments.moments`.
        chunk_bytes: see CHUNK_BYTES.
        progress: see `attention_moments`.

    Returns:
        mean minus `center`, std: (B, Nc, C) each.
    """
    query, key, value, center, value_variance = inputs
    batch, positions = query.shape[:2]
    threads = tile_workers(query.device, chunk_bytes)
    pairs = chunk_bytes // (2 * query.element_size() * batch * threads)
    columns = min(key.shape[1], max(MIN_TILE_SIDE, math.isqrt(pairs)))
    row_slices = _slices(positions, max(MIN_TILE_SIDE, pairs // columns))
    # Results are written in place: small tensors kept between tiles would fragment the heap, which would grow by a tile
    # each time.
    mean, std = inputs.empty_moments()

    def fill(rows: slice) -> None:
        queries = query[:, rows]
        sums = OnlineMoments(queries, value.shape[-1])
        for keys in _slices(key.shape[1], columns):
            weights = weight_fn(sums, torch.bmm(queries, key[:, keys].mT), blocked_pairs(rows, keys))
            variance = None if value_variance is None else value_variance[:, keys]
            sums.add(weights, values_and_squares(value[:, keys], center, variance))
        mean[:, rows], std[:, rows] = sums.moments(epsilon)

    for rows, _ in zip(row_slices, parallel_map(fill, row_slices, threads), strict=True):
        if progress is not None:
            progress(min(rows.stop, positions) / positions)
    return mean, std


def _slices(count: int, size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, count, size)]


def pruned_attention(
    inputs: AttentionInputs, style_mask: Tensor | None, chunk_bytes: int, progress: ProgressCallback | None
) -> tuple[Tensor, Tensor]:
    """Softmax moments from the keys that `KeyPruner` keeps for each group of queries.

    Items whose attention is too flat for pruning fall back to `tiled_attention`.

    Args:
        inputs: a batch.
        style_mask: (B, Ns) bool or None.
        chunk_bytes, progress: as in `tiled_attention`.

    Returns:
        mean minus `center`, std: (B, Nc, C) each.
    """
    batch = len(inputs.query)
    mean, std = inputs.empty_moments()
    for index in range(batch):
        item = inputs.item(index, style_mask)
        item_progress = sub_progress(progress, index / batch, (index + 1) / batch)
        pruner = _worthwhile_pruner(item, chunk_bytes)
        if pruner is None:
            malloc_trim()
            mean[index], std[index] = tiled_attention(
                item.unsqueeze(),
                OnlineMoments.softmax,
                lambda *_: None,
                chunk_bytes=chunk_bytes,
                progress=item_progress,
            )
            continue
        _ = pruner.short_key  # computed once here, not in each thread
        moments = partial(_group_moments, pruner, item)
        fill = partial(_fill, moments, mean[index], std[index])
        threads = tile_workers(item.query.device, chunk_bytes)
        for done, _ in enumerate(parallel_map(fill, pruner.groups.unbind(), threads), 1):
            if item_progress is not None:
                item_progress(done / len(pruner.groups))
    return mean, std


def _worthwhile_pruner(item: AttentionInputs, chunk_bytes: int) -> KeyPruner | None:
    """A pruner for one item, or None where pruning would cost more than it saves."""
    if is_flat(item.query, item.key):
        return None
    threads = tile_workers(item.query.device, chunk_bytes)
    pruner = KeyPruner(item.query, item.key, tile_bytes=chunk_bytes // threads)
    return pruner if pruner.is_worthwhile() else None


def _fill(moments: Callable[[Tensor], tuple[Tensor, Tensor]], mean: Tensor, std: Tensor, group: Tensor) -> None:
    """Write a group's moments in the thread that computed them: another thread would have to wait for a core."""
    mean[group], std[group] = moments(group)


def _group_moments(pruner: KeyPruner, item: AttentionInputs, group: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax moments of a group of queries from its candidate keys, chunk by chunk.

    Keys whose largest weight so far is negligible are left out of the values' sums. Weights relative to the largest
    logit so far are at least the final ones, so the final weight of the dropped keys is bounded too.
    """
    query = item.query.index_select(0, group)
    sums = OnlineMoments(query, item.value.shape[1])
    chunks = torch.split(pruner.candidates(group), CANDIDATES_PER_CHUNK)
    for chunk in chunks:
        weights = sums.softmax(query @ item.key.index_select(0, chunk).T)
        kept = drop_smallest(weights.amax(dim=0), MAX_DROPPED_WEIGHT / 2 / len(chunks))
        positions = chunk[kept]
        variance = None if item.value_variance is None else item.value_variance.index_select(0, positions)
        values = values_and_squares(item.value.index_select(0, positions), item.center, variance)
        sums.add(weights.index_select(1, kept), values)
    return sums.moments()
