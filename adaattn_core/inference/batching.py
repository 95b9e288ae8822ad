"""A batch some items at a time: windows of nested tuples of tensors, smaller when memory runs out, and joined again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..ops.chunked_attention import CHUNK_BYTES
from ..runtime.memory import empty_cache, is_out_of_memory
from ..runtime.progress import ProgressCallback, sub_progress

WINDOW_PIXELS = 2**21
"""Batch items run together up to this many pixels; larger ones one by one."""

SMALLEST_BLOCK_BYTES = 2**20

T = TypeVar("T")


def each_tensor(value: T, change: Callable[[Tensor], Tensor]) -> T:
    """The same tuples and dicts with every tensor changed."""
    changed: T = _each(value, change)
    return changed


def _each(value: Any, change: Callable[[Tensor], Tensor]) -> Any:  # noqa: ANN401 (whatever was nested comes back)
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        return {key: _each(item, change) for key, item in value.items()}
    if isinstance(value, tuple):
        items = [_each(item, change) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    return value


def slice_batch(value: T, window: slice) -> T:
    """Some items of a batch; what is there once for all of them stays."""
    return each_tensor(value, lambda x: x if len(x) == 1 else x[window])


def concat_batches(parts: Sequence[T]) -> T:
    """Parts of a batch, one after the other: the inverse of `slice_batch`. What is no tensor comes from the first."""
    whole: T = _join(parts)
    return whole


def _join(parts: Sequence[Any]) -> Any:  # noqa: ANN401 (whatever was nested comes back)
    first = parts[0]
    if len(parts) == 1:
        return first
    if isinstance(first, Tensor):
        return torch.cat(list(parts))
    if isinstance(first, tuple):
        items = [_join(items) for items in zip(*parts, strict=True)]
        return type(first)(*items) if hasattr(first, "_fields") else tuple(items)
    return first


def run_batched(
    run: Callable[[slice, int, ProgressCallback | None], T],
    pictures: Tensor,
    *,
    chunk_bytes: int = CHUNK_BYTES,
    items: int | None = None,
    progress: ProgressCallback | None = None,
) -> list[T]:
    """Work on a batch, some items at a time; out of memory, half as many at once, then with blocks half as large.

    Args:
        run: takes the items, the memory for a block of attention weights, and what to tell of the progress.
        pictures: (B, C, H, W) the batch.
        chunk_bytes: to begin with; not made smaller than 1 MiB.
        items: at once, at most; None for as many as have WINDOW_PIXELS.
        progress: told the share of the whole that is done.
    """
    results: list[T] = []
    batch, done = len(pictures), 0
    size = items or batch_size_for(pictures)
    while done < batch:
        stop = min(done + size, batch)
        try:
            results.append(run(slice(done, stop), chunk_bytes, sub_progress(progress, done / batch, stop / batch)))
        except Exception as error:
            if not is_out_of_memory(error) or (stop - done == 1 and chunk_bytes <= SMALLEST_BLOCK_BYTES):
                raise
        else:
            done = stop
            if progress is not None:
                progress(done / batch)
            continue
        empty_cache()  # after the except block: the error holds on to what the failed attempt allocated
        size, chunk_bytes = ((stop - done) // 2, chunk_bytes) if stop - done > 1 else (1, chunk_bytes // 2)
    return results


def batch_size_for(pictures: Tensor) -> int:
    """As many items as have WINDOW_PIXELS, so that memory does not grow with the batch."""
    return max(1, WINDOW_PIXELS // (pictures.shape[-1] * pictures.shape[-2]))
