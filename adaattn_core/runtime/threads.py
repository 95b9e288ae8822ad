"""Independent pieces of work on a processor's cores, each on one of them: small products gain little from several."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from .memory import malloc_trim

Item = TypeVar("Item")
Result = TypeVar("Result")


def worker_count(device: torch.device) -> int:
    """How many pieces of work go on there at the same time."""
    return torch.get_num_threads() if device.type == "cpu" else 1


def parallel_map(work: Callable[[Item], Result], items: Sequence[Item], threads: int) -> Iterator[Result]:
    """`work` of every item, in order, so many at once; without gradients, unless it is one at a time.

    What `work` raises, or who no longer asks for results, ends what has not begun.
    """
    threads = min(threads, len(items))
    if threads <= 1:
        yield from map(work, items)
        return
    inference = torch.is_inference_mode_enabled()  # as the gradient mode, a thread's own

    def in_thread(item: Item) -> Result:
        with torch.inference_mode(inference), torch.no_grad():
            return work(item)

    allowed = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, "adaattn", _use_one_thread)
    try:
        for result in [pool.submit(in_thread, item) for item in items]:
            done = result.result()
            torch.set_num_threads(allowed)  # new threads elsewhere start with what was set last, by the pool's: 1
            yield done
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(allowed)
        malloc_trim()  # of what the threads have freed, each in a place of its own


def _use_one_thread() -> None:
    torch.get_num_threads()  # a thread's first question sets the number that is set elsewhere; now it has been asked
    torch.set_num_threads(1)
