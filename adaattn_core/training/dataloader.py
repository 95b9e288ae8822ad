"""Processes that read training pictures, any of which may be killed at any moment, by the system out of memory say."""

from __future__ import annotations

import ctypes
import multiprocessing
from collections.abc import Generator
from multiprocessing.context import BaseContext
from typing import Any

import torch
from torch.utils.data import DataLoader

from ..errors import DataError as DataError
from ..runtime.signals import ignore_sigchld
from .dataset import Batch, TrainingPairs, collate


class LockFreeEvent:
    """What DataLoader uses of `multiprocessing.Event`, without the lock: whoever died holding it would leave all others
    waiting for good, the process that trains among them.

    Args:
        context: how the processes are started; the flag goes to them as they start.
    """

    def __init__(self, context: BaseContext) -> None:
        self._value = context.RawValue(ctypes.c_bool, False)

    def is_set(self) -> bool:
        return bool(self._value.value)

    def set(self) -> None:
        self._value.value = True


def loader_context() -> BaseContext:
    """The platform's way to start processes, for DataLoader's `multiprocessing_context`: its events are StopFlags."""
    context: BaseContext = multiprocessing.get_context()
    kind = type(context)

    class Context(kind):  # type: ignore[misc, valid-type]
        def Event(self) -> LockFreeEvent:  # noqa: N802 (multiprocessing's name)
            return LockFreeEvent(self)

    return Context()


KILLED = "a process that reads pictures was killed"


class WorkerError(RuntimeError):
    """A process that reads pictures is gone."""


def batches(
    pairs: TrainingPairs, step: int, workers: int, rank: int = 0, world: int = 1
) -> Generator[Batch, None, None]:
    """Batches from a step of the run to its end, read by so many processes (0: this one); of each batch the items
    rank, rank + world, rank + 2 world, ...

    Raises:
        DataError: too many pictures in a row cannot be read.
        WorkerError: one of the processes is gone. It is noticed by the missing batch, within seconds, and nowhere else.
    """
    loader: DataLoader[Any] = DataLoader(
        pairs,
        batch_size=pairs.batch // world,
        sampler=range(step * pairs.batch + rank, len(pairs), world),
        num_workers=workers,
        collate_fn=collate,
        generator=torch.Generator(),  # else torch draws the workers' seed from the global one
        prefetch_factor=4 if workers else None,
        multiprocessing_context=loader_context() if workers else None,
    )
    iterator = iter(loader)
    try:
        with ignore_sigchld():
            try:
                yield from iterator
            finally:
                del iterator  # its processes end
    except DataError as error:  # torch sends a worker's error with its traceback; our line is the last of it
        raise DataError(
            str(error).strip().splitlines()[-1].removeprefix(f"{DataError.__module__}.DataError: ")
        ) from None
    except RuntimeError as error:  # torch's, of a worker that was killed
        if "DataLoader worker" not in str(error):
            raise
        raise WorkerError(KILLED) from error
    except (ConnectionError, EOFError) as error:  # of one that is gone while what it announced is fetched
        raise WorkerError(KILLED) from error
