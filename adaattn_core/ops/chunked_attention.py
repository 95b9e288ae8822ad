"""Attention moments without the matrix of weights, for inference: in tiles, or from the style positions that matter.

A tile is some content positions by some style positions. Its weights are added to what the tiles before it summed, and
thrown away, so that memory grows with Nc + Ns and is bounded for any size of either. Letters as in moments.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from ..runtime.memory import malloc_trim
from ..runtime.progress import ProgressCallback
from ..runtime.threads import parallel_map, worker_count
from .key_pruning import CANDIDATES_PER_CHUNK, MAX_DROPPED_WEIGHT, MIN_RELATIVE_LOGIT, KeyPruner, drop_smallest, is_flat

WeightFn = Callable[["OnlineMoments", Tensor, Tensor | None], Tensor]
"""OnlineMoments, logits of a tile, and which of its pairs may not attend -> its weights, in the place of the logits."""

STD_FLOOR = 1e-4
"""Attention standard deviations under this are returned as 0, with gradient 0: the root's slope there is unbounded,
and a variance of 1e-8 is below what float32 resolves for features of size 1."""

CHUNK_BYTES = 16 * 2**20
"""Memory for what attention makes at one time, what stays in a processor's cache: half of it are tiles of weights."""

DEVICE_CHUNK_BYTES = 256 * 2**20
"""The same on an accelerator, which wants large work."""

SMALLEST_SIDE = 16


def default_chunk_bytes(device: torch.device) -> int:
    """The one of these that is the fastest there."""
    return CHUNK_BYTES if device.type == "cpu" else DEVICE_CHUNK_BYTES


def tile_workers(device: torch.device, chunk_bytes: int) -> int:
    """How many tiles are made at the same time: as many as there are threads, or one where they are smaller than they
    could be, since memory is short then."""
    return worker_count(device) if chunk_bytes >= default_chunk_bytes(device) else 1


class OnlineMoments:
    """Values and their squares, weighted and summed tile by tile for some content positions.

    Softmax weights are relative to the largest logit so far; what has been summed is scaled down when a larger one
    comes. Source: Milakov & Gimelshein, arXiv:1805.02867.

    Args:
        query: (..., R, K), the content positions.
        channels: C.
    """

    def __init__(self, query: Tensor, channels: int) -> None:
        self.sums = query.new_zeros(*query.shape[:-1], 2 * channels)
        self.total = query.new_zeros(*query.shape[:-1], 1)
        self.top = torch.full_like(self.total, torch.finfo(query.dtype).min)

    def softmax(self, logits: Tensor, blocked: Tensor | None = None) -> Tensor:
        """(..., R, S) logits -> weights, in their place; next to nothing, see `MIN_RELATIVE_LOGIT`, where `blocked`."""
        if blocked is not None:
            logits.masked_fill_(blocked, -torch.inf)
        top = torch.maximum(self.top, logits.amax(dim=-1, keepdim=True))
        scale = (self.top - top).exp_()
        self.sums.mul_(scale)
        self.total.mul_(scale)
        self.top = top
        return self.add_unnormalized(logits.sub_(top).clamp_min_(MIN_RELATIVE_LOGIT).exp_())

    def add_unnormalized(self, weights: Tensor) -> Tensor:
        """Weights as they are."""
        self.total.add_(weights.sum(dim=-1, keepdim=True))
        return weights

    def add(self, weights: Tensor, both: Tensor) -> None:
        """Weights (..., R, S) of values and squares (..., S, 2 C)."""
        add = torch.baddbmm if weights.dim() == 3 else torch.addmm  # not in place: flop counters know these
        add(self.sums, weights, both, out=self.sums)

    def moments(self, epsilon: float = 0.0) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, (..., R, C) each; `epsilon` is added to each row's sum of weights."""
        return mean_std(self.sums.div_(self.total.add_(epsilon)))


def mean_std(sums: Tensor) -> tuple[Tensor, Tensor]:
    """(..., 2 C): attended values and squares -> mean and standard deviation."""
    mean, square = sums.chunk(2, dim=-1)
    variance = square - mean.square()
    return mean, torch.threshold(variance, STD_FLOOR**2, 0.0).sqrt()


def values_and_squares(value: Tensor, center: Tensor, value_variance: Tensor | None) -> Tensor:
    """(..., C) -> (..., 2 C): values less their centre, and the (mean) squares of that."""
    if torch.is_grad_enabled():
        centered = value - center
        squares = centered.square()
        return torch.cat([centered, squares if value_variance is None else squares + value_variance], dim=-1)
    both = value.new_empty(*value.shape[:-1], 2 * value.shape[-1])  # filled in place: there is no second copy
    centered, squares = both.chunk(2, dim=-1)
    torch.sub(value, center, out=centered)
    torch.mul(centered, centered, out=squares)
    if value_variance is not None:
        squares += value_variance
    return both


def tiled_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    center: Tensor,
    value_variance: Tensor | None,
    weigh: WeightFn,
    blocked: Callable[[slice, slice], Tensor | None],
    *,
    epsilon: float = 0.0,
    chunk_bytes: int = CHUNK_BYTES,
    progress: ProgressCallback | None = None,
) -> tuple[Tensor, Tensor]:
    """Moments from all pairs of positions, the mean less `center`.

    Args:
        query, key, value, value_variance: as in `attention_moments`, (B, positions, .).
        center: (B, 1, C).
        weigh: logits to weights.
        blocked: which pairs of some content and style positions may not attend, see `WeightFn`.
        epsilon: see `OnlineMoments.moments`.
        chunk_bytes: see `CHUNK_BYTES`.
        progress: see `attention_moments`.
    """
    batch, positions = query.shape[:2]
    threads = tile_workers(query.device, chunk_bytes)
    pairs = chunk_bytes // (2 * query.element_size() * batch * threads)
    columns = min(key.shape[1], max(SMALLEST_SIDE, math.isqrt(pairs)))
    windows = _windows(positions, max(SMALLEST_SIDE, pairs // columns))
    # Into place, window by window: small results kept between tiles would lie where the next tile wants to, and the
    # process would grow by a tile each time.
    mean, std = (query.new_empty(batch, positions, value.shape[-1]) for _ in range(2))

    def fill(window: slice) -> None:
        rows = query[:, window]
        sums = OnlineMoments(rows, value.shape[-1])
        for piece in _windows(key.shape[1], columns):
            weights = weigh(sums, torch.bmm(rows, key[:, piece].mT), blocked(window, piece))
            spreads = None if value_variance is None else value_variance[:, piece]
            sums.add(weights, values_and_squares(value[:, piece], center, spreads))
        mean[:, window], std[:, window] = sums.moments(epsilon)

    for window, _ in zip(windows, parallel_map(fill, windows, threads), strict=True):
        if progress is not None:
            progress(min(window.stop, positions) / positions)
    return mean, std


def _windows(count: int, size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, count, size)]


def pruned_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    center: Tensor,
    value_variance: Tensor | None,
    style_mask: Tensor | None,
    chunk_bytes: int,
    progress: ProgressCallback | None,
) -> tuple[Tensor, Tensor]:
    """Softmax moments, the mean less `center`, from the style positions that matter to groups of content positions;
    from all of them where attention is too flat to leave any out. Arguments as in `tiled_attention`."""
    batch, positions = query.shape[:2]
    mean, std = (query.new_empty(batch, positions, value.shape[-1]) for _ in range(2))
    threads = tile_workers(query.device, chunk_bytes)
    for item in range(batch):
        keys, values, spreads = key[item], value[item], None if value_variance is None else value_variance[item]
        if style_mask is not None:
            allowed = style_mask[item]
            keys, values, spreads = keys[allowed], values[allowed], None if spreads is None else spreads[allowed]
        report = None if progress is None else _of_batch(progress, item, batch)
        screen = None if is_flat(query[item], keys) else KeyPruner(query[item], keys, tile_bytes=chunk_bytes // threads)
        if screen is None or not screen.is_worthwhile():
            del screen
            malloc_trim()
            mean[item], std[item] = tiled_attention(
                query[item, None], keys[None], values[None], center[item, None],
                None if spreads is None else spreads[None], OnlineMoments.softmax, lambda _, __: None,
                chunk_bytes=chunk_bytes, progress=report,
            )  # fmt: skip
            continue
        _ = screen.short_key  # once, not in each thread
        moments = partial(_group_moments, screen, query[item], keys, values, center[item], spreads)
        fill = partial(_fill, moments, mean[item], std[item])
        for done, _ in enumerate(parallel_map(fill, screen.groups.unbind(), threads), 1):
            if report is not None:
                report(done / len(screen.groups))
    return mean, std


def _fill(moments: Callable[[Tensor], tuple[Tensor, Tensor]], mean: Tensor, std: Tensor, group: Tensor) -> None:
    """By the thread that made them: a third one that scatters results waits for a core, and others wait for it."""
    mean[group], std[group] = moments(group)


def _of_batch(progress: ProgressCallback, item: int, batch: int) -> ProgressCallback:
    return lambda done: progress((item + done) / batch)


def _group_moments(
    screen: KeyPruner,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    center: Tensor,
    value_variance: Tensor | None,
    group: Tensor,
) -> tuple[Tensor, Tensor]:
    """Softmax moments of a group of queries from the style positions that matter to it, gathered piece by piece.

    A weight relative to the largest logit so far is at least the final one, so what is left out of the values' sums by
    it weighs no more than it seems to.
    """
    rows = query.index_select(0, group)
    sums = OnlineMoments(rows, value.shape[1])
    pieces = torch.split(screen.candidates(group), CANDIDATES_PER_CHUNK)
    for piece in pieces:
        weights = sums.softmax(rows @ key.index_select(0, piece).T)
        heavy = drop_smallest(weights.amax(dim=0), MAX_DROPPED_WEIGHT / 2 / len(pieces))
        chosen = piece[heavy]
        spreads = None if value_variance is None else value_variance.index_select(0, chosen)
        chosen_values = value.index_select(0, chosen)
        sums.add(weights.index_select(1, heavy), values_and_squares(chosen_values, center, spreads))
    return sums.moments()
