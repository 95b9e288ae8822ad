"""Parallel work on CPU cores, one core per item: small matrix products gain little from several cores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from .memory import malloc_trim

Item = TypeVar("Item")
Result = TypeVar("Result")


def worker_count(device: torch.device) -> int:
    """Number of items processed in parallel on a device."""
    return torch.get_num_threads() if device.type == "cpu" else 1


def parallel_map(work: Callable[[Item], Result], items: Sequence[Item], threads: int) -> Iterator[Result]:
    """`map(work, items)` in several threads; the results come in order.

    With more than one thread gradients are disabled. An error in `work`, or closing the iterator, cancels the items
    that have not started.
    """
    threads = min(threads, len(items))
    if threads <= 1:
        yield from map(work, items)
        return
    inference = torch.is_inference_mode_enabled()  # thread-local, like the gradient mode

    def in_thread(item: Item) -> Result:
        with torch.inference_mode(inference), torch.no_grad():
            return work(item)

    torch_threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, "adaattn", _use_one_thread)
    try:
        for result in [pool.submit(in_thread, item) for item in items]:
            value = result.result()
            torch.set_num_threads(torch_threads)  # new threads would otherwise inherit the 1 that the pool set last
            yield value
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(torch_threads)
        malloc_trim()  # each thread has a heap of its own


def _use_one_thread() -> None:
    torch.get_num_threads()  # the first call in a thread adopts the global number and would override the next line
    torch.set_num_threads(1)
