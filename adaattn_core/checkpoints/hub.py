"""torchvision's networks, fetched when a command asks for them by name, and never otherwise."""

from __future__ import annotations

import errno
import pickle
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Protocol
from urllib.error import HTTPError
from urllib.parse import urlparse

import torch
from torch import Tensor

from ..errors import CheckpointError

TIMEOUT_SECONDS = 30
"""Silence after which a server counts as unreachable; torch would wait for ever."""


class Weights(Protocol):
    """What is used of an entry of torchvision's enumerations of weights."""

    @property
    def url(self) -> str: ...

    def get_state_dict(self, *, progress: bool, check_hash: bool) -> dict[str, Tensor]: ...


def cached_file(weights: Weights) -> Path:
    """Where torch keeps the file: in TORCH_HOME, or ~/.cache/torch."""
    return Path(torch.hub.get_dir(), "checkpoints", Path(urlparse(weights.url).path).name)


def torchvision_tensors(weights: Weights, name: str) -> dict[str, Tensor]:
    """Tensors of a file of torchvision's: downloaded whole or not at all, hash-checked, kept for the next time.

    A progress bar is shown on stderr where that is a terminal.

    Args:
        weights: such as torchvision.models.VGG19_Weights.IMAGENET1K_V1.
        name: of the network, for people.

    Raises:
        CheckpointError: no connection, no room, a wrong hash, or a file that was damaged later.
    """
    file = cached_file(weights)
    was_there = file.is_file()
    try:
        with redirect_stdout(sys.stderr), _timeout(TIMEOUT_SECONDS):  # torch tells on stdout where it loads from
            return dict(weights.get_state_dict(progress=sys.stderr.isatty(), check_hash=True))
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        if isinstance(error, HTTPError):
            error.close()  # it holds the connection open
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            line = f"disk full while {name} was downloaded to {file.parent}. Free some space, or set TORCH_HOME."
        elif was_there:
            line = f"{file} is damaged ({reason}). Delete it, so that {name} is downloaded again."
        else:
            line = f"{name} could not be downloaded ({reason}). Check the connection, or name a local file instead."
        raise CheckpointError(line) from error


@contextmanager
def _timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
