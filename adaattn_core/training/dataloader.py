"""Worker processes that read training pictures, each of which may be killed at any moment, for example by the system
when memory runs out."""

from __future__ import annotations

import ctypes
import multiprocessing
from collections.abc import Generator
from multiprocessing.context import BaseContext
from typing import Any

import torch
from torch.utils.data import DataLoader

from ..errors import DataError
from ..runtime.signals import ignore_sigchld
from .dataset import Batch, TrainingPairs, collate

WORKER_KILLED = "a process that reads pictures was killed"


class WorkerError(RuntimeError):
    """A worker process was killed."""


class LockFreeEvent:
    """The part of `multiprocessing.Event` that DataLoader uses, without a lock.

    A worker process that is killed while it holds a lock would block all other processes, and the training, forever.

    Args:
        context: determines how the processes are started; the event is passed to them at their start.
    """

    def __init__(self, context: BaseContext) -> None:
        self._value = context.RawValue(ctypes.c_bool, False)

    def is_set(self) -> bool:
        return bool(self._value.value)

    def set(self) -> None:
        self._value.value = True


def loader_context() -> BaseContext:
    """The platform's default start method, for DataLoader's `multiprocessing_context`, with LockFreeEvents."""
    context: BaseContext = multiprocessing.get_context()
    kind = type(context)

    class Context(kind):  # type: ignore[misc, valid-type]
        def Event(self) -> LockFreeEvent:  # noqa: N802 (multiprocessing's name)
            return LockFreeEvent(self)

    return Context()


def batches(
    pairs: TrainingPairs, step: int, workers: int, rank: int = 0, world: int = 1
) -> Generator[Batch, None, None]:
    """The batches of one process, from a step to the end of the run.

    Args:
        pairs: the items of the whole run.
        step: the first step.
        workers: number of worker processes; 0 reads in this process.
        rank, world: of each batch, the items rank, rank + world, rank + 2 world, ... are read.

    Raises:
        DataError: too many pictures in a row cannot be read.
        WorkerError: a worker process was killed; the missing batch shows it, within seconds.
    """
    loader: DataLoader[Any] = DataLoader(
        pairs,
        batch_size=pairs.schedule.batch // world,
        sampler=range(step * pairs.schedule.batch + rank, len(pairs), world),
        num_workers=workers,
        collate_fn=collate,
        generator=torch.Generator(),  # otherwise torch takes the workers' seed from the global generator
        prefetch_factor=4 if workers else None,
        multiprocessing_context=loader_context() if workers else None,
    )
    iterator = iter(loader)
    failure: Exception | None = None
    with ignore_sigchld():
        try:
            yield from iterator
        except DataError as error:  # torch adds a worker's traceback to its error; the last line is the message
            failure = DataError(str(error).strip().splitlines()[-1].removeprefix(f"{DataError.__module__}.DataError: "))
        except RuntimeError as error:  # raised by torch when a worker was killed
            if "DataLoader worker" not in str(error):
                raise
            failure = WorkerError(WORKER_KILLED)
        except (ConnectionError, EOFError):  # a worker was killed after it announced a batch
            failure = WorkerError(WORKER_KILLED)
        finally:
            # Ends and joins the worker processes, now that no traceback refers to the iterator. A process that ended
            # later would reach torch's handler.
            del iterator
    if failure is not None:
        raise failure
