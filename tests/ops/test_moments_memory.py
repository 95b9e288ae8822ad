"""Memory of attention moments: no tensor is as large as the matrix of weights, forward, backward and between."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from adaattn_core.ops.chunked_attention import CHUNK_BYTES
from adaattn_core.ops.key_pruning import KeyPruner
from adaattn_core.ops.moments import (
    SIMILARITIES,
    AttentionKernel,
    AttentionMasks,
    Similarity,
    attention_moments,
)
from tests.helpers.random_tensors import normals

TINY_BLOCKS = 1
"""chunk_bytes that gives the smallest blocks there are: 16 content positions."""


MATRIX_BYTES = 4 * 200 * 500
"""One float32 attention matrix of the cases below."""


class LargestTensor(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operation below autograd, those of the backward pass too; `numel` is the largest result so far."""

    numel = 0

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self.numel = max([self.numel, *(x.numel() for x in tree_leaves(result) if isinstance(x, Tensor))])
        return result


def largest_and_kept(similarity: Similarity, chunk_bytes: int) -> tuple[int, int]:
    """For 200 x 500 positions: elements of the largest tensor made, forward or backward, and bytes kept in between."""
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        kept[storage.data_ptr()] = storage
        return x

    query, key, value = (normals(1, n, 2, seed=n).requires_grad_() for n in (200, 500, 501))
    content_mask, style_mask = (torch.ones(1, positions, dtype=torch.bool) for positions in (200, 500))
    with LargestTensor() as largest:  # type: ignore[no-untyped-call]
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            mean, std = attention_moments(
                query, key, value[:, :500], kernel=AttentionKernel(similarity, 2),
                masks=AttentionMasks(content_mask, style_mask), chunk_bytes=chunk_bytes,
            )  # fmt: skip
        kept_bytes = sum(storage.nbytes() for storage in kept.values())
        torch.autograd.grad((mean.sum() + std.sum()), (query, key, value))
    return largest.numel, kept_bytes


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_memory_is_bounded_forward_and_backward(similarity: Similarity) -> None:
    """No tensor of the backward or forward pass has more than a block's rows, and no block is kept for the backward."""
    largest, kept = largest_and_kept(similarity, TINY_BLOCKS)
    assert largest <= 16 * 500
    assert kept < MATRIX_BYTES / 10
    largest, kept = largest_and_kept(similarity, chunk_bytes=4 * 500 * 40)
    assert 40 * 500 <= largest < 200 * 500 / 2
    assert kept < MATRIX_BYTES / 10


@pytest.mark.parametrize("similarity", SIMILARITIES)
@torch.no_grad()
def test_memory_is_bounded_without_gradients(similarity: Similarity) -> None:
    """By what comes in: no tile of weights is larger than the keys."""
    query, key, value = (normals(1, n, 2, seed=n) for n in (200, 500, 500))
    kernel, masks = AttentionKernel(similarity), AttentionMasks(style=torch.arange(500)[None] % 2 == 0)
    with LargestTensor() as largest:  # type: ignore[no-untyped-call]
        attention_moments(query, key, value, kernel=kernel, masks=masks, chunk_bytes=TINY_BLOCKS)
    assert largest.numel <= 2 * 500


@torch.no_grad()
def test_memory_is_bounded_where_style_positions_are_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds and weights of a group are made in pieces, so that it has as many rows for any number of positions."""
    for limit in ("MIN_PAIRS", "MIN_PAIRS_PER_MATRIX_ENTRY"):
        monkeypatch.setattr(f"adaattn_core.ops.moments.{limit}", 0)
    monkeypatch.setattr("adaattn_core.ops.chunked_attention.CANDIDATES_PER_CHUNK", 64)
    monkeypatch.setattr("adaattn_core.ops.key_pruning.BREADTH_SAMPLES", 16)
    query, key, value = 4 * normals(1, 600, 8, seed=1), 4 * normals(1, 3000, 8, seed=2), normals(1, 3000, 4, seed=3)
    assert KeyPruner(query[0], key[0]).is_worthwhile()
    with LargestTensor() as largest:  # type: ignore[no-untyped-call]
        attention_moments(query, key, value, chunk_bytes=2**16)
    assert largest.numel <= 3000 * 9  # keys and what they lack in length; a group with all of them is 128 x 3000


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_the_memory_test_can_fail(similarity: Similarity) -> None:
    largest, kept = largest_and_kept(similarity, CHUNK_BYTES)
    assert largest >= 200 * 500
    assert kept >= MATRIX_BYTES
