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
    """Peak resident memory of this process so far, in bytes.

    Raises:
        ValueError: on Windows, where Python does not report it.
    """
    status = Path("/proc/self/status")
    if status.is_file():  # not getrusage, which on Linux includes the parent's memory at the fork
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
"""Estimate of the memory of Python and torch before any work."""

LARGE_PIXELS = 1024 * 1024
"""From this size on, `malloc_trim` between two steps is worth the cost of allocating the pages again."""

CPU = torch.device("cpu")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that a device or the machine is out of memory.

    On the CPU and on MPS torch raises a plain RuntimeError, which only its message identifies.
    """
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    phrases = ("can't allocate memory", "not enough memory", "out of memory", "could not create a primitive")
    return isinstance(error, RuntimeError) and any(phrase in str(error) for phrase in phrases)


def memory_in_use(device: torch.device) -> int:
    """Bytes that this process holds: in the device's own memory if it has one, else in the machine's.

    The machine's memory is measured on Linux only; elsewhere IDLE_BYTES is returned.
    """
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    if device.type == "mps":
        return torch.mps.current_allocated_memory()
    status = Path("/proc/self/statm")
    return int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if status.is_file() else IDLE_BYTES


def malloc_trim(device: torch.device = CPU) -> None:
    """Return freed heap pages to the system: glibc keeps those of tensors under 32 MiB, which count as in use.

    Takes a third of a millisecond. Does nothing with another C library, or for another device than the CPU.
    """
    if sys.platform == "linux" and device.type == "cpu":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)


def malloc_trim_if_large(image: Tensor) -> None:
    """`malloc_trim` between two steps of the work on an image (B, C, H, W), if it has at least LARGE_PIXELS."""
    if image.shape[-2] * image.shape[-1] >= LARGE_PIXELS:
        malloc_trim(image.device)


def empty_cache() -> None:
    """Release the memory that torch caches on CUDA and MPS devices."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
