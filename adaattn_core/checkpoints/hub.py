"""Download of torchvision's pretrained weights, only when a command names them."""

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
"""Without an answer for this long a server counts as unreachable; torch sets no timeout."""


class Weights(Protocol):
    """The part of torchvision's weights enumerations that is used here."""

    @property
    def url(self) -> str: ...

    def get_state_dict(self, *, progress: bool, check_hash: bool) -> dict[str, Tensor]: ...


def cached_file(weights: Weights) -> Path:
    """Path of torch's cached copy, in TORCH_HOME or ~/.cache/torch."""
    return Path(torch.hub.get_dir(), "checkpoints", Path(urlparse(weights.url).path).name)


def torchvision_tensors(weights: Weights, name: str) -> dict[str, Tensor]:
    """State dict of a torchvision network: downloaded completely or not at all, checked by its hash, cached.

    Shows a progress bar if stderr is a terminal.

    Args:
        weights: for example torchvision.models.VGG19_Weights.IMAGENET1K_V1.
        name: of the network, for error messages.

    Raises:
        CheckpointError: no connection, disk full, wrong hash, or a damaged cached file.
    """
    file = cached_file(weights)
    was_cached = file.is_file()
    try:
        with redirect_stdout(sys.stderr), _timeout(TIMEOUT_SECONDS):  # torch prints the address to stdout
            return dict(weights.get_state_dict(progress=sys.stderr.isatty(), check_hash=True))
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        if isinstance(error, HTTPError):
            error.close()  # closes the connection
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            message = f"disk full while {name} was downloaded to {file.parent}. Free some space, or set TORCH_HOME."
        elif was_cached:
            message = f"{file} is damaged ({reason}). Delete it, so that {name} is downloaded again."
        else:
            message = f"{name} could not be downloaded ({reason}). Check the connection, or name a local file instead."
        raise CheckpointError(message) from error


@contextmanager
def _timeout(seconds: float) -> Iterator[None]:
    previous = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(previous)
