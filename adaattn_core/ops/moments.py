"""Attention moments: mean and standard deviation of the style's values for each content position. Pure functions.

Shape letters: B batch, C value channels, K key channels, H W grid, Nc content positions, Ns style positions.
Everything here computes in float32, or in float64 for float64 arguments.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..runtime.device import without_autocast
from ..runtime.progress import ProgressCallback
from .chunked_attention import (
    CHUNK_BYTES,
    AttentionInputs,
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


@dataclass(frozen=True)
class AttentionKernel:
    """How attention weights follow from logits.

    Raises:
        ValueError: the temperature is not positive.
    """

    similarity: Similarity = "softmax"
    """"softmax": A = softmax(q . k / temperature) over style positions; "cosine", the video model's:
    A ~ (cos(q, k) + 1)^(1 / temperature)."""
    temperature: float = 1.0
    """> 0; 1 is neutral, higher values mix more style positions."""

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature is {self.temperature}; it must be above 0 (1 is neutral)")

    @property
    def is_linear(self) -> bool:
        """Whether weights are (cos + 1) instead of exponentials, divided by their sum plus 1e-5, as published."""
        return self.similarity == "cosine" and self.temperature == 1.0


SOFTMAX = AttentionKernel()


class AttentionMasks(NamedTuple):
    """Content positions where `content` is True attend only where `style` is True; the others attend everywhere."""

    content: Tensor | None = None
    """(B, Nc) bool or None: True everywhere."""
    style: Tensor | None = None
    """(B, Ns) bool or None: True everywhere."""

    def blocked_pairs(self, rows: slice = slice(None), columns: slice = slice(None)) -> Tensor | None:
        """(B, rows or 1, columns) bool, True where a pair of positions may not attend; None if all may."""
        if self.style is None:
            return None
        forbidden = ~self.style[:, None, columns]
        return forbidden if self.content is None else self.content[:, rows, None] & forbidden


NO_MASKS = AttentionMasks()


def attention_moments(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    kernel: AttentionKernel = SOFTMAX,
    masks: AttentionMasks = NO_MASKS,
    value_variance: Tensor | None = None,
    chunk_bytes: int = CHUNK_BYTES,
    progress: ProgressCallback | None = None,
) -> tuple[Tensor, Tensor]:
    """Attention-weighted mean and standard deviation of the values, for each content position.

    The mean is A v, the standard deviation sqrt(A v^2 - (A v)^2), with the weights A of the kernel. A is computed in
    chunks that are discarded, and again in the backward pass, so memory grows with Nc + Ns and not with their product;
    the result is exact. Values are first centred on their mean over style positions, which avoids the cancellation in
    A v^2 - (A v)^2 without changing either moment.

    Source: Liu et al., ICCV 2021, equations 4 to 6. No 1/sqrt(K), as there.

    Args:
        query: (B, Nc, K).
        key: (B, Ns, K).
        value: (B, Ns, C).
        kernel: how weights follow from logits.
        masks: which pairs of positions may attend.
        value_variance: (B, Ns, C) or None (0): the variance within a value that is itself a mean of several.
        chunk_bytes: memory for the tensors that exist at one time, chunks of A included.
        progress: called with the completed fraction after each chunk; not called while gradients are recorded.

    Returns:
        mean, std: each (B, Nc, C) in float32.

    Raises:
        ValueError: the style mask allows no position.
    """
    if masks.style is not None and not bool(masks.style.any(dim=1).all()):
        raise ValueError("the style mask is empty: no style position is left to attend to. Paint some of it white.")
    with without_autocast(query.device.type):
        query, key, value = to_float32(query), to_float32(key), to_float32(value)
        if kernel.similarity == "cosine":
            query, key = unit_vectors(query), unit_vectors(key)
        elif kernel.temperature != 1.0:
            query = query / kernel.temperature
        center = value.mean(dim=1, keepdim=True)
        if torch.is_grad_enabled():
            values = values_and_squares(value, center, value_variance)
            mean, std = _checkpointed(query, key, values, kernel, masks, chunk_bytes)
            return mean + center, std
        inputs = AttentionInputs(query, key, value, center, value_variance)
        if _may_prune(inputs, kernel, masks):
            mean, std = pruned_attention(inputs, masks.style, chunk_bytes, progress)
        else:
            mean, std = tiled_attention(
                inputs,
                partial(_tile_weights, kernel),
                masks.blocked_pairs,
                epsilon=NORM_EPSILON if kernel.is_linear else 0.0,
                chunk_bytes=chunk_bytes,
                progress=progress,
            )
        return mean.add_(center), std


def _checkpointed(
    query: Tensor, key: Tensor, values: Tensor, kernel: AttentionKernel, masks: AttentionMasks, chunk_bytes: int
) -> tuple[Tensor, Tensor]:
    """Moments with gradients, in chunks of content positions that are recomputed in the backward pass."""
    batch, positions = query.shape[:2]
    rows = max(16, chunk_bytes // (4 * batch * key.shape[1]))
    chunks = [slice(start, start + rows) for start in range(0, positions, rows)]

    def moments(chunk: slice) -> tuple[Tensor, Tensor]:
        arguments = query[:, chunk], key, values, kernel, masks, chunk
        return checkpoint(_moments, *arguments, use_reentrant=False) if len(chunks) > 1 else _moments(*arguments)

    mean, std = (torch.cat(parts, dim=1) for parts in zip(*map(moments, chunks), strict=True))
    return mean, std


def _moments(
    query: Tensor, key: Tensor, values: Tensor, kernel: AttentionKernel, masks: AttentionMasks, rows: slice
) -> tuple[Tensor, Tensor]:
    """Moments of the content positions `rows`, whose queries are `query`."""
    logits = torch.bmm(query, key.transpose(1, 2))
    weights = attention_weights(logits, masks.blocked_pairs(rows), kernel)
    return mean_std(torch.bmm(weights, values))


def _may_prune(inputs: AttentionInputs, kernel: AttentionKernel, masks: AttentionMasks) -> bool:
    """Whether pruning keys can pay off: large inputs, softmax, and the CPU, where small products are cheap."""
    positions, (keys, channels) = inputs.query.shape[1], inputs.key.shape[1:]
    large = positions * keys >= max(MIN_PAIRS, MIN_PAIRS_PER_MATRIX_ENTRY * channels**2)
    return inputs.query.device.type == "cpu" and large and kernel.similarity == "softmax" and masks.content is None


def attention_weights(logits: Tensor, blocked: Tensor | None, kernel: AttentionKernel = SOFTMAX) -> Tensor:
    """Attention weights from logits (for "cosine": from cosines).

    Args:
        logits: (B, rows, Ns); for "softmax" already divided by the temperature.
        blocked: bool, True where a pair may not attend, broadcast over the logits; or None.

    Returns:
        (B, rows, Ns), rows sum to 1; negligible where `blocked`.
    """
    if kernel.is_linear:
        weights = torch.relu(logits + 1)
        if blocked is not None:
            weights = weights.masked_fill(blocked, 0.0)
        return weights / (weights.sum(dim=-1, keepdim=True) + NORM_EPSILON)
    if kernel.similarity == "cosine":  # a power by logarithm and softmax: 2 ** (1 / 0.005) exceeds float32
        logits = (logits + 1).clamp_min(torch.finfo(logits.dtype).tiny).log() / kernel.temperature
    if blocked is not None:
        logits = logits.masked_fill(blocked, -torch.inf)
    if logits.device.type == "cpu":  # subnormal numbers are slow on CPUs only
        logits = logits.maximum(logits.detach().amax(dim=-1, keepdim=True) + MIN_RELATIVE_LOGIT)
    return logits.softmax(dim=-1)


def _tile_weights(kernel: AttentionKernel, sums: OnlineMoments, logits: Tensor, blocked: Tensor | None) -> Tensor:
    """`attention_weights` of a tile, in place of its logits and not yet divided by their sum."""
    if kernel.is_linear:
        weights = logits.add_(1).relu_()
        return sums.add_unnormalized(weights if blocked is None else weights.masked_fill_(blocked, 0.0))
    if kernel.similarity == "cosine":
        logits.add_(1).clamp_min_(torch.finfo(logits.dtype).tiny).log_().div_(kernel.temperature)
    return sums.softmax(logits, blocked)


def unit_vectors(vectors: Tensor) -> Tensor:
    """Vectors of length 1; 1e-5 is added to each length, as in the published video code."""
    lengths: Tensor = vectors.norm(dim=-1, keepdim=True)
    return vectors / (lengths + NORM_EPSILON)
