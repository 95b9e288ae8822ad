"""Data-parallel work in several processes, as torchrun starts them: ranks, exchange of status, reduction of gradients.

Every process computes its share of each batch. All hold the same weights, because gradients are summed over the
processes before each update. Before that they exchange a `RankStatus`, so that all stop at the same step when one fails
or receives a signal. Status goes through gloo on the CPU, gradients on a GPU through nccl.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from .device import pick_device
from .remarks import FileNote

log = logging.getLogger(__name__)


class PeerError(RuntimeError):
    """Another process of the run failed; the message is its error in one line."""


class PeerLostError(PeerError):
    """Another process of the run ended without a status."""


class RankStatus(NamedTuple):
    """What a process reports to the others before each update."""

    notes: tuple[FileNote, ...] = ()
    """What there is to say about files that were read."""
    failure: str = ""
    """Error message; empty if the process can continue."""
    stop: int = 0
    """Number of the signal that requests a stop, or 0."""


class DistributedContext:
    """This process among the `world` processes of a run. With a single process, every exchange does nothing.

    Args:
        rank: of this process, from 0.
        world: number of processes.
        local_rank: of this process among those on its machine.
    """

    def __init__(self, rank: int = 0, world: int = 1, local_rank: int = 0) -> None:
        self.rank, self.world, self.local_rank = rank, world, local_rank

    @classmethod
    def from_env(cls) -> DistributedContext:
        """From the environment variables that torchrun sets; a single process without them."""
        return cls(*(int(os.environ.get(name, default)) for name, default in ENVIRONMENT.items()))

    @property
    def is_main_process(self) -> bool:
        """Whether this process writes the run's files and its output on the terminal."""
        return self.rank == 0

    @contextmanager
    def main_process_warns(self) -> Iterator[None]:
        """Warnings inside the block concern the whole run: those of the other processes would repeat them."""
        logger = logging.getLogger(__name__.partition(".")[0])
        before = logger.level
        if not self.is_main_process:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(before)

    @contextmanager
    def main_process_fails_first(self) -> Iterator[None]:
        """Errors inside the block are met by all processes, which are not connected.

        Another process than the main one raises its error only after ERROR_SECONDS: by then torchrun, which ends all
        processes when one fails, has ended it, unless the error is its own.
        """
        try:
            yield
        except Exception:
            if not self.is_main_process:
                time.sleep(ERROR_SECONDS)
            raise

    def pick_device(self, name: str) -> torch.device:
        """`device.pick_device`, except that each of several processes on a machine uses a GPU of its own.

        Raises:
            ValueError: no such device, a single device for several processes, or fewer GPUs than processes.
        """
        if self.world == 1:
            return pick_device(name)
        if name == "auto":
            name = "cuda" if torch.cuda.is_available() else "cpu"
        if name not in ("cpu", "cuda"):
            raise ValueError(f"--device {name} is one for all {self.world} processes. Use --device cuda, cpu or auto.")
        if name == "cpu":
            return pick_device(name)
        if self.local_rank >= torch.cuda.device_count():
            raise ValueError(
                f"this machine has {torch.cuda.device_count()} GPUs, less than processes. "
                "Start torchrun with that many (--nproc-per-node), or use --device cpu."
            )
        return pick_device(f"cuda:{self.local_rank}")

    @contextmanager
    def process_group(self, patience: timedelta | None = None) -> Iterator[None]:
        """Connect to the other processes for the duration of the block.

        An error that ends the block is broadcast. Only the main process raises it; the others raise PeerError.

        Args:
            patience: how long an exchange of status waits for processes that are at work; None is torch's half hour. A
                process that ends is noticed at once.

        Raises:
            PeerError: another process failed, as received by the next `sync_status`.
        """
        if self.world == 1:
            yield
            return
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
        try:
            self._status_group = dist.new_group(backend="gloo", timeout=patience)
            yield
        except (PeerError, KeyboardInterrupt):
            raise  # already known to all processes
        except Exception as error:
            log.debug("process %d of %d", self.rank, self.world, exc_info=True)
            self._broadcast_failure(error)
            raise
        finally:
            dist.destroy_process_group()  # joins its threads, which abort if they free a tensor after Python ended

    def _broadcast_failure(self, error: Exception) -> None:
        message = " ".join(str(error).split()) or type(error).__name__
        try:
            self._exchange(RankStatus(failure=message))
        except PeerLostError:
            return  # no other process is left
        if not self.is_main_process:
            raise PeerError(message) from error

    def sync_status(self, notes: Sequence[FileNote] = (), stop: int | None = None) -> tuple[list[FileNote], int]:
        """Exchange the status with all other processes, waiting for them.

        Args:
            notes: about the files that were read.
            stop: number of a signal that requests a stop, or None or 0.

        Returns:
            `notes` of all processes, concatenated, and the largest `stop`.

        Raises:
            PeerError: another process failed; the message names its rank and error.
            PeerLostError: another process ended.
        """
        statuses = self._exchange(RankStatus(tuple(notes), stop=stop or 0))
        for rank, status in enumerate(statuses):
            if status.failure:
                raise PeerError(f"process {rank} of {self.world} cannot go on: {status.failure}")
        return [note for status in statuses for note in status.notes], max(status.stop for status in statuses)

    @contextmanager
    def local_main_first(self) -> Iterator[None]:
        """The first process of each machine runs the block before the others there, which find what it downloaded."""
        if self.local_rank:
            self.sync_status()
        yield
        if not self.local_rank:
            self.sync_status()

    def _exchange(self, status: RankStatus) -> list[RankStatus]:
        """The status of every process, by rank."""
        if self.world == 1:
            return [status]
        statuses = [RankStatus()] * self.world
        with _connection_errors():
            dist.all_gather_object(statuses, status, group=self._status_group)  # type: ignore[arg-type]  # never None
        return statuses

    def flatten(self, tensors: Sequence[Tensor]) -> Tensor | None:
        """The buffer of `all_reduce_sum`, or None for a single process.

        Allocated before `sync_status`, so that a lack of memory is part of the status.
        """
        return torch.cat([tensor.reshape(-1).float() for tensor in tensors]) if self.world > 1 else None

    def all_reduce_sum(self, tensors: Sequence[Tensor], flat: Tensor | None) -> None:
        """Replace each tensor by its sum over all processes, bitwise identical in all of them.

        Args:
            tensors: in the same order in every process.
            flat: result of `flatten`; None does nothing.
        """
        if flat is None:
            return
        with _connection_errors():
            dist.all_reduce(flat)
        for tensor, part in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def broadcast(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by the main process's."""
        if self.world == 1:
            return
        for tensor in tensors:
            contiguous = tensor.detach().contiguous()
            with _connection_errors():
                dist.broadcast(contiguous, src=0)
            with torch.no_grad():
                tensor.copy_(contiguous)


ERROR_SECONDS = 10.0
"""Time in which the main process meets an error that all processes meet."""
ENVIRONMENT = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
"""Variables that torchrun sets for each process, and their values without it."""


@contextmanager
def _connection_errors() -> Iterator[None]:
    """Turns a broken connection into a PeerLostError."""
    try:
        yield
    except RuntimeError as error:  # raised by gloo and nccl when a connection breaks or times out
        raise PeerLostError(
            "another process of the run is gone. What is done is saved: go on with --resume."
        ) from error
