"""Statistics of features: per channel, and per content position through attention. Pure functions.

Letters: B batch, C value channels, K key channels, H W grid, Nc content positions, Ns style positions.
Everything here computes in float32, or in float64 for float64 arguments.
"""

from __future__ import annotations

from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..runtime.device import without_autocast
from ..runtime.progress import ProgressCallback
from .chunked_attention import (
    CHUNK_BYTES,
    OnlineMoments,
    mean_std,
    pruned_attention,
    tiled_attention,
    values_and_squares,
)
from .key_pruning import MIN_PAIRS, MIN_PAIRS_PER_MATRIX_ENTRY, MIN_RELATIVE_LOGIT
from .statistics import to_float32

Similarity = Literal["softmax", "cosine"]
SIMILARITIES: tuple[str, ...] = get_args(Similarity)
NORM_EPSILON = 1e-5


def attention_moments(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    similarity: Similarity = "softmax",
    temperature: float = 1.0,
    content_mask: Tensor | None = None,
    style_mask: Tensor | None = None,
    value_variance: Tensor | None = None,
    chunk_bytes: int = CHUNK_BYTES,
    progress: ProgressCallback | None = None,
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
        value_variance: (B, Ns, C) or None (0): where a value is the mean of several, their variance around it.
        chunk_bytes: memory for what is made at one time, blocks of A among it.
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
    with without_autocast(query.device.type):
        query, key, value = to_float32(query), to_float32(key), to_float32(value)
        if similarity == "cosine":
            query, key = unit_vectors(query), unit_vectors(key)
        elif temperature != 1.0:
            query = query / temperature
        center = value.mean(dim=1, keepdim=True)
        if torch.is_grad_enabled():
            both = values_and_squares(value, center, value_variance)
            mean, std = _checkpointed(query, key, both, similarity, temperature, content_mask, style_mask, chunk_bytes)
            return mean + center, std
        if _worth_screening(query, key, similarity, content_mask):
            mean, std = pruned_attention(query, key, value, center, value_variance, style_mask, chunk_bytes, progress)
        else:
            weigh = partial(_weigh, similarity, temperature)
            blocked = partial(_blocked_tile, content_mask, style_mask)
            epsilon = NORM_EPSILON if _is_linear_kernel(similarity, temperature) else 0.0
            mean, std = tiled_attention(
                query, key, value, center, value_variance, weigh, blocked, epsilon=epsilon, chunk_bytes=chunk_bytes,
                progress=progress,
            )  # fmt: skip
        return mean.add_(center), std


def _checkpointed(
    query: Tensor,
    key: Tensor,
    both: Tensor,
    similarity: Similarity,
    temperature: float,
    content_mask: Tensor | None,
    style_mask: Tensor | None,
    chunk_bytes: int,
) -> tuple[Tensor, Tensor]:
    """With gradients: rows of weights in blocks, made again in the backward pass."""
    batch, positions = query.shape[:2]
    rows = max(16, chunk_bytes // (4 * batch * key.shape[1]))
    windows = [slice(start, start + rows) for start in range(0, positions, rows)]

    def moments(window: slice) -> tuple[Tensor, Tensor]:
        applies = None if content_mask is None else content_mask[:, window]
        arguments = query[:, window], key, both, applies, style_mask, similarity, temperature
        return checkpoint(_moments, *arguments, use_reentrant=False) if len(windows) > 1 else _moments(*arguments)

    mean, std = (torch.cat(part, dim=1) for part in zip(*map(moments, windows), strict=True))
    return mean, std


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
    weights = attention_weights(logits, _blocked_pairs(content_mask, style_mask), similarity, temperature)
    return mean_std(torch.bmm(weights, both))


def _worth_screening(query: Tensor, key: Tensor, similarity: Similarity, content_mask: Tensor | None) -> bool:
    """Whether to look for the style positions that matter first: on processors, where small products are cheap."""
    large = query.shape[1] * key.shape[1] >= max(MIN_PAIRS, MIN_PAIRS_PER_MATRIX_ENTRY * key.shape[2] ** 2)
    return query.device.type == "cpu" and large and similarity == "softmax" and content_mask is None


def _is_linear_kernel(similarity: Similarity, temperature: float) -> bool:
    """Whether weights are not exponentials: (cos + 1), which are divided by their sum and 1e-5, as published."""
    return similarity == "cosine" and temperature == 1.0


def attention_weights(logits: Tensor, blocked: Tensor | None, similarity: Similarity, temperature: float) -> Tensor:
    """Logits (cosines) to rows that sum to 1, next to nothing where `blocked`; softmax ones are divided by the
    temperature already."""
    if _is_linear_kernel(similarity, temperature):
        weights = torch.relu(logits + 1)
        if blocked is not None:
            weights = weights.masked_fill(blocked, 0.0)
        return weights / (weights.sum(dim=-1, keepdim=True) + NORM_EPSILON)
    if similarity == "cosine":  # a power by logarithm and softmax: 2 ** (1 / 0.005) is beyond float32
        logits = (logits + 1).clamp_min(torch.finfo(logits.dtype).tiny).log() / temperature
    if blocked is not None:
        logits = logits.masked_fill(blocked, -torch.inf)
    if logits.device.type == "cpu":  # accelerators do not mind subnormal numbers
        logits = logits.maximum(logits.detach().amax(dim=-1, keepdim=True) + MIN_RELATIVE_LOGIT)
    return logits.softmax(dim=-1)


def _weigh(
    similarity: Similarity, temperature: float, sums: OnlineMoments, logits: Tensor, blocked: Tensor | None
) -> Tensor:
    """`attention_weights` of a tile, in the place of its logits; they are divided by their sum in the end."""
    if _is_linear_kernel(similarity, temperature):
        weights = logits.add_(1).relu_()
        return sums.add_unnormalized(weights if blocked is None else weights.masked_fill_(blocked, 0.0))
    if similarity == "cosine":
        logits.add_(1).clamp_min_(torch.finfo(logits.dtype).tiny).log_().div_(temperature)
    return sums.softmax(logits, blocked)


def _blocked_tile(content_mask: Tensor | None, style_mask: Tensor | None, rows: slice, columns: slice) -> Tensor | None:
    return _blocked_pairs(
        None if content_mask is None else content_mask[:, rows], None if style_mask is None else style_mask[:, columns]
    )


def _blocked_pairs(content_mask: Tensor | None, style_mask: Tensor | None) -> Tensor | None:
    """(B, rows or 1, Ns) bool, True where a pair of positions may not attend; None when all may."""
    if style_mask is None:
        return None
    if content_mask is None:
        return ~style_mask[:, None, :]
    return content_mask[:, :, None] & ~style_mask[:, None, :]


def unit_vectors(vectors: Tensor) -> Tensor:
    """Vectors of length 1; 1e-5 is added to each length, as in the published video code."""
    lengths: Tensor = vectors.norm(dim=-1, keepdim=True)
    return vectors / (lengths + NORM_EPSILON)
