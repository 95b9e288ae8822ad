"""One training run in several processes, as torchrun starts them: who is who, and what they tell each other.

Every process computes its share of each batch, and all hold the same weights, since gradients are added up before each
update. Before that the processes `meet`, each to say how it is doing: so all stop at the same step when one cannot go
on or is asked to stop. Words go through gloo on the CPU, gradients through nccl where they lie on a GPU.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from .device import pick_device

log = logging.getLogger(__name__)


class PeerError(RuntimeError):
    """Another process of the run cannot go on; one line, its own."""


class PeerLostError(PeerError):
    """Another process of the run is gone without a word."""


class RankStatus(NamedTuple):
    """What a process tells the others: unreadable files it met, why it cannot go on, the signal that asks to stop."""

    broken: tuple[str, ...] = ()
    failure: str = ""
    stop: int = 0


class DistributedContext:
    """This process among the `world` processes of a run, counted by `rank`; all else is nothing to a single one."""

    def __init__(self, rank: int = 0, world: int = 1, local_rank: int = 0) -> None:
        self.rank, self.world, self.local_rank = rank, world, local_rank

    @classmethod
    def from_env(cls) -> DistributedContext:
        """As torchrun says; one process without it."""
        return cls(*(int(os.environ.get(name, default)) for name, default in ENVIRONMENT.items()))

    @property
    def is_main_process(self) -> bool:
        """Whether this process writes the files of the run and speaks to the person."""
        return self.rank == 0

    def pick_device(self, name: str) -> torch.device:
        """`devices.pick_device`; of several processes on a machine each takes a GPU of its own.

        Raises:
            ValueError: a device that is not there, or cannot be shared out.
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
    def process_group(self) -> Iterator[None]:
        """Connected to the other processes. An error that ends the block is told to them, and only the writer raises
        it: the others raise PeerError.

        Raises:
            PeerError: another process cannot go on, which every process hears at its next `meet`.
        """
        if self.world == 1:
            yield
            return
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
        try:
            self._words = dist.new_group(backend="gloo")
            yield
        except (PeerError, KeyboardInterrupt):
            raise  # all know of it
        except Exception as error:
            log.debug("process %d of %d", self.rank, self.world, exc_info=True)
            self._broadcast_failure(error)
            raise
        finally:
            dist.destroy_process_group()  # ends its threads: one that lets go of a tensor after Python has ended aborts

    def _broadcast_failure(self, error: Exception) -> None:
        line = " ".join(str(error).split()) or type(error).__name__
        try:
            self._exchange(RankStatus(failure=line))
        except PeerLostError:
            return  # nobody is left to tell
        if not self.is_main_process:
            raise PeerError(line) from error

    def sync_status(self, broken: Sequence[str] = (), stop: int | None = None) -> tuple[list[str], int]:
        """Wait for the others; what `broken` and `stop` (a signal, or 0) come to over all processes.

        Raises:
            PeerError: one of them cannot go on, and says why.
            PeerLostError: one of them is gone.
        """
        told = self._exchange(RankStatus(tuple(broken), stop=stop or 0))
        for rank, news in enumerate(told):
            if news.failure:
                raise PeerError(f"process {rank} of {self.world} cannot go on: {news.failure}")
        return [name for news in told for name in news.broken], max(news.stop for news in told)

    @contextmanager
    def local_main_first(self) -> Iterator[None]:
        """The first process of each machine goes through the block before its others: what it fetches is there then."""
        if self.local_rank:
            self.sync_status()
        yield
        if not self.local_rank:
            self.sync_status()

    def _exchange(self, news: RankStatus) -> list[RankStatus]:
        if self.world == 1:
            return [news]
        told = [RankStatus()] * self.world
        with _watched():
            dist.all_gather_object(told, news, group=self._words)  # type: ignore[arg-type]  # a group: we are in it
        return told

    def flatten(self, tensors: Sequence[Tensor]) -> Tensor | None:
        """What `all_reduce_sum` needs, made before `meet`: then a lack of memory can be told there."""
        return torch.cat([tensor.reshape(-1).float() for tensor in tensors]) if self.world > 1 else None

    def all_reduce_sum(self, tensors: Sequence[Tensor], flat: Tensor | None) -> None:
        """Each tensor becomes its sum over all processes, bit for bit the same in all of them."""
        if flat is None:
            return
        with _watched():
            dist.all_reduce(flat)
        for tensor, part in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def broadcast(self, tensors: Sequence[Tensor]) -> None:
        """Each tensor becomes the writer's."""
        if self.world == 1:
            return
        for tensor in tensors:
            same = tensor.detach().contiguous()
            with _watched():
                dist.broadcast(same, src=0)
            with torch.no_grad():
                tensor.copy_(same)


ENVIRONMENT = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
"""What torchrun tells each process, and what it is without."""


@contextmanager
def _watched() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # gloo's and nccl's, when a connection breaks or times out
        raise PeerLostError(
            "another process of the run is gone. What is done is saved: go on with --resume."
        ) from error
