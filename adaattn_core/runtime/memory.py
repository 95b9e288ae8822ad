"""Memory of the process and of devices: peak, current use, and giving freed memory back to the system."""

from __future__ import annotations

import ctypes
import os
import re
import sys
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor


def peak_memory_bytes() -> int:
    """Largest resident size this process ever had.

    Raises:
        ValueError: on Windows, whose Python cannot tell.
    """
    status = Path("/proc/self/status")
    if status.is_file():  # not getrusage: Linux counts what the parent had when it started this process
        (kilobytes,) = re.findall(r"^VmHWM:\s*(\d+) kB$", status.read_text(), flags=re.MULTILINE)
        return 1024 * int(kilobytes)
    try:
        import resource
    except ImportError as error:
        raise ValueError(
            "peak memory cannot be measured on Windows; run the benchmark under Linux, macOS or WSL"
        ) from error
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


IDLE_BYTES = 512 * 2**20

LARGE_PIXELS = 1024 * 1024
"""From here on it is worth asking the system for pages again to leave no gaps between one step and the next."""

CPU = torch.device("cpu")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device, or the machine, had no memory left; on the CPU and on MPS, torch says so in words only."""
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    words = ("can't allocate memory", "not enough memory", "out of memory")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


def memory_in_use(device: torch.device) -> int:
    """Bytes that this process holds: on a device with memory of its own, there; else of the machine's.

    Only Linux tells; elsewhere it is what Python and torch take before any work.
    """
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    if device.type == "mps":
        return torch.mps.current_allocated_memory()
    status = Path("/proc/self/statm")
    return int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if status.is_file() else IDLE_BYTES


def malloc_trim(device: torch.device = CPU) -> None:
    """Give pages between what is still in use back to the system: glibc keeps those of tensors under 32 MiB, which
    count as held. A third of a millisecond; nothing where the C library is another, or the work is elsewhere."""
    if sys.platform == "linux" and device.type == "cpu":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)


def malloc_trim_if_large(picture: Tensor) -> None:
    """`malloc_trim` between two steps of the work on a picture that is so large that it is worth it."""
    if picture.shape[-2] * picture.shape[-1] >= LARGE_PIXELS:
        malloc_trim(picture.device)


def empty_cache() -> None:
    """Give back what torch keeps for later on the devices that are in use."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
