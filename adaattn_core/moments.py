"""Statistics of features: per channel, and per content position through attention. Pure functions.

Letters: B batch, C value channels, K key channels, H W grid, Nc content positions, Ns style positions.
Everything here computes in float32, or in float64 for float64 arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor, autocast
from torch.utils.checkpoint import checkpoint

from .parallel import at_once, each
from .screening import DROPPED, GATHERED_ROWS, ROWS, SMALLEST_PAIRS, Screen, flat, heaviest

Similarity = Literal["softmax", "cosine"]
SIMILARITIES: tuple[str, ...] = get_args(Similarity)

Progress = Callable[[float], None]
"""Called with the share of the work that is done, rising to 1; stops the work by raising."""

VARIANCE_EPSILON = 1e-5
NORM_EPSILON = 1e-5
STD_FLOOR = 1e-4
"""Attention standard deviations under this are returned as 0, with gradient 0: the root's slope there is unbounded,
and a variance of 1e-8 is below what float32 resolves for features of size 1."""

BLOCK_BYTES = 16 * 2**20
"""Memory for one block of attention weights: what stays in a processor's cache. Measured on 2 cores with 32 MiB of it,
16384 x 16384 positions: blocks of 16 MiB 1.7 s, of 32 to 128 MiB 2.4 s."""

DEVICE_BLOCK_BYTES = 256 * 2**20
"""The same on an accelerator, which wants large work: 4096 rows at once for a style of 512 x 512 pixels."""


def block_bytes_on(device: torch.device) -> int:
    """Memory for a block of attention weights that is the fastest there."""
    return BLOCK_BYTES if device.type == "cpu" else DEVICE_BLOCK_BYTES


def blocks_at_once(device: torch.device, block_bytes: int) -> int:
    """How many blocks are made at the same time: as many as there are threads, or one where blocks are smaller than
    they could be, since memory is short then."""
    return at_once(device) if block_bytes >= block_bytes_on(device) else 1


def channel_mean_std(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel over all positions: the statistics AdaIN matches.

    Differs from AdaIN's: the variance is unbiased and 1e-5 is added before the root, as in the
    published AdaAttN code, whose weights expect it.

    Args:
        features: (B, C, H, W), any range.

    Returns:
        mean, std: each (B, C, 1, 1) in float32; std >= sqrt(1e-5). One position alone has variance 0.
    """
    features = widened(features)
    unbiased = int(features.shape[-1] * features.shape[-2] > 1)
    variance, mean = torch.var_mean(features, dim=(2, 3), correction=unbiased, keepdim=True)
    return mean, (variance + VARIANCE_EPSILON).sqrt()


def normalize_channels(features: Tensor) -> Tensor:
    """Features with mean 0 and standard deviation 1 in each channel: `Norm` of the paper.

    Args:
        features: (B, C, H, W), any range.

    Returns:
        (B, C, H, W) float32.
    """
    mean, std = channel_mean_std(features)
    return (widened(features) - mean) / std


def attention_moments(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    similarity: Similarity = "softmax",
    temperature: float = 1.0,
    content_mask: Tensor | None = None,
    style_mask: Tensor | None = None,
    spread: Tensor | None = None,
    block_bytes: int = BLOCK_BYTES,
    progress: Progress | None = None,
) -> tuple[Tensor, Tensor]:
    """Attention-weighted mean and standard deviation of the values, for each content position.

    The mean is A v, the standard deviation sqrt(A v^2 - (A v)^2), with A = softmax(q . k / temperature) over style
    positions ("softmax") or A ~ (cos(q, k) + 1)^(1 / temperature) ("cosine", the video model). Rows of A are made in
    blocks and thrown away, again in the backward pass, so memory grows with Nc + Ns and not with their product; the
    result is exact. Values are centred on their mean over style positions first, which removes the cancellation in
    A v^2 - (A v)^2 without changing either moment.

    Source: Liu et al., ICCV 2021, equations 4 to 6. No 1/sqrt(K), as there.

    Args:
        query: (B, Nc, K).
        key: (B, Ns, K).
        value: (B, Ns, C).
        similarity: how logits become weights.
        temperature: > 0; 1 is neutral, higher mixes more style positions.
        content_mask: (B, Nc) bool or None. Positions where it is True attend only where `style_mask` is True; the
            others attend everywhere. None means True everywhere.
        style_mask: (B, Ns) bool or None (everywhere).
        spread: (B, Ns, C) or None (0): where a value is the mean of several, their variance around it.
        block_bytes: memory for a block of A.
        progress: told the share of the rows that are done after each block; what it raises ends the work. Not called
            while gradients are recorded.

    Returns:
        mean, std: each (B, Nc, C) in float32.

    Raises:
        ValueError: `style_mask` allows no position, or the temperature is not positive.
    """
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}; it must be above 0 (1 is neutral)")
    if style_mask is not None and not bool(style_mask.any(dim=1).all()):
        raise ValueError("the style mask is empty: no style position is left to attend to. Paint some of it white.")
    with autocast(query.device.type, enabled=False):
        query, key, value = widened(query), widened(key), widened(value)
        if similarity == "cosine":
            query, key = _unit(query), _unit(key)
        elif temperature != 1.0:
            query = query / temperature
        center = value.mean(dim=1, keepdim=True)
        if _worth_screening(query, key, similarity, content_mask):
            mean, std = _screened(query, key, value, center, spread, style_mask, block_bytes, progress)
            return mean.add_(center), std
        both = _with_squares(value, center, spread)
        mean, std = _blockwise(
            query, key, both, similarity, temperature, content_mask, style_mask, block_bytes, progress
        )
        return mean + center, std


def _with_squares(value: Tensor, center: Tensor, spread: Tensor | None) -> Tensor:
    """(..., C) -> (..., 2 C): values less their centre, and the (mean) squares of that."""
    if torch.is_grad_enabled():
        centered = value - center
        squares = centered.square()
        return torch.cat([centered, squares if spread is None else squares + spread], dim=-1)
    both = value.new_empty(*value.shape[:-1], 2 * value.shape[-1])  # filled in place: there is no second copy
    centered, squares = both.chunk(2, dim=-1)
    torch.sub(value, center, out=centered)
    torch.mul(centered, centered, out=squares)
    if spread is not None:
        squares += spread
    return both


def _blockwise(
    query: Tensor,
    key: Tensor,
    both: Tensor,
    similarity: Similarity,
    temperature: float,
    content_mask: Tensor | None,
    style_mask: Tensor | None,
    block_bytes: int,
    progress: Progress | None,
) -> tuple[Tensor, Tensor]:
    batch, positions = query.shape[:2]
    threads = 1 if torch.is_grad_enabled() else blocks_at_once(query.device, block_bytes)
    rows = max(16, block_bytes // (4 * batch * key.shape[1] * threads))
    windows = [slice(start, start + rows) for start in range(0, positions, rows)]

    def arguments(window: slice) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None, Similarity, float]:
        applies = None if content_mask is None else content_mask[:, window]
        return query[:, window], key, both, applies, style_mask, similarity, temperature

    if torch.is_grad_enabled():
        recompute = len(windows) > 1
        parts = [
            checkpoint(_moments, *arguments(window), use_reentrant=False) if recompute else _moments(*arguments(window))
            for window in windows
        ]
        mean, std = (torch.cat(part, dim=1) for part in zip(*parts, strict=True))
        return mean, std
    # Into place, block by block: small results kept between blocks would lie where the next block wants to, and the
    # process would grow by a block each time.
    mean, std = (query.new_empty(batch, positions, both.shape[-1] // 2) for _ in range(2))

    def fill(window: slice) -> None:
        mean[:, window], std[:, window] = _moments(*arguments(window))

    for window, _ in zip(windows, each(fill, windows, threads), strict=True):
        if progress is not None:
            progress(min(window.stop, positions) / positions)
    return mean, std


def _worth_screening(query: Tensor, key: Tensor, similarity: Similarity, content_mask: Tensor | None) -> bool:
    """Whether to look for the style positions that matter first: on processors, where small products are cheap."""
    large = query.shape[1] * key.shape[1] >= SMALLEST_PAIRS
    inference = not torch.is_grad_enabled() and query.device.type == "cpu"
    return inference and large and similarity == "softmax" and content_mask is None


def _screened(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    center: Tensor,
    spread: Tensor | None,
    style_mask: Tensor | None,
    block_bytes: int,
    progress: Progress | None,
) -> tuple[Tensor, Tensor]:
    """Softmax moments, the mean less `center`, from the style positions that matter to groups of content positions."""
    batch, positions = query.shape[:2]
    mean, std = (query.new_empty(batch, positions, value.shape[-1]) for _ in range(2))
    for item in range(batch):
        keys, values, spreads = key[item], value[item], None if spread is None else spread[item]
        if style_mask is not None:
            allowed = style_mask[item]
            keys, values, spreads = keys[allowed], values[allowed], None if spreads is None else spreads[allowed]
        rows = min(ROWS, max(16, block_bytes // (4 * len(keys))))
        screen = None if flat(query[item], keys) else Screen(query[item], keys, rows)
        told = None if progress is None else _of_batch(progress, item, batch)
        if screen is None or not screen.worthwhile():
            both = _with_squares(values, center[item], spreads)
            mean[item], std[item] = _blockwise(
                query[item, None], keys[None], both[None], "softmax", 1.0, None, None, block_bytes, told
            )
            continue
        work = partial(_group_moments, screen, query[item], keys, values, center[item], spreads)
        results = each(work, screen.groups.unbind(), blocks_at_once(query.device, block_bytes))
        for done, (group, found) in enumerate(zip(screen.groups, results, strict=True), 1):
            mean[item, group], std[item, group] = found
            if told is not None:
                told(done / len(screen.groups))
    return mean, std


def _of_batch(progress: Progress, item: int, batch: int) -> Progress:
    return lambda done: progress((item + done) / batch)


def _group_moments(
    screen: Screen, query: Tensor, key: Tensor, value: Tensor, center: Tensor, spread: Tensor | None, group: Tensor
) -> tuple[Tensor, Tensor]:
    """Softmax moments of a group of queries from the style positions that matter to it, gathered piece by piece."""
    rows, kept = query[group], screen.positions(group)
    weights = torch.cat([rows @ key[piece].T for piece in torch.split(kept, GATHERED_ROWS)], dim=1).softmax(dim=1)
    heavy = heaviest(weights.amax(dim=0), DROPPED / 2)
    kept, weights = kept[heavy], weights[:, heavy]
    sums = value.new_zeros(len(rows), 2 * value.shape[1])
    for piece, part in zip(torch.split(kept, GATHERED_ROWS), torch.split(weights, GATHERED_ROWS, dim=1), strict=True):
        sums.addmm_(part, _with_squares(value[piece], center, None if spread is None else spread[piece]))
    return _mean_std(sums)


def _moments(
    query: Tensor,
    key: Tensor,
    both: Tensor,
    content_mask: Tensor | None,
    style_mask: Tensor | None,
    similarity: Similarity,
    temperature: float,
) -> tuple[Tensor, Tensor]:
    logits = torch.bmm(query, key.transpose(1, 2))
    weights = _weights(logits, _blocked_pairs(content_mask, style_mask), similarity, temperature)
    return _mean_std(torch.bmm(weights, both))


def _mean_std(sums: Tensor) -> tuple[Tensor, Tensor]:
    """(..., 2 C): attended values and squares -> mean and standard deviation."""
    mean, square = sums.chunk(2, dim=-1)
    variance = square - mean.square()
    return mean, torch.threshold(variance, STD_FLOOR**2, 0.0).sqrt()


def _weights(logits: Tensor, blocked: Tensor | None, similarity: Similarity, temperature: float) -> Tensor:
    """Logits (cosines) to rows that sum to 1, 0 where `blocked`; softmax logits come divided by the temperature."""
    if similarity == "cosine" and temperature == 1.0:
        weights = torch.relu(logits + 1)
        if blocked is not None:
            weights = weights.masked_fill(blocked, 0.0)
        return weights / (weights.sum(dim=-1, keepdim=True) + NORM_EPSILON)
    if similarity == "cosine":  # a power by logarithm and softmax: 2 ** (1 / 0.005) is beyond float32
        logits = (logits + 1).clamp_min(torch.finfo(logits.dtype).tiny).log() / temperature
    if blocked is not None:
        logits = logits.masked_fill(blocked, -torch.inf)
    return logits.softmax(dim=-1)


def _blocked_pairs(content_mask: Tensor | None, style_mask: Tensor | None) -> Tensor | None:
    """(B, rows or 1, Ns) bool, True where a pair of positions may not attend; None when all may."""
    if style_mask is None:
        return None
    if content_mask is None:
        return ~style_mask[:, None, :]
    return content_mask[:, :, None] & ~style_mask[:, None, :]


def widened(x: Tensor) -> Tensor:
    """float32, unless it is float64 already."""
    return x if x.dtype == torch.float64 else x.float()


def _unit(vectors: Tensor) -> Tensor:
    """Vectors of length 1; 1e-5 is added to each length, as in the published video code."""
    lengths: Tensor = vectors.norm(dim=-1, keepdim=True)
    return vectors / (lengths + NORM_EPSILON)
