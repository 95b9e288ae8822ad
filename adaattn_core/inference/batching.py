"""A batch in parts: as many items at a time as fit into memory, and nested tuples of tensors cut and joined again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_map, tree_map_only

from ..runtime.memory import empty_cache, is_out_of_memory
from ..runtime.progress import ProgressCallback, sub_progress
from .memory_budget import DEFAULT_SIZES, ChunkSizes

BATCH_PIXELS = 2**21
"""Items run together up to this many pixels; larger ones one by one."""

MIN_RETRY_CHUNK_BYTES = 2**20
"""When memory runs out with one item and chunks of this size, the error is raised."""

T = TypeVar("T")


def slice_batch(value: T, items: slice) -> T:
    """Some items of a batch.

    Args:
        value: nested tuples and dicts of tensors, the batch first; a tensor of batch 1 serves all items and stays.
        items: which ones.
    """
    sliced: T = tree_map_only(Tensor, lambda x: x if len(x) == 1 else x[items], value)
    return sliced


def concat_batches(parts: Sequence[T]) -> T:
    """The inverse of `slice_batch`. Values that are not tensors are taken from the first part."""
    if len(parts) == 1:
        return parts[0]
    whole: T = tree_map(_concat, parts[0], *parts[1:])
    return whole


def _concat(*values: Any) -> Any:  # noqa: ANN401 (tensors, or whatever lies beside them)
    return torch.cat(values) if isinstance(values[0], Tensor) else values[0]


def batch_size_for(pictures: Tensor) -> int:
    """Items that have BATCH_PIXELS together, at least one, so that memory does not grow with the batch."""
    return max(1, BATCH_PIXELS // (pictures.shape[-1] * pictures.shape[-2]))


def run_batched(
    run: Callable[[slice, ChunkSizes, ProgressCallback | None], T],
    pictures: Tensor,
    *,
    sizes: ChunkSizes = DEFAULT_SIZES,
    progress: ProgressCallback | None = None,
) -> list[T]:
    """Results of the work on a batch, some items at a time.

    When memory runs out, half as many items run together; with one item, everything else is halved.

    Args:
        run: called with the items, the sizes to work with, and the progress of these items.
        pictures: (B, C, H, W) the batch.
        sizes: to begin with.
        progress: called with the share that is done.
    """
    results: list[T] = []
    batch, done = len(pictures), 0
    count = sizes.items or batch_size_for(pictures)
    while done < batch:
        stop = min(done + count, batch)
        try:
            results.append(run(slice(done, stop), sizes, sub_progress(progress, done / batch, stop / batch)))
        except Exception as error:
            if not is_out_of_memory(error) or (stop - done == 1 and sizes.chunk_bytes <= MIN_RETRY_CHUNK_BYTES):
                raise
        else:
            done = stop
            if progress is not None:
                progress(done / batch)
            continue
        empty_cache()  # after the except block: the error holds on to what the failed attempt allocated
        count = max(1, (stop - done) // 2)
        if stop - done == 1:
            sizes = sizes.halved()
    return results
